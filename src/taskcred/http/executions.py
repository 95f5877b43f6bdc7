"""/v1/runs/{id}/attempts: the tries of a run, and how whoever carries it out begins, reports and ends one."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from flask import Response
from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from taskcred.domain.permissions import Authentication, Permission
from taskcred.domain.runs import AttemptOutcome
from taskcred.errors import ConflictError, InvalidRequestError
from taskcred.http.answers import send
from taskcred.http.authentication import caller, context
from taskcred.http.operations import nouns, operation
from taskcred.http.runs import Run, RunPath, told
from taskcred.http.shapes import ABSENT, Asked, Told, left_out
from taskcred.services import access, attempts, executions, runs
from taskcred.services.attempts import NotBegun
from taskcred.services.executions import Progress

api = nouns("attempts", "Attempts of runs, for their owners and for whoever carries them out.")

_MOST_OUTPUT = 262_144  # characters in one heartbeat
_LARGEST = 2**31 - 1
_Line = Annotated[str, StringConstraints(pattern=r"^[^\x00-\x08\x0b\x0c\x0e-\x1f\x7f]*$")]


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
    addresses: list[str] | None = Field(
        description="Networks its stand-in key works from; null: from anywhere."
    )
    tokens: list[HandOut]


class AttemptList(BaseModel):
    """A run's attempts, oldest first."""

    items: list[Attempt]
    next: str | None = None


class Sdk(BaseModel):
    """For each of `services`, as IBM's SDKs read it: `<SVC>_AUTH_TYPE`, `<SVC>_APIKEY` (the stand-in key) and
    `<SVC>_AUTH_URL`."""

    auth_type: Literal["iam"] = "iam"
    auth_url: str
    services: list[str] = Field(description="As the task names them.")


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
    heartbeat_seconds: int = Field(ge=1, description="Say at least this often that the attempt goes on.")
    silence_seconds: int = Field(ge=1, description="After so long without a word the attempt is ended.")
    sdk: Sdk = Field(description="What IBM's SDKs are to be told, besides the stand-in key.")


class AttemptBody(Asked):
    """A worker says which dispatch of the run it was given. Others may bind the stand-in key to networks."""

    dispatch_no: int = Field(
        default=ABSENT, ge=1, le=1_000_000_000, description="For workers.", json_schema_extra=left_out
    )
    addresses: list[Annotated[str, Field(min_length=1, max_length=64)]] = Field(
        default=ABSENT,
        min_length=1,
        max_length=32,
        description="For services and owners: the stand-in key works only from these addresses and networks, as "
        "this server sees them. Left out: from anywhere.",
        examples=[["10.0.0.0/8", "2001:db8::/32"]],
        json_schema_extra=left_out,
    )


class ProgressIn(Asked):
    """How far the job says it is."""

    done: int = Field(ge=0, le=_LARGEST)
    total: int = Field(ge=0, le=_LARGEST)
    text: _Line = Field("", max_length=256)


class HeartbeatBody(Asked):
    """That the attempt goes on, and what is new."""

    progress: ProgressIn = Field(default=ABSENT, json_schema_extra=left_out)
    output: str = Field(
        "", max_length=_MOST_OUTPUT, description="What the job printed since the last heartbeat, as text."
    )


class Heard(BaseModel):
    """The answer to a heartbeat."""

    cancel_requested: bool = Field(description="The run is to be cancelled: end the job, then the attempt.")


class EndBody(Asked):
    """What the job came to."""

    model_config = ConfigDict(
        json_schema_extra={
            "not": {
                "required": ["again"],
                "properties": {
                    "again": {"const": True},
                    "outcome": {"enum": ["succeeded", "cancelled"]},
                },
            }
        }
    )

    outcome: Literal["succeeded", "failed", "timed_out", "cancelled"]
    reason: _Line = Field("", max_length=512, description="A sentence for the owner.")
    exit_code: int = Field(default=ABSENT, ge=-_LARGEST, le=_LARGEST, json_schema_extra=left_out)
    again: bool = Field(False, description="After failed or timed_out: queue the run for another attempt.")


class AttemptPath(BaseModel):
    """/…/{run_id}/attempts/{attempt_id}"""

    run_id: UUID
    attempt_id: UUID


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
    """Begin an attempt and receive its stand-in key; an attempt that is live ends with that.

    409 says why there is nothing to do: `parked` (its owner answers at `action_url`), `cancelled`, `finished`,
    `other_executor`; to workers also `superseded`, `running`."""
    ctx = context()
    begun = _begin(str(path.run_id), body)
    silence = ctx.policy.runs.attempt_silence.total_seconds()
    task = ctx.tasks.get(begun.task)
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
        # Several may be lost on the way before the attempt is.
        heartbeat_seconds=max(1, int(silence / 6)),
        silence_seconds=max(1, int(silence)),
        sdk=Sdk(auth_url=ctx.public_url, services=list(task.sdk_services) if task else []),
    )
    return send(answer, 201)


@operation(
    api,
    "post",
    "/v1/runs/<uuid:run_id>/attempts/<uuid:attempt_id>/heartbeat",
    Permission.RUN_REPORT,
    answers={200: Heard},
    errors=(409,),
)
def report_heartbeat(path: AttemptPath, body: HeartbeatBody) -> Response:
    """Say that an attempt goes on. 409 `attempt_ended`: it does not, and its job must end."""
    said = body.progress
    progress = None if said is None else Progress(said.done, said.total, said.text)
    asked = executions.heartbeat(
        context(), caller(), str(path.run_id), str(path.attempt_id), progress=progress, output=body.output
    )
    return send(Heard(cancel_requested=asked))


@operation(
    api,
    "post",
    "/v1/runs/<uuid:run_id>/attempts/<uuid:attempt_id>/end",
    Permission.RUN_REPORT,
    answers={200: Run},
    errors=(409,),
)
def end_attempt(path: AttemptPath, body: EndBody) -> Response:
    """End an attempt, its stand-in key at once. Said twice alike, it is done once."""
    view = executions.end(
        context(),
        caller(),
        str(path.run_id),
        str(path.attempt_id),
        AttemptOutcome(body.outcome),
        reason=body.reason,
        exit_code=body.exit_code,
        again=body.again,
    )
    return send(told(view), revision=view.revision)


def _begin(run_id: str, body: AttemptBody) -> attempts.Begun:
    is_worker = caller().authentication is Authentication.WORKER
    if is_worker and body.dispatch_no is None:
        raise InvalidRequestError(
            "dispatch_no: a worker says which dispatch it was given.", hint="Send it.", field="dispatch_no"
        )
    odd, value = ("addresses", body.addresses) if is_worker else ("dispatch_no", body.dispatch_no)
    if value is not None:
        raise InvalidRequestError(f"{odd}: means nothing from this caller.", hint="Leave it out.", field=odd)
    if not is_worker:
        return executions.begin(context(), caller(), run_id, body.addresses)
    begun = attempts.begin(context(), caller(), run_id, body.dispatch_no)
    if isinstance(begun, NotBegun):
        raise ConflictError(
            "There is nothing to do for this dispatch of the run.",
            hint="Take the next one; nothing needs to be repeated.",
            code=begun.why,
        )
    return begun
