"""A counter every process of a host maps into memory: 'something was taken away, read the changes'.

Comparing it costs well under a microsecond, so every request can. A host is the set of processes that
share a data directory. Readers also look at the table once a second, since a writer may die between its
commit and its bump.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import threading
from pathlib import Path
from typing import Final

_SIZE: Final = 8


class Epoch:
    """The counter in `path`; created at zero with mode 0600."""

    def __init__(self, path: Path) -> None:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        if os.fstat(fd).st_size < _SIZE:
            os.ftruncate(fd, _SIZE)
        self._fd = fd
        self._lock = threading.Lock()
        # An aligned 8-byte item of a memoryview is loaded and stored in one machine instruction.
        self._cell: Final = memoryview(mmap.mmap(fd, _SIZE)).cast("Q")

    @property
    def value(self) -> int:
        """The present value; only equality means something."""
        return self._cell[0]

    @property
    def cell(self) -> memoryview:
        """The mapped item itself, for the hot path: `cell[0]`."""
        return self._cell

    def bump(self) -> None:
        """Make every reader look again. Safe against other threads and processes."""
        with self._lock:
            fcntl.lockf(self._fd, fcntl.LOCK_EX)
            try:
                self._cell[0] = (self._cell[0] + 1) & 0xFFFFFFFFFFFFFFFF
            finally:
                fcntl.lockf(self._fd, fcntl.LOCK_UN)
