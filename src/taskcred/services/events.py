"""Telling services: an event is committed with what it tells of; polled, and delivered by webhook.

Types and what is in `data`, besides `run_id` and `reference` for those of runs:

run.queued            why: "prompt_answered" | "again"
run.waiting           prompt_id
run.ended             state, reason_text
run.cancel_requested
attempt.ended         attempt_id, outcome, reason_text; only where it was taken away
grant.given           grant_id, account_id, iam_id, tasks, expires_at
grant.ended           grant_id, account_id, iam_id, reason
"""

from __future__ import annotations

from typing import Any, Final

import sqlalchemy as sa

from taskcred.domain.permissions import Permission, Principal
from taskcred.services.authorize import authorize
from taskcred.services.context import Context
from taskcred.services.cursors import verify_limit
from taskcred.store import events as store
from taskcred.store.events import EventType, StoredEvent

SERVICE_PREFIX: Final = "service:"  # of a service's iam_id, before its id


def add(
    ctx: Context,
    connection: sa.Connection,
    service_id: str | None,
    event_type: EventType,
    data: dict[str, Any],
) -> None:
    """Tell a service, in the caller's transaction; nothing where there is none to tell (None).

    `data` holds ids and words that the service may know, never a secret.
    """
    if service_id is not None:
        store.insert(connection, service_id, event_type, data, ctx.clock.now())


def of_run(
    ctx: Context, connection: sa.Connection, run: sa.Row[Any], event_type: EventType, **data: Any
) -> None:
    """Tell the service that started `run` (a row of runs); nothing where no service did."""
    add(ctx, connection, run.service_id, event_type, {"run_id": run.id, "reference": run.reference, **data})


def poll(ctx: Context, principal: Principal, *, after: int = 0, limit: int = 50) -> list[StoredEvent]:
    """The calling service's own events with ids above `after`, oldest first; kept for 30 days, delivered
    by webhook or not."""
    authorize(ctx, principal, Permission.EVENT_READ, "event")
    size = verify_limit(limit)
    with ctx.store.read() as connection:
        return store.after(connection, service_of(principal), after, size)


def message_id(event: StoredEvent) -> str:
    """What makes a repeated delivery recognisable. With the time, since after the restore of a backup the
    same number is given out again."""
    return f"evt_{event.id}_{int(event.created_at.timestamp() * 1000)}"


def service_of(principal: Principal) -> str:
    """The id of the service that calls."""
    return principal.iam_id.removeprefix(SERVICE_PREFIX)
