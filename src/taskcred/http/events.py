"""/v1/events: what happened to a service's runs and grants, for one that polls."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from flask import Response
from pydantic import BaseModel, ConfigDict, Field

from taskcred.domain.permissions import Permission
from taskcred.http.answers import send
from taskcred.http.authentication import caller, context
from taskcred.http.operations import nouns, operation
from taskcred.http.shapes import IfNoneMatchHeader
from taskcred.services import events
from taskcred.store.events import EventType

api = nouns("events", "What happened to a service's runs and grants.")


class Event(BaseModel):
    """An event; `type`, `timestamp` and `data` are what the webhook carries, under `webhook_id`."""

    id: int = Field(ge=1)
    webhook_id: str
    type: EventType
    timestamp: datetime
    data: dict[str, Any]


class EventPage(BaseModel):
    """Events, oldest first."""

    items: list[Event]
    next: int = Field(ge=0, description="Send as `after`, at once or later: nothing is missed or repeated.")


class EventQuery(BaseModel):
    """From where on."""

    model_config = ConfigDict(extra="forbid")

    after: int = Field(0, ge=0, le=2**63 - 1, description="The `next` of the answer before.")
    limit: int = Field(50, ge=1, le=200, description="Items on a page.")


@operation(api, "get", "/v1/events", Permission.EVENT_READ, answers={200: EventPage, 304: None})
def list_events(query: EventQuery, header: IfNoneMatchHeader) -> Response:
    """The calling service's events of the last 30 days, also those its webhook was told."""
    found = events.poll(context(), caller(), after=query.after, limit=query.limit)
    page = EventPage(
        items=[
            Event(
                id=each.id,
                webhook_id=events.message_id(each),
                type=each.type,
                timestamp=each.created_at,
                data=each.data,
            )
            for each in found
        ],
        next=found[-1].id if found else query.after,
    )
    return send(page, revision=0, header=header)
