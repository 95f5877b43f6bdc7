"""How long to wait after something failed."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

_MOST_DOUBLINGS: Final = 20  # beyond it `longest` holds in any case, and a timedelta would overflow


def backoff(first: timedelta, failures_before: int, longest: timedelta) -> timedelta:
    """The pause after a failure: `first`, doubled for each failure in a row before it, at most `longest`."""
    factor: int = 2 ** min(failures_before, _MOST_DOUBLINGS)
    return min(first * factor, longest)
