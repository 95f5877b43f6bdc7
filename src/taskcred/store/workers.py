"""Queries on worker credentials."""

from __future__ import annotations

import hmac
import uuid
from datetime import datetime

import sqlalchemy as sa

from taskcred.domain.secret import Secret
from taskcred.store import tables as t


def add(connection: sa.Connection, name: str, secret: Secret, now: datetime) -> str:
    """A new worker's id; its credential is `id:secret`, of which the digest is kept."""
    worker_id = str(uuid.uuid4())
    connection.execute(
        t.workers.insert().values(id=worker_id, name=name, secret_digest=secret.digest(), created_at=now)
    )
    return worker_id


def find_name(connection: sa.Connection, worker_id: str, secret: Secret) -> str | None:
    """The name of the worker whose credential this is; None where it is wrong or was ended."""
    c = t.workers.c
    row = connection.execute(
        sa.select(c.name, c.secret_digest).where(c.id == worker_id, c.ended_at.is_(None))
    ).one_or_none()
    if row is None or not hmac.compare_digest(row.secret_digest, secret.digest()):
        return None
    return str(row.name)


def end(connection: sa.Connection, name: str, now: datetime) -> str | None:
    """End the credential of the worker `name` and free the name: its id, None where there is none.

    The caller appends the change that tells other processes.
    """
    c = t.workers.c
    row = connection.execute(sa.select(c.id).where(c.name == name)).one_or_none()
    if row is None:
        return None
    ended = f"{name[:20]} ended {row.id}"
    connection.execute(t.workers.update().where(c.id == row.id).values(name=ended, ended_at=now))
    return str(row.id)
