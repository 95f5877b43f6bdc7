"""Failures by script, and time that stands still: what the fakes have in common."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Final

from taskcred.errors import (
    TaskcredError,
)

START: Final = datetime(2026, 3, 2, 9, 0, tzinfo=UTC)  # a Monday


class FrozenClock:
    """Time that moves only when a test says so."""

    def __init__(self, start: datetime = START) -> None:
        self._start = start
        self._now = start

    def now(self) -> datetime:
        """The instant the test has reached."""
        return self._now

    def monotonic(self) -> float:
        """Seconds since the clock was made."""
        return (self._now - self._start).total_seconds()

    def advance(self, by: timedelta) -> datetime:
        """Move on, and tell what time it is then."""
        self._now += by
        return self._now


class Failure(StrEnum):
    """How a scripted call fails: not reached; answered with a refusal; carried out, the answer lost."""

    UNAVAILABLE = "unavailable"
    REFUSE = "refuse"
    COMMIT_THEN_DROP = "commit_then_drop"


class Scripted:
    """Calls that are counted, and that fail where a test said so.

    `hook(method)` runs before every call outside any lock: a test puts latency, a barrier, or a crash
    (an exception of its own) there.
    """

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()
        self.hook: Callable[[str], None] | None = None
        self._script: dict[str, list[Failure]] = {}
        self._always: dict[str, Failure] = {}
        self._lock = threading.RLock()

    def script(self, method: str, failure: Failure, times: int | None = 1) -> None:
        """Let the next `times` calls of `method` fail so; None: all until `recover`. "*" is every method."""
        with self._lock:
            if times is None:
                self._always[method] = failure
            else:
                self._script.setdefault(method, []).extend([failure] * times)

    def recover(self) -> None:
        """Forget every scripted failure."""
        with self._lock:
            self._script.clear()
            self._always.clear()

    def _next(self, method: str) -> Failure | None:
        for name in (method, "*"):
            if self._script.get(name):
                return self._script[name].pop(0)
            if name in self._always:
                return self._always[name]
        return None

    @contextmanager
    def _call(
        self, method: str, away: type[TaskcredError], refused: Callable[[], TaskcredError]
    ) -> Iterator[None]:
        with self._lock:
            self.calls[method] += 1
            failure = self._next(method)
        if self.hook is not None:
            self.hook(method)
        if failure is Failure.UNAVAILABLE:
            raise away(f"scripted: {method} is away", hint="Try again.")
        if failure is Failure.REFUSE:
            raise refused()
        with self._lock:
            yield
        if failure is Failure.COMMIT_THEN_DROP:
            raise away(f"scripted: the answer of {method} was lost", hint="Try again.")
