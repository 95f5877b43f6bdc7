"""/v1/grants: an owner's standing consents, given, listed and ended; a service sees those it was given."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated
from uuid import UUID

from flask import Response
from pydantic import BaseModel, Field

from taskcred.domain.grants import DEFAULT_DAYS, LONGEST_DAYS, GrantEnd, GrantState
from taskcred.domain.permissions import Permission
from taskcred.http.answers import once, send
from taskcred.http.authentication import caller, context
from taskcred.http.operations import nouns, operation
from taskcred.http.shapes import Asked, IdempotencyHeader, IfNoneMatchHeader, PageQuery, TaskName, Told
from taskcred.services import grants
from taskcred.services.idempotency import Answer

api = nouns("grants", "An owner's standing consent that a service starts runs of named tasks until a date.")


class Grant(Told):
    """A grant, to its owner and to its service."""

    id: UUID
    state: GrantState
    account_id: str
    iam_id: str
    acting_iam_id: str = Field(description="Who consented for a service id; empty for a person's own.")
    service_id: UUID
    service_name: str
    service_title: str
    tasks: list[str]
    created_at: datetime
    expires_at: datetime
    last_used_at: datetime | None
    ended_at: datetime | None
    end_reason: GrantEnd | None
    revision: int = Field(ge=1)


class GrantPage(BaseModel):
    """Grants, newest first."""

    items: list[Grant]
    next: str | None = Field(description="Send as `after` for the next page; null at the end.")


class GrantBody(Asked):
    """What the service may start, and for how long."""

    # A client id comes as text; strict reading would want a UUID object.
    service_id: Annotated[UUID, Field(strict=False, description="The service's client id.")]
    tasks: list[TaskName] = Field(min_length=1, max_length=100)
    days: int = Field(DEFAULT_DAYS, ge=1, le=LONGEST_DAYS)


class GrantPath(BaseModel):
    """/…/{grant_id}"""

    grant_id: UUID


@operation(api, "post", "/v1/grants", Permission.GRANT_GIVE, answers={201: Grant}, errors=(404, 409))
def give_grant(header: IdempotencyHeader, body: GrantBody) -> Response:
    """Consent that a service starts runs of these tasks for the caller. Replaces the caller's active grant
    to the same service: what runs under that goes on where its task is still granted, else it is ended."""

    def work() -> Answer:
        given = grants.give(
            context(), caller(), service_id=str(body.service_id), tasks=body.tasks, days=body.days
        )
        return Answer(201, Grant.model_validate(given).model_dump(mode="json"))

    return once(header, work)


@operation(api, "get", "/v1/grants", Permission.GRANT_READ, answers={200: GrantPage})
def list_grants(query: PageQuery) -> Response:
    """The grants the caller gave; for a service, those it was given. Newest first."""
    page, following = grants.list_own(context(), caller(), after=query.after, limit=query.limit)
    return send(GrantPage(items=[Grant.model_validate(each) for each in page], next=following))


@operation(api, "get", "/v1/grants/<uuid:grant_id>", Permission.GRANT_READ, answers={200: Grant, 304: None})
def get_grant(path: GrantPath, header: IfNoneMatchHeader) -> Response:
    """One grant that the caller gave or, as a service, was given."""
    view = grants.get(context(), caller(), str(path.grant_id))
    return send(Grant.model_validate(view), revision=view.revision, header=header)


@operation(api, "post", "/v1/grants/<uuid:grant_id>/end", Permission.GRANT_END, answers={200: Grant})
def end_grant(path: GrantPath) -> Response:
    """Withdraw a grant. Keys of what runs under it are dead when this answers, what waited is cancelled."""
    view = grants.end(context(), caller(), str(path.grant_id))
    return send(Grant.model_validate(view), revision=view.revision)
