"""Queries on answers kept by Idempotency-Key."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from taskcred.store import tables as t


@dataclass(frozen=True, slots=True)
class Request:
    """What names a request: whose, to which route, under which key."""

    account_id: str
    iam_id: str
    route: str
    key: str


@dataclass(frozen=True, slots=True)
class Kept:
    """What is known of a request: the digest of its body, and its answer unless it is still under way."""

    request_digest: bytes
    status: int | None
    body: dict[str, Any] | None
    created_at: datetime


def _is(request: Request) -> sa.ColumnElement[bool]:
    c = t.idempotency.c
    return sa.and_(
        c.account_id == request.account_id,
        c.iam_id == request.iam_id,
        c.route == request.route,
        c.key == request.key,
    )


def find(connection: sa.Connection, request: Request) -> Kept | None:
    """What is kept under this key."""
    c = t.idempotency.c
    row = connection.execute(
        sa.select(c.request_digest, c.status, c.body, c.created_at).where(_is(request))
    ).one_or_none()
    return None if row is None else Kept(row.request_digest, row.status, row.body, row.created_at)


def add(connection: sa.Connection, request: Request, digest: bytes, now: datetime) -> None:
    """The request is under way."""
    connection.execute(
        t.idempotency.insert().values(
            account_id=request.account_id,
            iam_id=request.iam_id,
            route=request.route,
            key=request.key,
            request_digest=digest,
            created_at=now,
        )
    )


def answer(connection: sa.Connection, request: Request, status: int, body: dict[str, Any]) -> None:
    """The request was answered so."""
    connection.execute(t.idempotency.update().where(_is(request)).values(status=status, body=body))


def delete(connection: sa.Connection, request: Request) -> None:
    """Forget the request: it was refused and changed nothing."""
    connection.execute(t.idempotency.delete().where(_is(request)))


def delete_older(connection: sa.Connection, before: datetime) -> int:
    """Forget what was asked before this instant; how many there were."""
    return connection.execute(t.idempotency.delete().where(t.idempotency.c.created_at < before)).rowcount
