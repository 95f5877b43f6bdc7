"""Schedules: queries."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import sqlalchemy as sa

from taskcred.store import tables as t
from taskcred.store.paging import is_older


def insert(connection: sa.Connection, **values: Any) -> None:
    """A new schedule; columns as in the table."""
    connection.execute(t.schedules.insert().values(**values))


def find_own(connection: sa.Connection, schedule_id: str, account_id: str, iam_id: str) -> sa.Row[Any] | None:
    """The schedule, if it is the owner's."""
    c = t.schedules.c
    return connection.execute(
        sa.select(t.schedules).where(c.id == schedule_id, c.account_id == account_id, c.iam_id == iam_id)
    ).first()


def of_owner(
    connection: sa.Connection,
    account_id: str,
    iam_id: str,
    *,
    before: tuple[datetime, str] | None,
    limit: int,
) -> list[sa.Row[Any]]:
    """An owner's schedules, newest first; `before` is where the last page ended."""
    c = t.schedules.c
    query = sa.select(t.schedules).where(c.account_id == account_id, c.iam_id == iam_id)
    if before is not None:
        query = query.where(is_older(c.created_at, c.id, before))
    return list(connection.execute(query.order_by(c.created_at.desc(), c.id.desc()).limit(limit)))


def change(connection: sa.Connection, schedule_id: str, **values: Any) -> None:
    """An owner's edit: it grows the revision, which the ticker does not."""
    c = t.schedules.c
    connection.execute(
        t.schedules.update().where(c.id == schedule_id).values(revision=c.revision + 1, **values)
    )


def delete(connection: sa.Connection, schedule_id: str) -> None:
    """The schedule is gone; its runs stay."""
    connection.execute(t.schedules.delete().where(t.schedules.c.id == schedule_id))


def is_any_due(connection: sa.Connection, now: datetime) -> bool:
    """Whether a schedule is due: one look at an index, whatever the number of schedules."""
    return connection.execute(_due(now).limit(1)).first() is not None


def due(connection: sa.Connection, now: datetime, limit: int) -> list[sa.Row[Any]]:
    """Schedules that are due, the longest first, each with `last_state`: its last run's, if it is there."""
    last = t.runs.c.state.label("last_state")
    joined = t.schedules.outerjoin(t.runs, t.runs.c.id == t.schedules.c.last_run_id)
    return list(connection.execute(_due(now).add_columns(last).select_from(joined).limit(limit)))


def advance(
    connection: sa.Connection, schedule_id: str, was: datetime, next_at: datetime | None, **values: Any
) -> bool:
    """Go on from the time `was`; False where another ticker has, or the owner has changed the schedule."""
    c = t.schedules.c
    done = connection.execute(
        t.schedules.update()
        .where(c.id == schedule_id, c.next_at == was, c.paused == sa.false())
        .values(next_at=next_at, **values)
    )
    return done.rowcount == 1


def _due(now: datetime) -> sa.Select[Any]:
    c = t.schedules.c
    # In the index's own order: with very many due at the same instant, a further key would sort them all.
    return sa.select(t.schedules).where(c.paused == sa.false(), c.next_at <= now).order_by(c.next_at)
