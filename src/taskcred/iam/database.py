"""iam.db: opening it, migrating it, its transactions, and the history each of them writes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.exc import OperationalError

from taskcred.errors import StoreBusyError
from taskcred.iam import tables
from taskcred.store import migrate
from taskcred.store.engine import sqlite_engine

NOBODY: Final = ""  # the target of what was tried with an address that is nobody's


class Database:
    """The local IAM's database: a file of its own and a pool of its own."""

    def __init__(self, path: Path) -> None:
        self._engine = sqlite_engine(path)

    def migrate(self) -> None:
        """Bring the schema up to date; nothing happens where it is. Safe while others are serving."""
        with _translated():
            migrate.upgrade(self._engine, "taskcred:iam/migrations")

    @contextmanager
    def write(self) -> Iterator[sa.Connection]:
        """A transaction that holds the write lock from its start; commits at the end of the block.

        Raises StoreBusyError where the database is locked or away.
        """
        with _translated(), self._engine.connect() as connection, connection.begin():
            yield connection

    @contextmanager
    def read(self) -> Iterator[sa.Connection]:
        """One snapshot; never waits for writers."""
        with _translated(), self._engine.connect() as connection:
            reader = connection.execution_options(read_only=True)
            with reader.begin():
                yield reader

    def close(self) -> None:
        """Close the pool's connections."""
        self._engine.dispose()


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except OperationalError as error:
        raise StoreBusyError(
            "The identity database is busy or away.", hint="Try again; `taskcred doctor` tells more."
        ) from error


def remember(
    connection: sa.Connection,
    *,
    at: datetime,
    action: str,
    target: str,
    iam_id: str,
    account_id: str,
    params: Mapping[str, Any] | None = None,
) -> None:
    """Write down who (`iam_id`) did what to `target`, in the transaction that does it."""
    connection.execute(
        sa.insert(tables.history).values(
            at=at,
            action=action,
            target=target,
            iam_id=iam_id,
            account_id=account_id,
            params=dict(params or {}),
        )
    )
