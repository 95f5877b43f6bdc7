"""The outbox: notices committed with what they tell of, delivered by the keeper."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

import sqlalchemy as sa

from taskcred.store import tables as t

Channel = Literal["page", "mail", "webhook"]
State = Literal["open", "sent", "read", "withdrawn", "given_up"]


@dataclass(frozen=True, slots=True)
class Notice:
    """A row of the outbox. `error` says what the last try of a delivery met."""

    id: str
    account_id: str
    iam_id: str
    kind: str
    channel: Channel
    payload: dict[str, Any]
    state: State
    attempts: int
    next_try_at: datetime | None
    error: str | None
    created_at: datetime
    closed_at: datetime | None


def insert(
    connection: sa.Connection,
    account_id: str,
    iam_id: str,
    kind: str,
    payload: dict[str, Any],
    channels: Sequence[Channel],
    now: datetime,
) -> None:
    """One row for each channel; those that are sent are due at once."""
    connection.execute(
        t.notices.insert(),
        [
            {
                "id": str(uuid.uuid4()),
                "account_id": account_id,
                "iam_id": iam_id,
                "kind": kind,
                "channel": channel,
                "payload": payload,
                "state": "open",
                "next_try_at": None if channel == "page" else now,
                "created_at": now,
            }
            for channel in channels
        ],
    )


def count_since(connection: sa.Connection, account_id: str, iam_id: str, kind: str, since: datetime) -> int:
    """How often an owner was told this since then, whatever became of it."""
    c = t.notices.c
    told = sa.select(sa.func.count()).where(
        c.account_id == account_id,
        c.iam_id == iam_id,
        c.created_at > since,
        c.kind == kind,
        c.channel == "page",
    )
    return int(connection.execute(told).scalar_one())


def withdraw(
    connection: sa.Connection, account_id: str, iam_id: str, kinds: Sequence[str], now: datetime
) -> None:
    """Close what was not read or sent yet: it has become untrue."""
    c = t.notices.c
    connection.execute(
        t.notices.update()
        .where(c.account_id == account_id, c.iam_id == iam_id, c.state == "open", c.kind.in_(kinds))
        .values(state="withdrawn", next_try_at=None, closed_at=now)
    )


def claim_due(connection: sa.Connection, now: datetime, until: datetime, limit: int) -> list[Notice]:
    """Take due deliveries: nobody else takes them before `until`, by when they are closed or planned anew."""
    c = t.notices.c
    query = sa.select(t.notices).where(c.state == "open", c.next_try_at <= now)
    notices = _notices(connection, query.order_by(c.next_try_at).limit(limit))
    if notices:
        taken = t.notices.update().where(c.id.in_([notice.id for notice in notices]))
        connection.execute(taken.values(next_try_at=until, attempts=c.attempts + 1))
    return notices


def is_any_due(connection: sa.Connection, now: datetime) -> bool:
    """Whether a delivery is due."""
    c = t.notices.c
    query = sa.select(c.id).where(c.state == "open", c.next_try_at <= now).limit(1)
    return connection.execute(query).first() is not None


def close(
    connection: sa.Connection, notice_id: str, state: State, now: datetime, error: str | None = None
) -> None:
    """Sent, or given up; nothing happens where it was withdrawn meanwhile."""
    c = t.notices.c
    connection.execute(
        t.notices.update()
        .where(c.id == notice_id, c.state == "open")
        .values(state=state, next_try_at=None, closed_at=now, error=error)
    )


def plan(connection: sa.Connection, notice_id: str, next_try_at: datetime, error: str) -> None:
    """Try again then."""
    c = t.notices.c
    connection.execute(
        t.notices.update()
        .where(c.id == notice_id, c.state == "open")
        .values(next_try_at=next_try_at, error=error)
    )


def mark_read(connection: sa.Connection, notice_id: str, account_id: str, iam_id: str, now: datetime) -> bool:
    """The owner has seen a notice on the page; False where there is no such notice of theirs."""
    c = t.notices.c
    mine = sa.and_(c.id == notice_id, c.account_id == account_id, c.iam_id == iam_id, c.channel == "page")
    done = connection.execute(
        t.notices.update().where(mine, c.state == "open").values(state="read", closed_at=now)
    )
    return done.rowcount == 1 or connection.execute(sa.select(c.id).where(mine)).first() is not None


def of_owner(
    connection: sa.Connection, account_id: str, iam_id: str, *, unread: bool, limit: int
) -> list[Notice]:
    """An owner's notices on the page, newest first; `unread` leaves out the others."""
    c = t.notices.c
    query = sa.select(t.notices).where(c.account_id == account_id, c.iam_id == iam_id, c.channel == "page")
    if unread:
        query = query.where(c.state == "open")
    return _notices(connection, query.order_by(c.created_at.desc(), c.id.desc()).limit(limit))


def mail_address(connection: sa.Connection, iam_id: str) -> str:
    """Where mail for the person goes, as their last sign-in told; empty where it told nothing."""
    c = t.owners.c
    return connection.execute(sa.select(c.email).where(c.iam_id == iam_id)).scalar() or ""


def forget_closed(connection: sa.Connection, before: datetime, limit: int) -> int:
    """Delete notices closed before `before`, at most `limit`; answers how many."""
    c = t.notices.c
    old = sa.select(c.id).where(c.closed_at < before).order_by(c.closed_at).limit(limit)
    return connection.execute(t.notices.delete().where(c.id.in_(old))).rowcount


def _notices(connection: sa.Connection, query: sa.Select[Any]) -> list[Notice]:
    return [Notice(**row) for row in connection.execute(query).mappings()]
