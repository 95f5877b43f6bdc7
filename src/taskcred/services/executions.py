"""External execution: a run is carried out by the service that started it, or by its owner on their own machine.

Such a run is in no queue of ours. Whoever carries it out begins an attempt and gets the stand-in key once,
says at intervals that it goes on, and says how it ended. Silence ends an attempt like a worker's death does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, NoReturn

import sqlalchemy as sa

from taskcred.domain import networks
from taskcred.domain.keytext import mask_standin_keys
from taskcred.domain.permissions import Authentication, Permission, Principal
from taskcred.domain.runs import FINAL_STATES, AttemptOutcome, Executor, RunState, RunView
from taskcred.errors import (
    ConflictError,
    ForbiddenError,
    InvalidRequestError,
    NotFoundError,
    UnavailableError,
)
from taskcred.services import attempts, endings, prompts, reports, runs
from taskcred.services.attempts import Begun, NotBegun
from taskcred.services.authorize import actor_of, authorize
from taskcred.services.context import Context
from taskcred.services.events import service_of
from taskcred.store import attempts as store
from taskcred.store import prompts as prompt_store
from taskcred.store import runs as run_store
from taskcred.store import services as service_store

OWNER: Final = "owner"  # an owner as attempts name their executor
_ENDS: Final = frozenset(AttemptOutcome) - {AttemptOutcome.LOST}
_WHO: Final[dict[str, str]] = {
    Executor.WORKER: "a worker of taskcred",
    Executor.SERVICE: "the service that started it",
    Executor.OWNER: "its owner, on their own machine",
}
_REPLACED: Final = "Another attempt was begun in its place."


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a job says it is."""

    done: int
    total: int
    text: str = ""


def begin(ctx: Context, principal: Principal, run_id: str, addresses: Sequence[str] | None = None) -> Begun:
    """Begin an attempt of a run that is the caller's to carry out; an attempt that is live ends as lost.

    An access token is fetched into the cache first, before anything is committed. With `addresses` the
    stand-in key works only from these networks ("10.0.0.0/8", "192.0.2.7").

    Raises NotFoundError; ConflictError (`other_executor`, `parked`, `cancelled`, `finished`);
    InvalidRequestError; ForbiddenError (`service_disabled`); and UnavailableError where vault, provider or
    records are away: the run stays as it is, ask again later.
    """
    authorize(ctx, principal, Permission.RUN_ATTEMPT, "run", run_id)
    bound_to = None if addresses is None else verify_networks(addresses)
    with ctx.store.read() as connection:
        run = _mine(connection, principal, run_id)
        standing = prompt_store.standing(connection, run.account_id, run.iam_id)
    is_open = run.state in (RunState.QUEUED, RunState.RUNNING)
    ensured = attempts.ensure_token(ctx, standing.credential_id) if is_open and not standing.why else None
    with ctx.store.write() as connection:
        begun = _begin(ctx, connection, principal, run_id, ensured, bound_to)
        if isinstance(begun, Begun):
            return begun
        prompt = prompt_store.find_open(connection, run.account_id, run.iam_id)
        reason = endings.find_run(connection, run_id).reason
    where = None if prompt is None else prompts.address(ctx, prompt.id, run.id, run.return_to)
    raise _refusal(begun, where, reason)


def heartbeat(
    ctx: Context,
    principal: Principal,
    run_id: str,
    attempt_id: str,
    *,
    progress: Progress | None = None,
    output: str = "",
) -> bool:
    """Say that an attempt goes on, how far it is and what it printed; whether it is asked to end.

    Raises NotFoundError; ConflictError (`other_executor`; `attempt_ended`: the job must end).
    """
    authorize(ctx, principal, Permission.RUN_REPORT, "attempt", attempt_id)
    with ctx.store.write() as connection:
        run, attempt = _my_attempt(connection, principal, run_id, attempt_id)
        if attempt.outcome is not None:
            _refuse_ended(attempt)
        store.beat(connection, [attempt_id], ctx.clock.now())
        if progress is not None:
            text = mask_standin_keys(progress.text)
            reports.note_progress(connection, run_id, progress.done, progress.total, text)
        if output:
            reports.keep_output(ctx, connection, attempt, run.task, mask_standin_keys(output))
        return run.cancel_requested_at is not None


def end(
    ctx: Context,
    principal: Principal,
    run_id: str,
    attempt_id: str,
    outcome: AttemptOutcome,
    *,
    reason: str = "",
    exit_code: int | None = None,
    again: bool = False,
) -> RunView:
    """End an attempt with what its job came to; `again` queues the run for another one, else it has ended.

    Said twice alike (the first answer was lost), it is done once. Raises NotFoundError; ConflictError
    (`other_executor`; `attempt_ended`: it ended otherwise, and this changes nothing any more).
    """
    authorize(ctx, principal, Permission.RUN_REPORT, "attempt", attempt_id)
    if outcome not in _ENDS or (again and outcome in (AttemptOutcome.SUCCEEDED, AttemptOutcome.CANCELLED)):
        raise InvalidRequestError(
            f"An attempt cannot end as {outcome}{' and be followed by another' if again else ''}.",
            hint="Only after failed or timed_out is there another try; lost is taskcred's own word.",
            field="again" if outcome in _ENDS else "outcome",
        )
    with ctx.store.write() as connection:
        _run, attempt = _my_attempt(connection, principal, run_id, attempt_id)
        ended = endings.end(
            ctx,
            connection,
            attempt,
            outcome,
            mask_standin_keys(reason),
            exit_code,
            again=again,
            actor=actor_of(principal),
        )
        if not ended and attempt.outcome != outcome:
            _refuse_ended(attempt)
        return runs.find_own(connection, principal, run_id)


def verify_networks(addresses: Sequence[str]) -> list[str]:
    """The networks in canonical form. Raises InvalidRequestError where one is none."""
    try:
        return [str(network) for network in networks.read(addresses)]
    except ValueError as error:
        raise InvalidRequestError(
            f"One of the addresses cannot be used: {error}.",
            hint='Write addresses and networks, such as "192.0.2.7", "10.0.0.0/8" or "2001:db8::/32".',
            field="addresses",
        ) from None


def _begin(
    ctx: Context,
    connection: sa.Connection,
    principal: Principal,
    run_id: str,
    ensured: str | None,
    bound_to: list[str] | None,
) -> Begun | NotBegun:
    """Everything is looked at once more: much may have happened while the token was fetched."""
    run = _mine(connection, principal, run_id)
    _verify_service(connection, run)
    if run.state in FINAL_STATES or run.state == RunState.WAITING_FOR_CREDENTIAL:
        return _not_begun(run.state)
    standing = prompt_store.standing(connection, run.account_id, run.iam_id)
    if not standing.why and (ensured is None or standing.credential_id != ensured):
        raise UnavailableError(
            "The owner's task credential is changing just now.", hint="Try again in a moment."
        )
    live = store.live_of_run(connection, run_id)
    if live is not None:
        endings.end(ctx, connection, live, AttemptOutcome.LOST, _REPLACED, actor=actor_of(principal))
        run = endings.find_run(connection, run_id)
        if run.state in FINAL_STATES:
            return _not_begun(run.state)
    if endings.end_expired(ctx, connection, run):
        return NotBegun("cancelled")
    if standing.why or ensured is None:
        attempts.park(ctx, connection, run, standing.why)
        return NotBegun("parked")
    executor = OWNER if run.executor == Executor.OWNER else principal.iam_id
    return attempts.open_attempt(ctx, connection, run, ensured, executor, actor_of(principal), bound_to)


def _not_begun(state: str) -> NotBegun:
    if state == RunState.WAITING_FOR_CREDENTIAL:
        return NotBegun("parked")
    return NotBegun("cancelled" if state == RunState.CANCELLED else "finished")


def _refusal(not_begun: NotBegun, prompt_url: str | None, reason: str) -> ConflictError:
    match not_begun.why:
        case "parked":
            return ConflictError(
                "The run waits for its owner's task credential.",
                hint="Show its owner the page at action_url; once they have answered, begin again.",
                code="parked",
                action_url=prompt_url,
            )
        case "cancelled":
            hint = f"{reason} Let its job be.".lstrip()
            return ConflictError("The run was cancelled.", hint=hint, code="cancelled")
        case _:
            return ConflictError(
                "The run has ended.",
                hint="Start another one where the work is to be done again.",
                code="finished",
            )


def _refuse_ended(attempt: sa.Row[Any]) -> NoReturn:
    raise ConflictError(
        f"This attempt has ended ({attempt.outcome}), and its stand-in key with it. {attempt.reason}".rstrip(),
        hint="End its job. Where the run is queued again, begin another attempt.",
        code="attempt_ended",
        outcome=attempt.outcome,
    )


def _mine(connection: sa.Connection, principal: Principal, run_id: str) -> sa.Row[Any]:
    """The run, where it is the caller's to carry out."""
    run = run_store.find(connection, run_id)
    is_service = principal.authentication is Authentication.SERVICE
    if run is None or (
        run.service_id != service_of(principal)
        if is_service
        else (run.account_id, run.iam_id) != (principal.account_id, principal.iam_id)
    ):
        raise NotFoundError("There is no such run.", hint="`GET /v1/runs` lists those that you may see.")
    if run.executor != (Executor.SERVICE if is_service else Executor.OWNER):
        raise ConflictError(
            f"This run is carried out by {_WHO[run.executor]}.",
            hint="Wait for its end: `GET /v1/runs/{id}` tells.",
            code="other_executor",
        )
    return run


def _my_attempt(
    connection: sa.Connection, principal: Principal, run_id: str, attempt_id: str
) -> tuple[sa.Row[Any], sa.Row[Any]]:
    run = _mine(connection, principal, run_id)
    attempt = store.find(connection, attempt_id)
    if attempt is None or attempt.run_id != run_id:
        raise NotFoundError("The run has no such attempt.", hint="Its begin named the attempt.")
    return run, attempt


def _verify_service(connection: sa.Connection, run: sa.Row[Any]) -> None:
    """The door let the service in; it may have been disabled since."""
    if run.service_id is None:
        return
    service = service_store.find(connection, run.service_id)
    if service is None or service.state != "active":
        raise ForbiddenError(
            "This service has been disabled.",
            hint="An administrator of the service, or the operator, enables it again.",
            code="service_disabled",
        )
