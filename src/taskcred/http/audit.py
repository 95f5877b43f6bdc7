"""/v1/audit: what was done, used and refused; the caller's own."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from flask import Response
from pydantic import BaseModel, ConfigDict, Field

from taskcred.domain.permissions import Permission
from taskcred.http.answers import send
from taskcred.http.authentication import caller, context
from taskcred.http.operations import nouns, operation
from taskcred.http.shapes import ABSENT, left_out
from taskcred.store import audit

api = nouns("audit", "Audit events of one's own.")


class Event(BaseModel):
    """One audit event."""

    id: int = Field(ge=1)
    at: datetime
    action: str
    outcome: Literal["success", "refused", "given_up"]
    actor: str
    actor_kind: str
    target_type: str
    target_id: str
    run_id: str | None
    details: dict[str, Any]
    request_id: str
    address: str


class EventPage(BaseModel):
    """Events, newest first."""

    items: list[Event]
    next: str | None = Field(description="Send as `after` for the next page; null at the end.")


class AuditQuery(BaseModel):
    """Which events."""

    model_config = ConfigDict(extra="forbid")

    after: int = Field(
        default=ABSENT,
        ge=1,
        le=2**63 - 1,
        description="The `next` of the page before.",
        json_schema_extra=left_out,
    )
    limit: int = Field(50, ge=1, le=200, description="Items on a page.")


@operation(api, "get", "/v1/audit", Permission.AUDIT_READ_OWN, answers={200: EventPage})
def list_events(query: AuditQuery) -> Response:
    """What concerns the caller in this account, newest first."""
    who = caller()
    with context().store.read() as connection:
        found = audit.of_owner(
            connection, who.account_id, who.iam_id, before=query.after, limit=query.limit + 1
        )
    page = found[: query.limit]
    following = str(page[-1].id) if len(found) > query.limit else None
    return send(EventPage(items=[_out(stored) for stored in page], next=following))


def _out(stored: audit.StoredEvent) -> Event:
    event = stored.event
    return Event(
        id=stored.id,
        at=stored.at,
        action=event.action,
        outcome=event.outcome,
        actor=event.actor.id,
        actor_kind=event.actor.kind,
        target_type=event.target_type,
        target_id=event.target_id,
        run_id=event.run_id,
        details=event.details,
        request_id=event.actor.request_id,
        address=event.actor.address,
    )
