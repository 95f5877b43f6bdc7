"""The command line as a user's shell runs it, with a home directory of the test's own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest


@dataclass(frozen=True)
class Done:
    """What a command printed, and how it ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def problem(self) -> Any:
        """The last line of standard error: what `--json` says about an error."""
        return json.loads(self.err.splitlines()[-1])


@dataclass(frozen=True)
class Shell:
    """Runs commands, each in a process of its own."""

    home: Path

    @property
    def environment(self) -> dict[str, str]:
        clean = {name: value for name, value in os.environ.items() if not name.startswith("TASKCRED_")}
        return clean | {
            "HOME": str(self.home),
            "XDG_CONFIG_HOME": str(self.home / "config"),
            "XDG_STATE_HOME": str(self.home / "state"),
            "DISPLAY": "",
            "WAYLAND_DISPLAY": "",
        }

    def __call__(self, *arguments: object, stdin: str = "", **environment: str) -> Done:
        done = subprocess.run(
            [sys.executable, "-m", "taskcred", *map(str, arguments)],
            input=stdin,
            capture_output=True,
            text=True,
            env=self.environment | environment,
            cwd=self.home,
            timeout=120,
            check=False,
        )
        return Done(done.returncode, done.stdout, done.stderr)


@pytest.fixture
def cli(tmp_path: Path) -> Shell:
    """`cli("run", "list")` runs `taskcred run list`."""
    home = tmp_path / "home"
    home.mkdir()
    return Shell(home)
