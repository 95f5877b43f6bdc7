"""Queries on page sessions and on what a sign-in told us about a person."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Final

import sqlalchemy as sa

from taskcred.store import tables as t

_LEASE: Final = "session:"


@dataclass(frozen=True, slots=True)
class SessionRow:
    """A page session as it is stored; the tokens are ciphertext."""

    digest: bytes
    account_id: str
    iam_id: str
    name: str
    email: str
    auth_time: datetime
    created_at: datetime
    last_seen_at: datetime
    token_expires_at: datetime
    sealed_token: bytes
    sealed_refresh_token: bytes | None
    acting_iam_id: str = ""  # the person, where iam_id is a service id they act for


def add(connection: sa.Connection, row: SessionRow) -> None:
    """Store a new session."""
    connection.execute(
        t.sessions.insert().values({name: getattr(row, name) for name in SessionRow.__slots__})
    )


def find(connection: sa.Connection, digest: bytes) -> SessionRow | None:
    """The session whose id has this digest; idle and over-long ones included."""
    found = connection.execute(sa.select(t.sessions).where(t.sessions.c.digest == digest))
    row = found.mappings().one_or_none()
    return None if row is None else SessionRow(**row)


def touch(connection: sa.Connection, digest: bytes, now: datetime) -> None:
    """The browser was here."""
    connection.execute(t.sessions.update().where(t.sessions.c.digest == digest).values(last_seen_at=now))


def replace_tokens(
    connection: sa.Connection,
    digest: bytes,
    sealed_token: bytes,
    sealed_refresh_token: bytes | None,
    token_expires_at: datetime,
) -> None:
    """Keep the tokens a refresh gave; nothing happens where the session has ended meanwhile."""
    connection.execute(
        t.sessions.update()
        .where(t.sessions.c.digest == digest)
        .values(
            sealed_token=sealed_token,
            sealed_refresh_token=sealed_refresh_token,
            token_expires_at=token_expires_at,
        )
    )


def delete(connection: sa.Connection, digest: bytes) -> bool:
    """End a session; whether there was one."""
    return connection.execute(t.sessions.delete().where(t.sessions.c.digest == digest)).rowcount == 1


def delete_expired(connection: sa.Connection, seen_before: datetime, created_before: datetime) -> int:
    """Forget the sessions last seen, or created, before these instants; how many there were."""
    c = t.sessions.c
    return connection.execute(
        t.sessions.delete().where(sa.or_(c.last_seen_at < seen_before, c.created_at < created_before))
    ).rowcount


def refresh_lease(digest: bytes) -> str:
    """The name of the lease under which this session's tokens are replaced."""
    return f"{_LEASE}{digest.hex()[:48]}"


def forget_leases(connection: sa.Connection, now: datetime) -> None:
    """Forget leases that a process left which died while it replaced a session's tokens."""
    c = t.leases.c
    connection.execute(t.leases.delete().where(c.name.startswith(_LEASE), c.until < now))


def remember_owner(connection: sa.Connection, iam_id: str, email: str, name: str, now: datetime) -> None:
    """Keep what the newest sign-in told us about a person."""
    c = t.owners.c
    values = {"email": email, "name": name, "seen_at": now}
    if connection.execute(t.owners.update().where(c.iam_id == iam_id).values(values)).rowcount == 0:
        connection.execute(t.owners.insert().values(iam_id=iam_id, **values))
