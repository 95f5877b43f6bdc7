"""Opening the records: transactions, durability, and what must be true of every connection."""

from __future__ import annotations

import re
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from taskcred.errors import InvalidRequestError, StoreBusyError, TaskcredError
from taskcred.store import postgresql
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
        is_postgresql = engine.dialect.name == "postgresql"
        self._snapshot: dict[str, Any] = postgresql.SNAPSHOT if is_postgresql else {}

    @contextmanager
    def write(self, *, shared: bool = False) -> Iterator[sa.Connection]:
        """A transaction. Commits at the end of the block, rolls back on an exception.

        Nobody else writes meanwhile: what the block has read stays true until it commits. On PostgreSQL that
        can be waived: `shared` blocks go on beside one another, never beside the others, and must be right
        whatever other shared ones do (docs/decisions/0006-writers-on-postgresql.md lists them).

        Where the block appended to `changes`, the epoch is bumped after the commit and before this
        returns, so that every process on the host has heard before the caller answers (at-once).
        Raises StoreBusyError when the database is locked or away.
        """
        with translated(), _counted(), self.engine.connect() as connection:
            writer = connection.execution_options(writes="shared" if shared else "alone")
            with writer.begin():
                yield writer
            if connection.info.pop("changed", False):
                self.epoch.bump()

    @contextmanager
    def read(self) -> Iterator[sa.Connection]:
        """A read-only transaction: one snapshot, never waits for writers."""
        with translated(), _counted(), self.engine.connect() as connection:
            reader = connection.execution_options(read_only=True, **self._snapshot)
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
def translated() -> Iterator[None]:
    """Raises the database's errors in our words; what breaks a constraint stays what it is."""
    try:
        yield
    except PoolTimeoutError as error:
        raise _in_our_words("busy") from error
    except DBAPIError as error:
        meaning = _meaning(error)
        if meaning is None:
            raise
        raise _in_our_words(meaning) from error


def _meaning(error: DBAPIError) -> postgresql.Meaning | None:
    if not isinstance(error.orig, sqlite3.Error):
        return postgresql.meaning(error)
    if not isinstance(error, OperationalError):
        return None
    return "outdated" if _OUTDATED.match(str(error.orig)) else "busy"


def _in_our_words(meaning: postgresql.Meaning) -> TaskcredError:
    match meaning:
        case "outdated":
            return StoreBusyError(
                "The records are those of an older release than this program.",
                hint="The operator stops `taskcred serve` and starts it again: a start brings them up to date.",
                code="store_outdated",
            )
        case "refused":
            return StoreBusyError(
                "The database does not let taskcred's role do its work.",
                hint="The operator makes the role of database.url the owner of its database.",
            )
        case "busy":
            return StoreBusyError(
                "The records database is busy or away.", hint="Try again; `taskcred doctor` tells more."
            )
        case "unfit":
            return InvalidRequestError(
                "A value is too long, too large, or holds a character that cannot be stored.",
                hint="Shorten texts, and leave out NUL characters.",
            )
