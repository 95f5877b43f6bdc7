"""A bulkhead: only so many calls to a part outside at once, so that one that hangs holds few threads."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from taskcred.errors import UnavailableError


class Bulkhead:
    """`permits` callers pass at once; the next is refused at once."""

    def __init__(self, permits: int) -> None:
        self._permits: Final = threading.BoundedSemaphore(permits)

    @contextmanager
    def permit(self, refusal: UnavailableError) -> Iterator[None]:
        """Around the call; raises `refusal` where all permits are out."""
        if not self._permits.acquire(blocking=False):
            raise refusal
        try:
            yield
        finally:
            self._permits.release()
