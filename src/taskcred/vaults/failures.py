"""Calls to a vault that failed, counted by the error's code."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Final

from taskcred.errors import RecordNotFoundError, TaskcredError


class Failures:
    """Counts of one process. That a record is not there is an answer, not a failure."""

    def __init__(self) -> None:
        self._counts: Final[Counter[str]] = Counter()
        self._lock: Final = threading.Lock()

    @contextmanager
    def counted(self) -> Iterator[None]:
        """Around a call: what it raises is counted and goes on."""
        try:
            yield
        except RecordNotFoundError:
            raise
        except TaskcredError as error:
            with self._lock:
                self._counts[error.error_code] += 1
            raise

    def read(self) -> Mapping[str, int]:
        """The counts so far, by code."""
        with self._lock:
            return dict(self._counts)
