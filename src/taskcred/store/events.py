"""What services are told: appended in the transaction of what it tells of, delivered by the keeper, polled.

Whoever appends is the only writer meanwhile, so the order of ids is the order of commits, and a poller that
goes on after the last id it saw misses nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Literal

import sqlalchemy as sa

from taskcred.store.changes import be_alone
from taskcred.store.service_tables import service_events, services

EventType = Literal[
    "run.queued",
    "run.waiting",
    "run.ended",
    "run.cancel_requested",
    "attempt.ended",
    "grant.given",
    "grant.ended",
]
State = Literal["open", "sent", "given_up", "no_webhook"]
_OPEN: Final = sa.literal("open", literal_execute=True)  # for the partial index
_ERROR: Final = 512
_GAP: Final = 10_000_000  # more events than were told since any backup


@dataclass(frozen=True, slots=True)
class StoredEvent:
    """An event as it was committed. `error` says what the last try of its delivery met."""

    id: int
    service_id: str
    type: EventType
    data: dict[str, Any]
    created_at: datetime
    state: State
    attempts: int
    error: str | None


def insert(
    connection: sa.Connection, service_id: str, event_type: EventType, data: dict[str, Any], now: datetime
) -> None:
    """An event; due at once where the service has a webhook."""
    be_alone(connection)
    s = services.c
    url = connection.execute(sa.select(s.webhook_url).where(s.id == service_id)).scalar_one()
    connection.execute(
        service_events.insert().values(
            service_id=service_id,
            type=event_type,
            data=data,
            created_at=now,
            state="open" if url else "no_webhook",
            next_try_at=now if url else None,
            closed_at=None if url else now,
        )
    )


def after(connection: sa.Connection, service_id: str, last: int, limit: int) -> list[StoredEvent]:
    """A service's events with ids above `last`, oldest first."""
    c = service_events.c
    query = sa.select(service_events).where(c.service_id == service_id, c.id > last)
    return [_event(row) for row in connection.execute(query.order_by(c.id).limit(limit))]


def in_trouble(connection: sa.Connection, service_id: str, limit: int) -> list[StoredEvent]:
    """A service's events whose delivery failed: given up, or still tried again; newest first."""
    c = service_events.c
    failed = sa.or_(c.state == "given_up", sa.and_(c.state == "open", c.attempts > 0))
    query = sa.select(service_events).where(c.service_id == service_id, failed)
    return [_event(row) for row in connection.execute(query.order_by(c.id.desc()).limit(limit))]


def due_services(connection: sa.Connection, now: datetime) -> list[str]:
    """Active services with an event to deliver, the one that waits longest first."""
    c = service_events.c
    query = (
        sa.select(c.service_id)
        .join(services, services.c.id == c.service_id)
        .where(c.state == _OPEN, c.next_try_at <= now, services.c.state == "active")
        .group_by(c.service_id)
        .order_by(sa.func.min(c.next_try_at))
    )
    return list(connection.execute(query).scalars())


def next_due(connection: sa.Connection, service_id: str, now: datetime) -> StoredEvent | None:
    """The oldest event of the service that is due."""
    c = service_events.c
    query = sa.select(service_events).where(
        c.service_id == service_id, c.state == _OPEN, c.next_try_at <= now
    )
    # Not by the bare id: SQLite would take the index of all events of the service, and walk over those sent.
    row = connection.execute(query.order_by(c.id + 0).limit(1)).first()
    return None if row is None else _event(row)


def webhook_url(connection: sa.Connection, service_id: str) -> str | None:
    """Where an active service wants to be told: empty, nowhere; None where it is not active."""
    s = services.c
    query = sa.select(s.webhook_url).where(s.id == service_id, s.state == "active")
    return connection.execute(query).scalar()


def close(
    connection: sa.Connection, event_id: int, state: State, now: datetime, error: str | None = None
) -> None:
    """Sent, or given up, after one try more."""
    c = service_events.c
    connection.execute(
        service_events.update()
        .where(c.id == event_id, c.state == "open")
        .values(
            state=state,
            attempts=c.attempts + 1,
            next_try_at=None,
            closed_at=now,
            error=None if error is None else error[:_ERROR],
        )
    )


def plan(connection: sa.Connection, event_id: int, next_try_at: datetime, error: str) -> None:
    """Try again then."""
    c = service_events.c
    connection.execute(
        service_events.update()
        .where(c.id == event_id, c.state == "open")
        .values(attempts=c.attempts + 1, next_try_at=next_try_at, error=error[:_ERROR])
    )


def close_all(
    connection: sa.Connection,
    service_id: str,
    state: State,
    now: datetime,
    error: str | None = None,
    *,
    created_before: datetime | None = None,
) -> int:
    """Close every open event of a service, or those created before then; answers how many."""
    c = service_events.c
    # An open event has a next try; that it is said lets SQLite see that the index of open ones is the better.
    query = service_events.update().where(
        c.service_id == service_id, c.state == _OPEN, c.next_try_at.is_not(None)
    )
    if created_before is not None:
        query = query.where(c.created_at < created_before)
    shortened = None if error is None else error[:_ERROR]
    return connection.execute(
        query.values(state=state, next_try_at=None, closed_at=now, error=shortened)
    ).rowcount


def close_of_ended_services(connection: sa.Connection, now: datetime) -> int:
    """Nothing more is sent to services that have ended; answers how many events that closed."""
    c = service_events.c
    ended = sa.select(services.c.id).where(services.c.state == "ended")
    query = service_events.update().where(
        c.state == _OPEN, c.service_id.in_(ended), c.next_try_at.is_not(None)
    )
    return connection.execute(query.values(state="no_webhook", next_try_at=None, closed_at=now)).rowcount


def leave_gap(connection: sa.Connection) -> None:
    """After the restore of a backup: what was told since had ids that must not be told again, since services
    go on polling after the last id they saw. Of SQLite, as backups are."""
    named = {"name": service_events.name, "gap": _GAP}
    connection.execute(
        sa.text(
            "INSERT INTO sqlite_sequence (name, seq) SELECT :name, 0"
            " WHERE NOT EXISTS (SELECT 1 FROM sqlite_sequence WHERE name = :name)"
        ),
        {"name": service_events.name},
    )
    connection.execute(sa.text("UPDATE sqlite_sequence SET seq = seq + :gap WHERE name = :name"), named)


def forget(connection: sa.Connection, before: datetime, limit: int) -> int:
    """Delete events created before `before`, at most `limit`; answers how many."""
    c = service_events.c
    # Ids and times grow together: whether there is something to forget shows at the first.
    first = sa.select(c.id, c.created_at).order_by(c.id).limit(limit).subquery()
    old = sa.select(first.c.id).where(first.c.created_at < before)
    return connection.execute(service_events.delete().where(c.id.in_(old))).rowcount


def _event(row: sa.Row[Any]) -> StoredEvent:
    return StoredEvent(
        row.id, row.service_id, row.type, row.data, row.created_at, row.state, row.attempts, row.error
    )
