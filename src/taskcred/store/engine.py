"""Opening the records: transactions, durability, and what must be true of every connection."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.exc import OperationalError

from taskcred.errors import StoreBusyError
from taskcred.store.epoch import Epoch

_open_here = threading.local()
_OUTDATED: Final = re.compile(r"no such (table|column)|table \S+ has no column")  # in SQLite's words


def is_transaction_open() -> bool:
    """Whether this thread holds a connection to any records: no port call may run then."""
    return getattr(_open_here, "depth", 0) > 0


def sqlite_engine(path: Path, *, pool_size: int = 16) -> sa.Engine:
    """An engine on an SQLite file: WAL, FULL sync (a commit survives power loss), foreign keys, and
    transactions that begin with BEGIN IMMEDIATE where they will write, so that two writers queue up
    instead of failing half-way. The file is created with mode 0600."""
    path.touch(mode=0o600, exist_ok=True)
    engine = sa.create_engine(
        f"sqlite:///{path}",
        pool_size=pool_size,
        max_overflow=64,
        connect_args={"timeout": 20, "check_same_thread": False, "isolation_level": None},
    )

    @sa.event.listens_for(engine, "connect")
    def _set_up(connection: Any, _record: Any) -> None:
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "busy_timeout=20000"):
            connection.execute(f"PRAGMA {pragma}")

    @sa.event.listens_for(engine, "begin")
    def _begin(connection: sa.Connection) -> None:
        read_only = connection.get_execution_options().get("read_only", False)
        connection.exec_driver_sql("BEGIN" if read_only else "BEGIN IMMEDIATE")

    return engine


class Store:
    """The records database and the epoch beside it."""

    def __init__(self, engine: sa.Engine, epoch: Epoch) -> None:
        self.engine = engine
        self.epoch = epoch

    @contextmanager
    def write(self) -> Iterator[sa.Connection]:
        """A transaction. Commits at the end of the block, rolls back on an exception.

        Where the block appended to `changes`, the epoch is bumped after the commit and before this
        returns, so that every process on the host has heard before the caller answers (at-once).
        Raises StoreBusyError when the database is locked or away.
        """
        with _translated(), _counted(), self.engine.connect() as connection:
            with connection.begin():
                yield connection
            if connection.info.pop("changed", False):
                self.epoch.bump()

    @contextmanager
    def read(self) -> Iterator[sa.Connection]:
        """A read-only transaction: one snapshot, never waits for writers on SQLite."""
        with _translated(), _counted(), self.engine.connect() as connection:
            reader = connection.execution_options(read_only=True)
            with reader.begin():
                yield reader


@contextmanager
def _counted() -> Iterator[None]:
    _open_here.depth = getattr(_open_here, "depth", 0) + 1
    try:
        yield
    finally:
        _open_here.depth -= 1


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except OperationalError as error:
        if _OUTDATED.match(str(error.orig)):
            raise StoreBusyError(
                "The records are those of an older release than this program.",
                hint="The operator stops `taskcred serve` and starts it again: a start brings them up to date.",
                code="store_outdated",
            ) from error
        raise StoreBusyError(
            "The records database is busy or away.", hint="Try again; `taskcred doctor` tells more."
        ) from error
