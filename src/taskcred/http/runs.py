"""/v1/runs: start, watch and cancel runs."""

from __future__ import annotations

import base64
import json
from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

from flask import Response, request
from pydantic import BaseModel, ConfigDict, Field, SecretStr, model_validator

from taskcred.domain.permissions import Authentication, Permission, Principal
from taskcred.domain.runs import Executor, RunState, RunView
from taskcred.errors import InvalidRequestError, InvalidTokenError
from taskcred.http.answers import once, send
from taskcred.http.authentication import caller, context, of_token
from taskcred.http.operations import nouns, operation
from taskcred.http.shapes import (
    ABSENT,
    Asked,
    IdempotencyHeader,
    IfNoneMatchHeader,
    PageQuery,
    Reference,
    TaskName,
    Told,
    left_out,
)
from taskcred.services import prompts, runs, starting
from taskcred.services.idempotency import Answer

api = nouns("runs", "Runs of tasks.")


class Run(Told):
    """One execution of a task."""

    id: UUID
    task: str
    parameters: dict[str, Any]
    state: RunState
    reason: str = Field(description="A sentence for its owner; empty where there is nothing to say.")
    account_id: str
    iam_id: str
    schedule_id: UUID | None
    scheduled_for: datetime | None
    started_by: str
    executor: Executor = Field(description="Who carries it out.")
    service_id: UUID | None = Field(description="The service that started it.")
    service_name: str | None = Field(description="That service, as owners read it.")
    grant_id: UUID | None = Field(description="The grant it was started under.")
    acting_iam_id: str = Field(description="Who acted for a service id; empty where the owner did.")
    reference: str = Field(description="What whoever started it calls it.")
    return_to: str = Field(description="Where its owner is led after the prompt; empty: they stay here.")
    prompt_id: UUID | None = Field(description="The open prompt, while it waits for a credential.")
    prompt_url: str | None = Field(
        None, description="The prompt's page, for its owner; the link carries no authority."
    )
    attempts_made: int = Field(ge=0)
    progress_done: int | None
    progress_total: int | None
    progress_text: str
    exit_code: int | None
    isolation: str | None = Field(description="How the latest attempt was isolated.")
    cancel_requested_at: datetime | None
    created_at: datetime
    queued_at: datetime | None
    started_at: datetime | None
    ended_at: datetime | None
    revision: int = Field(ge=1)


class RunPage(BaseModel):
    """Runs, newest first."""

    items: list[Run]
    next: str | None = Field(description="Send as `after` for the next page; null at the end.")


class Output(Told):
    """A part of what an attempt printed."""

    text: str
    next_after: int = Field(ge=0, description="Send as `after` for what follows.")
    truncated: bool = Field(description="It printed more than is kept.")
    finished: bool = Field(description="Nothing will follow.")


class StartBody(Asked):
    """What to run. A service also says for whom: by exactly one of `subject_token` and `grant_id`."""

    model_config = ConfigDict(json_schema_extra={"not": {"required": ["subject_token", "grant_id"]}})

    task: TaskName
    parameters: dict[str, Any] = Field(default_factory=dict, description="As the task's schema asks.")
    reference: Reference = Field(
        default=ABSENT,
        description="What the caller calls the run; told back, never looked at.",
        json_schema_extra=left_out,
    )
    subject_token: SecretStr = Field(
        default=ABSENT,
        min_length=1,
        max_length=16_384,
        description="For services: the owner's access token, from an interactive sign-in (RFC 8693). Verified, "
        "never kept.",
        json_schema_extra=left_out,
    )
    # An id comes as text; strict reading would want a UUID object.
    grant_id: Annotated[UUID, Field(strict=False)] = Field(
        default=ABSENT, description="For services: a grant of the owner's.", json_schema_extra=left_out
    )

    return_to: str = Field(
        default=ABSENT,
        min_length=1,
        max_length=2048,
        description="For services: where its owner is led after they answered the run's prompt, with `run_id` in the "
        "query. One of the service's callback URLs, character by character.",
        json_schema_extra=left_out,
    )

    @model_validator(mode="after")
    def _one_owner(self) -> StartBody:
        if self.subject_token is not None and self.grant_id is not None:
            raise ValueError("subject_token and grant_id exclude each other")
        return self


class RunPath(BaseModel):
    """/…/{run_id}"""

    run_id: UUID


class RunQuery(PageQuery):
    """Which runs."""

    state: RunState = Field(default=ABSENT, json_schema_extra=left_out)
    schedule_id: UUID = Field(default=ABSENT, json_schema_extra=left_out)


class OutputQuery(BaseModel):
    """Which part of the output."""

    model_config = ConfigDict(extra="forbid")

    after: int = Field(0, ge=0, le=2**31 - 1, description="The `next_after` of the part before.")
    attempt: int = Field(
        default=ABSENT,
        ge=1,
        le=2**31 - 1,
        description="Default: the latest attempt.",
        json_schema_extra=left_out,
    )


@operation(api, "post", "/v1/runs", Permission.RUN_START, answers={201: Run}, errors=(404, 409, 422, 429))
def start_run(header: IdempotencyHeader, body: StartBody) -> Response:
    """Start a task now. Without a usable credential the run is parked and its owner asked for one, at
    `prompt_url`. A service starts runs for owners who are there (`subject_token`) or gave it a grant."""
    start = _start_for_owner if caller().authentication is Authentication.SERVICE else _start_own

    def work() -> Answer:
        return Answer(201, told(start(body)).model_dump(mode="json"))

    asked = request.get_json()
    if body.subject_token is not None:
        asked["subject_token"] = _whose(body.subject_token.get_secret_value())
    return once(header, work, asked)


def told(view: RunView) -> Run:
    """The run as it is told: with the address of its prompt."""
    run = Run.model_validate(view)
    if view.prompt_id is not None:
        run.prompt_url = prompts.address(context(), view.prompt_id, view.id, view.return_to)
    return run


def _start_own(body: StartBody) -> RunView:
    for field in ("subject_token", "grant_id", "return_to"):
        if getattr(body, field) is not None:
            raise InvalidRequestError(
                f"{field}: only a service starts runs for somebody else.",
                hint="Leave it out: the run will be your own.",
                field=field,
            )
    return runs.start(
        context(), caller(), task=body.task, parameters=body.parameters, reference=body.reference or ""
    )


def _start_for_owner(body: StartBody) -> RunView:
    if body.subject_token is None and body.grant_id is None:
        raise InvalidRequestError(
            "Neither subject_token nor grant_id says for whom.",
            hint="Send the access token of the signed-in owner, or the id of a grant of theirs.",
            code="owner_required",
            field="subject_token",
        )
    return starting.start(
        context(),
        caller(),
        task=body.task,
        parameters=body.parameters,
        subject=None if body.subject_token is None else _subject(body.subject_token),
        grant_id=None if body.grant_id is None else str(body.grant_id),
        reference=body.reference or "",
        return_to=body.return_to or "",
    )


def _subject(token: SecretStr) -> Principal:
    try:
        # The provider's client verifies it.
        return of_token(context().provider.verify(token.get_secret_value()))
    except InvalidTokenError as error:
        # Not 401: the service itself is known, and must not doubt its own credentials.
        raise InvalidRequestError(
            f"The subject_token cannot be used. {error.message}",
            hint="Send the access token that the owner's sign-in gave you, while it lives; or name a grant.",
            code="invalid_subject_token",
            field="subject_token",
        ) from error


def _whose(token: str) -> str:
    """What two requests have in common that show tokens of the same owner: by claims that nobody has
    verified, which tell repetitions apart and give no right to anything."""
    try:
        body = token.split(".")[1]
        claims = json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
        return f"{claims['iam_id']} {claims['account']['bss']}"
    except (ValueError, KeyError, IndexError, TypeError, RecursionError):
        return token


@operation(api, "get", "/v1/runs", Permission.RUN_READ, answers={200: RunPage})
def list_runs(query: RunQuery) -> Response:
    """The caller's runs, newest first; a service's are those it started."""
    page, following = runs.list_own(
        context(),
        caller(),
        state=query.state,
        schedule_id=None if query.schedule_id is None else str(query.schedule_id),
        after=query.after,
        limit=query.limit,
    )
    return send(RunPage(items=[told(run) for run in page], next=following))


@operation(api, "get", "/v1/runs/<uuid:run_id>", Permission.RUN_READ, answers={200: Run, 304: None})
def get_run(path: RunPath, header: IfNoneMatchHeader) -> Response:
    """One run; poll it with If-None-Match."""
    view = runs.get(context(), caller(), str(path.run_id))
    return send(told(view), revision=view.revision, header=header)


@operation(
    api, "post", "/v1/runs/<uuid:run_id>/cancel", Permission.RUN_CANCEL, answers={200: Run}, errors=(409,)
)
def cancel_run(path: RunPath) -> Response:
    """End a run. A running job is asked to end, then ended."""
    view = runs.cancel(context(), caller(), str(path.run_id))
    return send(told(view), revision=view.revision)


@operation(api, "get", "/v1/runs/<uuid:run_id>/output", Permission.RUN_READ, answers={200: Output, 304: None})
def get_output(path: RunPath, query: OutputQuery, header: IfNoneMatchHeader) -> Response:
    """What the run printed, part by part."""
    view = runs.output(context(), caller(), str(path.run_id), query.after, query.attempt)
    return send(Output.model_validate(view), revision=0, header=header)
