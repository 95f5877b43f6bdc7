"""/v1/runs: start, watch and cancel runs; and how a worker begins an attempt of one."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from flask import Response
from pydantic import BaseModel, ConfigDict, Field

from taskcred.domain.permissions import Permission
from taskcred.domain.runs import AttemptOutcome, RunState
from taskcred.errors import ConflictError
from taskcred.http.answers import once, send
from taskcred.http.authentication import caller, context
from taskcred.http.operations import nouns, operation
from taskcred.http.shapes import (
    ABSENT,
    Asked,
    IdempotencyHeader,
    IfNoneMatchHeader,
    PageQuery,
    TaskName,
    Told,
    left_out,
)
from taskcred.services import access, attempts, runs
from taskcred.services.attempts import NotBegun
from taskcred.services.idempotency import Answer

api = nouns("runs", "Runs of tasks and their attempts.")


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
    prompt_id: UUID | None = Field(description="The open prompt, while it waits for a credential.")
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


class HandOut(Told):
    """An access token that an attempt received: times only."""

    key_id: UUID
    first_at: datetime
    last_at: datetime
    uses: int = Field(ge=0, description="Counted each second: 0 within the first.")
    expires_at: datetime


class Attempt(Told):
    """One try of a run."""

    id: UUID
    number: int = Field(ge=1)
    outcome: AttemptOutcome | None = Field(description="null while it is live.")
    reason: str
    executor: str
    started_at: datetime
    ended_at: datetime | None
    exit_code: int | None
    standin_last_four: str
    tokens: list[HandOut]


class AttemptList(BaseModel):
    """A run's attempts, oldest first."""

    items: list[Attempt]
    next: str | None = None


class Begun(BaseModel):
    """An attempt that has begun. The stand-in key is told here once."""

    attempt_id: UUID
    run_id: UUID
    number: int = Field(ge=1)
    stand_in_key: str
    task: str
    parameters: dict[str, Any]
    account_id: str
    iam_id: str
    token_url: str = Field(description="Where the stand-in key is exchanged for access tokens.")


class StartBody(Asked):
    """What to run."""

    task: TaskName
    parameters: dict[str, Any] = Field(default_factory=dict, description="As the task's schema asks.")


class AttemptBody(Asked):
    """Which dispatch of the run the worker was given."""

    dispatch_no: int = Field(ge=1, le=1_000_000_000)


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


@operation(api, "post", "/v1/runs", Permission.RUN_START, answers={201: Run}, errors=(409, 422))
def start_run(header: IdempotencyHeader, body: StartBody) -> Response:
    """Start a task now. Without a usable credential the run is parked and its owner asked for one."""

    def work() -> Answer:
        view = runs.start(context(), caller(), task=body.task, parameters=body.parameters)
        return Answer(201, Run.model_validate(view).model_dump(mode="json"))

    return once(header, work)


@operation(api, "get", "/v1/runs", Permission.RUN_READ, answers={200: RunPage})
def list_runs(query: RunQuery) -> Response:
    """The caller's runs, newest first."""
    page, following = runs.list_own(
        context(),
        caller(),
        state=query.state,
        schedule_id=None if query.schedule_id is None else str(query.schedule_id),
        after=query.after,
        limit=query.limit,
    )
    return send(RunPage(items=[Run.model_validate(run) for run in page], next=following))


@operation(api, "get", "/v1/runs/<uuid:run_id>", Permission.RUN_READ, answers={200: Run, 304: None})
def get_run(path: RunPath, header: IfNoneMatchHeader) -> Response:
    """One run; poll it with If-None-Match."""
    view = runs.get(context(), caller(), str(path.run_id))
    return send(Run.model_validate(view), revision=view.revision, header=header)


@operation(
    api, "post", "/v1/runs/<uuid:run_id>/cancel", Permission.RUN_CANCEL, answers={200: Run}, errors=(409,)
)
def cancel_run(path: RunPath) -> Response:
    """End a run. A running job is asked to end, then ended."""
    view = runs.cancel(context(), caller(), str(path.run_id))
    return send(Run.model_validate(view), revision=view.revision)


@operation(api, "get", "/v1/runs/<uuid:run_id>/output", Permission.RUN_READ, answers={200: Output, 304: None})
def get_output(path: RunPath, query: OutputQuery, header: IfNoneMatchHeader) -> Response:
    """What the run printed, part by part."""
    view = runs.output(context(), caller(), str(path.run_id), query.after, query.attempt)
    return send(Output.model_validate(view), revision=0, header=header)


@operation(api, "get", "/v1/runs/<uuid:run_id>/access", Permission.TOKEN_READ, answers={200: AttemptList})
def list_run_access(path: RunPath) -> Response:
    """Which attempt received access tokens, from which key, and when."""
    found = access.run_access(context(), caller(), str(path.run_id))
    return send(AttemptList(items=[Attempt.model_validate(attempt) for attempt in found]))


@operation(api, "get", "/v1/runs/<uuid:run_id>/attempts", Permission.RUN_READ, answers={200: AttemptList})
def list_attempts(path: RunPath) -> Response:
    """The tries of a run."""
    found = runs.attempts(context(), caller(), str(path.run_id))
    return send(AttemptList(items=[Attempt.model_validate(attempt) for attempt in found]))


@operation(
    api,
    "post",
    "/v1/runs/<uuid:run_id>/attempts",
    Permission.RUN_ATTEMPT,
    answers={201: Begun},
    errors=(409,),
)
def begin_attempt(path: RunPath, body: AttemptBody) -> Response:
    """Begin an attempt and receive its stand-in key. 409 says why there is nothing to do: `parked`,
    `cancelled`, `superseded`, `finished`, `running`."""
    ctx = context()
    begun = attempts.begin(ctx, caller(), str(path.run_id), body.dispatch_no)
    if isinstance(begun, NotBegun):
        raise ConflictError(
            "There is nothing to do for this dispatch of the run.",
            hint="Take the next one; nothing needs to be repeated.",
            code=begun.why,
        )
    answer = Begun(
        attempt_id=UUID(begun.attempt_id),
        run_id=UUID(begun.run_id),
        number=begun.number,
        # The executor hands it to the job; this is the one time it is told.
        stand_in_key=begun.standin_key.reveal(),
        task=begun.task,
        parameters=begun.parameters,
        account_id=begun.account_id,
        iam_id=begun.iam_id,
        token_url=f"{ctx.public_url}/identity/token",
    )
    return send(answer, 201)
