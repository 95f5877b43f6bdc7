"""What looking at one thing found."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Check:
    """One thing looked at: `words` say what was found, `cure` what to do about it."""

    name: str
    state: Literal["ok", "warning", "failed"]
    words: str
    cure: str = ""
