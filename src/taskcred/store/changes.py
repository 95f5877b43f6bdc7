"""The changes table: only what takes something away is written here (design section 4, Epoch)."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final, Literal, NamedTuple

import sqlalchemy as sa

from taskcred.store import tables as t

Kind = Literal["attempt", "credential", "worker", "service"]

_KEPT_FOR: Final = timedelta(days=1)  # every process looks once a second


class Change(NamedTuple):
    """`ref` is the id of the attempt, credential or service, or the name of the worker."""

    id: int
    kind: Kind
    ref: str


def append(connection: sa.Connection, kind: Kind, ref: str, now: datetime) -> None:
    """Tell every process that `ref` is no longer what it was; `Store.write` bumps the epoch after it."""
    be_alone(connection)
    connection.execute(t.changes.insert().values(kind=kind, ref=ref, at=now))
    connection.info["changed"] = True


def be_alone(connection: sa.Connection) -> None:
    """Whoever reads on from the last id it saw must miss nothing, so ids are given in the order of commits: by
    a writer that is alone. Raises RuntimeError for another, which is a bug."""
    if connection.get_execution_options().get("writes") == "shared":
        raise RuntimeError("a shared writer must not append to what is read in order")


def newest(connection: sa.Connection) -> int:
    """The id of the newest change; 0 when there is none."""
    return int(connection.execute(sa.select(sa.func.coalesce(sa.func.max(t.changes.c.id), 0))).scalar_one())


def since(connection: sa.Connection, after: int) -> list[Change]:
    """The changes after id `after`, in commit order."""
    c = t.changes.c
    rows = connection.execute(sa.select(c.id, c.kind, c.ref).where(c.id > after).order_by(c.id))
    return [Change(row.id, row.kind, row.ref) for row in rows]


def prune(connection: sa.Connection, now: datetime) -> None:
    """Forget changes that every living process has long read."""
    connection.execute(t.changes.delete().where(t.changes.c.at < now - _KEPT_FOR))
