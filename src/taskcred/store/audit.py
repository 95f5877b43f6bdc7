"""Audit events: appended in the transaction of what they record, or that does not happen."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

import sqlalchemy as sa

from taskcred.store import tables as t

Outcome = Literal["success", "refused", "given_up"]
ActorKind = Literal["person", "program", "run", "worker", "service", "keeper", "operator", "anonymous"]


@dataclass(frozen=True, slots=True)
class Actor:
    """Who did it: an iam_id, "worker:<name>", "keeper", "operator"."""

    id: str
    kind: ActorKind
    request_id: str = ""
    address: str = ""


KEEPER = Actor("keeper", "keeper")
OPERATOR = Actor("operator", "operator")


@dataclass(frozen=True, slots=True)
class Event:
    """One audit event. `details` holds ids and words; sensitive values only as keyed digests."""

    action: str
    outcome: Outcome
    actor: Actor
    account_id: str
    iam_id: str
    target_type: str
    target_id: str
    run_id: str | None = None
    details: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class StoredEvent:
    """An event as it was committed."""

    id: int
    at: datetime
    event: Event


def append(connection: sa.Connection, event: Event, now: datetime) -> None:
    """Record `event`; it commits with the transaction that calls this."""
    connection.execute(
        t.audit_events.insert().values(
            at=now,
            action=event.action,
            outcome=event.outcome,
            actor=event.actor.id,
            actor_kind=event.actor.kind,
            account_id=event.account_id,
            iam_id=event.iam_id,
            target_type=event.target_type,
            target_id=event.target_id,
            run_id=event.run_id,
            details=event.details,
            request_id=event.actor.request_id,
            address=event.actor.address,
        )
    )


def count_alike(connection: sa.Connection, event: Event, since: datetime, among: int) -> int:
    """How many of its owner's latest `among` events since then have its actor, action and outcome. Reads no more
    than those, however long the trail is."""
    c = t.audit_events.c
    owners = sa.select(t.audit_events).where(c.account_id == event.account_id, c.iam_id == event.iam_id)
    latest = owners.order_by(c.id.desc()).limit(among).subquery()
    alike = sa.select(sa.func.count()).where(
        latest.c.at > since,
        latest.c.actor == event.actor.id,
        latest.c.action == event.action,
        latest.c.outcome == event.outcome,
    )
    return int(connection.execute(alike).scalar_one())


def of_owner(
    connection: sa.Connection, account_id: str, iam_id: str, *, before: int | None = None, limit: int = 50
) -> list[StoredEvent]:
    """An owner's own events, newest first; `before` is the id a page ended with."""
    c = t.audit_events.c
    query = sa.select(t.audit_events).where(c.account_id == account_id, c.iam_id == iam_id)
    if before is not None:
        query = query.where(c.id < before)
    rows = connection.execute(query.order_by(c.id.desc()).limit(limit))
    return [
        StoredEvent(
            row.id,
            row.at,
            Event(
                row.action,
                row.outcome,
                Actor(row.actor, row.actor_kind, row.request_id, row.address),
                row.account_id,
                row.iam_id,
                row.target_type,
                row.target_id,
                row.run_id,
                row.details,
            ),
        )
        for row in rows
    ]
