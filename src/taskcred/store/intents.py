"""Queries about intents: recorded changes that span the records, the vault and the identity provider."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Literal

import sqlalchemy as sa

from taskcred.domain.credentials import CredentialState, KeyState
from taskcred.store import tables as t

Kind = Literal["create", "rotate", "delete", "end_key"]
State = Literal["open", "done", "given_up", "rolled_back"]

_c: Final = t.intents.c


@dataclass(frozen=True, slots=True)
class Intent:
    """`data` holds references only. `credential_id` is None once a credential that never came to be is gone."""

    id: str
    kind: Kind
    credential_id: str | None
    account_id: str
    iam_id: str
    stage: str
    state: State
    data: dict[str, Any]
    attempts: int
    error: str | None
    created_at: datetime


def _intent(row: Any) -> Intent:
    return Intent(
        row.id,
        row.kind,
        row.credential_id,
        row.account_id,
        row.iam_id,
        row.stage,
        row.state,
        row.data,
        row.attempts,
        row.error,
        row.created_at,
    )


def insert(
    connection: sa.Connection,
    *,
    intent_id: str,
    kind: Kind,
    credential_id: str,
    account_id: str,
    iam_id: str,
    stage: str,
    data: dict[str, Any],
    now: datetime,
    holder: str | None = None,
    lease_until: datetime | None = None,
) -> Intent:
    """An open intent; with `holder` it is leased from the start, without it is due at once."""
    connection.execute(
        t.intents.insert().values(
            id=intent_id,
            kind=kind,
            credential_id=credential_id,
            account_id=account_id,
            iam_id=iam_id,
            stage=stage,
            state="open",
            data=data,
            next_try_at=now,
            lease_holder=holder,
            lease_until=lease_until,
            created_at=now,
            updated_at=now,
        )
    )
    return Intent(intent_id, kind, credential_id, account_id, iam_id, stage, "open", data, 0, None, now)


def find(connection: sa.Connection, intent_id: str) -> Intent | None:
    """The intent with this id."""
    row = connection.execute(sa.select(t.intents).where(_c.id == intent_id)).one_or_none()
    return None if row is None else _intent(row)


def open_of(connection: sa.Connection, credential_id: str) -> list[Intent]:
    """The credential's open intents, oldest first."""
    rows = connection.execute(
        sa.select(t.intents)
        .where(_c.credential_id == credential_id, _c.state == "open")
        .order_by(_c.created_at, _c.id)
    )
    return [_intent(row) for row in rows]


def unfinished(connection: sa.Connection) -> list[Intent]:
    """Everybody's intents that are open or were given up, oldest first."""
    rows = connection.execute(
        sa.select(t.intents).where(_c.state.in_(["open", "given_up"])).order_by(_c.created_at, _c.id)
    )
    return [_intent(row) for row in rows]


def reopen(connection: sa.Connection, intent_id: str, now: datetime) -> bool:
    """Have a given-up intent tried again from now on; False where it is not given up."""
    changed = connection.execute(
        t.intents.update()
        .where(_c.id == intent_id, _c.state == "given_up")
        .values(
            state="open",
            attempts=0,
            error=None,
            next_try_at=now,
            lease_holder=None,
            lease_until=None,
            updated_at=now,
        )
    )
    return bool(changed.rowcount)


def due(connection: sa.Connection, now: datetime, limit: int) -> list[str]:
    """Ids of open intents whose time has come and that nobody holds, oldest first."""
    # Written out in the statement: a partial index is not chosen for a bound value.
    is_open = _c.state == sa.literal("open", literal_execute=True)
    rows = connection.execute(
        sa.select(_c.id)
        .where(is_open, _c.next_try_at <= now, _is_free(now))
        .order_by(_c.next_try_at)
        .limit(limit)
    )
    return list(rows.scalars())


def _is_free(now: datetime) -> sa.ColumnElement[bool]:
    return sa.or_(_c.lease_until.is_(None), _c.lease_until <= now)


def claim(
    connection: sa.Connection, intent_id: str, holder: str, now: datetime, until: datetime
) -> Intent | None:
    """Take the lease of an open intent; None where somebody else holds it or it is closed."""
    taken = connection.execute(
        t.intents.update()
        .where(_c.id == intent_id, _c.state == "open", sa.or_(_is_free(now), _c.lease_holder == holder))
        .values(lease_holder=holder, lease_until=until)
    )
    return find(connection, intent_id) if taken.rowcount else None


def change(connection: sa.Connection, intent_id: str, holder: str, now: datetime, **values: Any) -> bool:
    """Set columns of an open intent `holder` has the lease of; False where it has lost it."""
    changed = connection.execute(
        t.intents.update()
        .where(_c.id == intent_id, _c.state == "open", _c.lease_holder == holder)
        .values(updated_at=now, **values)
    )
    return bool(changed.rowcount)


def forget_ended(connection: sa.Connection, before: datetime, limit: int) -> int:
    """Delete intents that came to their end before `before`, at most `limit`; answers how many.

    A given-up one stays until it is tried again, or until nothing is left that it could do: the end of keys
    whose credential has ended and whose material is all destroyed.
    """
    # Written out in the statement: a partial index is not chosen for a bound value.
    has_closed = _c.state != sa.literal("open", literal_execute=True)
    old = sa.select(_c.id).where(
        has_closed,
        _c.updated_at < before,
        sa.or_(_c.state.in_(("done", "rolled_back")), _is_moot()),
    )
    ids = list(connection.execute(old.order_by(_c.updated_at).limit(limit)).scalars())
    if ids:
        connection.execute(t.intents.delete().where(_c.id.in_(ids)))
    return len(ids)


def _is_moot() -> sa.ColumnElement[bool]:
    # Not for a making that could not be undone: its key is known to the intent only.
    keys, credentials = t.keys.c, t.task_credentials.c
    ended = sa.exists().where(credentials.id == _c.credential_id, credentials.state == CredentialState.ENDED)
    alive = sa.exists().where(keys.credential_id == _c.credential_id, keys.state != KeyState.DESTROYED)
    return sa.and_(_c.kind.in_(("end_key", "delete")), ended, ~alive)
