"""A how-to followed in the environment of the tests: what scripts/check-adapter does in an empty one."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from scripts.adapter_checks.page import Step
from scripts.adapter_checks.world import World


@dataclass
class Here(World):
    """What the page installs is there already."""

    @property
    def python(self) -> Path:
        return Path(sys.executable)

    @property
    def steps(self) -> list[Step]:
        return [step for step in super().steps if not step.text.startswith("$ pip install")]

    def _install(self) -> None:
        """Nothing."""


@contextmanager
def here(name: str, directory: Path) -> Iterator[Here]:
    """A world for the how-to `name`, in an empty directory."""
    opened = Here(name, directory)
    try:
        opened.open()
        yield opened
    finally:
        opened.close()
