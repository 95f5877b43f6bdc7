"""What `taskcred doctor` and `taskcred config check` look at. Nothing here changes anything."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from taskcred.config import Settings


@dataclass(frozen=True, slots=True)
class Check:
    """One thing looked at: `words` say what was found, `cure` what to do about it."""

    name: str
    state: Literal["ok", "warning", "failed"]
    words: str
    cure: str = ""


def configuration(settings: Settings) -> list[Check]:
    """What can be wrong with settings that are well-formed."""
    return []


def examine(settings: Settings) -> list[Check]:
    """Everything."""
    return configuration(settings)
