"""/v1/schedules: standing orders to run a task at times."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

from flask import Response
from pydantic import BaseModel, BeforeValidator, Field

from taskcred.domain.permissions import Permission
from taskcred.domain.runs import Misfire, ScheduleView
from taskcred.http.answers import if_match, nothing, once, send
from taskcred.http.authentication import caller, context
from taskcred.http.operations import nouns, operation
from taskcred.http.shapes import (
    ABSENT,
    Asked,
    IdempotencyHeader,
    IfMatchHeader,
    IfNoneMatchHeader,
    Name,
    PageQuery,
    TaskName,
    Told,
    left_out,
)
from taskcred.services import schedules
from taskcred.services.idempotency import Answer

api = nouns("schedules", "Schedules of tasks.")

Cron = Annotated[
    str,
    Field(
        min_length=9,
        max_length=128,
        pattern=r"^[0-9A-Za-z*,/#? -]+$",
        description="Five fields: minute, hour, day of month, month, day of week.",
        examples=["30 2 * * *"],
    ),
]
Zone = Annotated[
    str,
    Field(
        min_length=1,
        max_length=64,
        pattern=r"^[A-Za-z0-9_+/-]+$",
        description="IANA name, such as Europe/Berlin.",
    ),
]


def _word(value: object) -> object:
    # Strict models take an enumeration's members only; on the wire it is their word.
    return Misfire(value) if isinstance(value, str) and value in list(Misfire) else value


MisfireWord = Annotated[Misfire, BeforeValidator(_word)]


class Schedule(Told):
    """A schedule."""

    id: UUID
    name: str
    task: str
    parameters: dict[str, Any]
    cron: str
    timezone: str
    misfire: Misfire
    paused: bool
    account_id: str
    iam_id: str
    next_at: datetime | None
    next_times: list[datetime] = Field(
        description="The next five times; none while paused, or if the server no longer knows the time zone.",
        max_length=5,
    )
    last_run_id: UUID | None
    last_at: datetime | None
    created_at: datetime
    revision: int = Field(ge=1)


class SchedulePage(BaseModel):
    """Schedules, newest first."""

    items: list[Schedule]
    next: str | None = Field(description="Send as `after` for the next page; null at the end.")


class CreateScheduleBody(Asked):
    """What to run, and when."""

    name: Name
    task: TaskName
    parameters: dict[str, Any] = Field(default_factory=dict, description="As the task's schema asks.")
    cron: Cron
    timezone: Zone = "UTC"
    misfire: MisfireWord = Field(
        Misfire.RUN_ONCE, description="About times that passed unserved: run once, or skip them."
    )


class UpdateScheduleBody(Asked):
    """What may be changed."""

    name: Name = Field(default=ABSENT, json_schema_extra=left_out)
    parameters: dict[str, Any] = Field(default=ABSENT, json_schema_extra=left_out)
    cron: Cron = Field(default=ABSENT, json_schema_extra=left_out)
    timezone: Zone = Field(default=ABSENT, json_schema_extra=left_out)
    misfire: MisfireWord = Field(default=ABSENT, json_schema_extra=left_out)


class SchedulePath(BaseModel):
    """/…/{schedule_id}"""

    schedule_id: UUID


@operation(
    api, "post", "/v1/schedules", Permission.SCHEDULE_WRITE, answers={201: Schedule}, errors=(409, 422)
)
def create_schedule(header: IdempotencyHeader, body: CreateScheduleBody) -> Response:
    """Plan runs of a task."""

    def work() -> Answer:
        view = schedules.create(
            context(),
            caller(),
            name=body.name,
            task=body.task,
            parameters=body.parameters,
            cron=body.cron,
            timezone=body.timezone,
            misfire=body.misfire,
        )
        return Answer(201, Schedule.model_validate(view).model_dump(mode="json"))

    return once(header, work)


@operation(api, "get", "/v1/schedules", Permission.SCHEDULE_READ, answers={200: SchedulePage})
def list_schedules(query: PageQuery) -> Response:
    """The caller's schedules, newest first."""
    page, following = schedules.list_own(context(), caller(), after=query.after, limit=query.limit)
    return send(SchedulePage(items=[Schedule.model_validate(view) for view in page], next=following))


@operation(
    api,
    "get",
    "/v1/schedules/<uuid:schedule_id>",
    Permission.SCHEDULE_READ,
    answers={200: Schedule, 304: None},
)
def get_schedule(path: SchedulePath, header: IfNoneMatchHeader) -> Response:
    """One schedule."""
    return _one(schedules.get(context(), caller(), str(path.schedule_id)), header)


@operation(
    api,
    "patch",
    "/v1/schedules/<uuid:schedule_id>",
    Permission.SCHEDULE_WRITE,
    answers={200: Schedule},
    errors=(412,),
)
def update_schedule(path: SchedulePath, header: IfMatchHeader, body: UpdateScheduleBody) -> Response:
    """Change what is given."""
    view = schedules.update(
        context(),
        caller(),
        str(path.schedule_id),
        if_match=if_match(header),
        name=body.name,
        parameters=body.parameters,
        cron=body.cron,
        timezone=body.timezone,
        misfire=body.misfire,
    )
    return _one(view)


@operation(
    api,
    "post",
    "/v1/schedules/<uuid:schedule_id>/pause",
    Permission.SCHEDULE_WRITE,
    answers={200: Schedule},
    errors=(412,),
)
def pause_schedule(path: SchedulePath, header: IfMatchHeader) -> Response:
    """Make no more runs until it is resumed."""
    return _one(schedules.pause(context(), caller(), str(path.schedule_id), if_match=if_match(header)))


@operation(
    api,
    "post",
    "/v1/schedules/<uuid:schedule_id>/resume",
    Permission.SCHEDULE_WRITE,
    answers={200: Schedule},
    errors=(412,),
)
def resume_schedule(path: SchedulePath, header: IfMatchHeader) -> Response:
    """Go on from its next time."""
    return _one(schedules.resume(context(), caller(), str(path.schedule_id), if_match=if_match(header)))


@operation(
    api,
    "delete",
    "/v1/schedules/<uuid:schedule_id>",
    Permission.SCHEDULE_WRITE,
    answers={204: None},
    errors=(412,),
)
def delete_schedule(path: SchedulePath, header: IfMatchHeader) -> Response:
    """Remove it; the runs it made stay."""
    schedules.delete(context(), caller(), str(path.schedule_id), if_match=if_match(header))
    return nothing()


def _one(view: ScheduleView, header: IfNoneMatchHeader | None = None) -> Response:
    return send(Schedule.model_validate(view), revision=view.revision, header=header)
