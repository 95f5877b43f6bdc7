"""Attempts: what whoever executes a run asks and reports. A stand-in key lives as long as its attempt."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Literal

import sqlalchemy as sa

from taskcred.domain.keytext import STANDIN_KEY_PREFIX, new_key
from taskcred.domain.permissions import Permission, Principal
from taskcred.domain.runs import (
    FINAL_STATES,
    Again,
    AttemptOutcome,
    End,
    RunState,
    decide_after_attempt,
)
from taskcred.domain.secret import Secret
from taskcred.errors import ConflictError, NotFoundError, UnavailableError
from taskcred.services import prompts, tokens
from taskcred.services.authorize import actor_of, authorize
from taskcred.services.context import Context
from taskcred.services.reports import (
    append_output,
    cancel_requested,
    find_attempt,
    heartbeat,
    progress,
    set_launcher,
)
from taskcred.services.runs import PARKED_REASON, UNKNOWN_TASK
from taskcred.store import attempts as store
from taskcred.store import audit, changes
from taskcred.store import prompts as prompt_store
from taskcred.store import runs as run_store

__all__ = [
    "Begun",
    "LiveAttempt",
    "NotBegun",
    "append_output",
    "begin",
    "cancel_requested",
    "finish",
    "heartbeat",
    "live_of_run",
    "lost",
    "progress",
    "set_launcher",
]

_REASON: Final = 512  # characters kept of a reason


@dataclass(frozen=True, slots=True)
class Begun:
    """An attempt is live. `standin_key` is told here once and never again; only its digest is kept."""

    attempt_id: str
    run_id: str
    number: int
    standin_key: Secret
    task: str
    parameters: dict[str, Any]
    account_id: str
    iam_id: str


@dataclass(frozen=True, slots=True)
class NotBegun:
    """Nothing to do for this dispatch.

    parked      the run waits for a task credential and will be dispatched anew
    cancelled   its owner ended it
    finished    it has succeeded or failed
    superseded  a later dispatch has taken its place
    running     an attempt of this very dispatch is live elsewhere: report it lost once its process is gone
    """

    why: Literal["parked", "cancelled", "finished", "superseded", "running"]


@dataclass(frozen=True, slots=True)
class LiveAttempt:
    """A run's live attempt. `launcher` is {"pid", "started"}, or None where no process was begun."""

    attempt_id: str
    executor: str
    launcher: dict[str, Any] | None
    heartbeat_at: datetime


def begin(ctx: Context, principal: Principal, run_id: str, dispatch_no: int) -> Begun | NotBegun:
    """Begin an attempt of a queued run for the worker `principal`.

    A run starts only when an access token is in the cache: it is fetched here, before anything is
    committed. Without a usable credential the run is parked instead. Asked again by the same worker
    before it began a process (its answer was lost), the attempt gets a new key and the old key is dead.

    Raises NotFoundError, and UnavailableError where vault, provider or records are away: ask again later.
    """
    authorize(ctx, principal, Permission.RUN_ATTEMPT, "run", run_id)
    with ctx.store.read() as connection:
        run = _run(connection, run_id)
        standing = prompt_store.standing(connection, run.account_id, run.iam_id)
        refused = _refuse(connection, run, dispatch_no, principal.iam_id)
    if refused is not None:
        return refused
    ensured = None if standing.why else _ensure_token(ctx, standing.credential_id)
    with ctx.store.write() as connection:
        run = _run(connection, run_id)
        refused = _refuse(connection, run, dispatch_no, principal.iam_id)
        if refused is not None:
            return refused
        standing = prompt_store.standing(connection, run.account_id, run.iam_id)
        if standing.why and run.state == RunState.QUEUED:
            _park(ctx, connection, run, standing.why)
            return NotBegun("parked")
        if ensured is None or standing.credential_id != ensured:
            raise UnavailableError(
                "The owner's task credential is changing just now.", hint="Try again in a moment."
            )
        return _begin(ctx, connection, run, ensured, principal)


def live_of_run(ctx: Context, run_id: str) -> LiveAttempt | None:
    """The run's live attempt, for a worker that finds it after a crash."""
    with ctx.store.read() as connection:
        row = store.live_of_run(connection, run_id)
    return None if row is None else LiveAttempt(row.id, row.executor, row.launcher, row.heartbeat_at)


def finish(
    ctx: Context, attempt_id: str, outcome: AttemptOutcome, reason: str = "", exit_code: int | None = None
) -> None:
    """End an attempt, its stand-in key at once, and decide what becomes of its run: one transaction.

    `reason` is a sentence for the owner. A run that is tried again is queued in the same transaction.
    Nothing happens where the attempt has already ended.
    """
    with ctx.store.write() as connection:
        attempt = find_attempt(connection, attempt_id)
        now = ctx.clock.now()
        if not store.end(connection, attempt_id, outcome, reason[:_REASON], exit_code, now):
            return
        changes.append(connection, "attempt", attempt_id, now)
        _audit(
            connection,
            "attempt:end",
            attempt,
            _run(connection, attempt.run_id),
            {"number": attempt.number, "outcome": outcome.value, "exit_code": exit_code},
            now,
        )
        _decide(ctx, connection, attempt, outcome, reason, exit_code, now)


def lost(ctx: Context, attempt_id: str) -> None:
    """The worker of an attempt died and its job is gone: the run is tried again, or marked failed by its
    task's rule, and in any case after the fifth loss."""
    finish(ctx, attempt_id, AttemptOutcome.LOST, "The worker running it stopped unexpectedly.")


def _refuse(connection: sa.Connection, run: sa.Row[Any], dispatch_no: int, executor: str) -> NotBegun | None:
    if run.state in FINAL_STATES:
        return NotBegun("cancelled" if run.state == RunState.CANCELLED else "finished")
    if run.dispatch_no != dispatch_no:
        return NotBegun("superseded")
    if run.state == RunState.WAITING_FOR_CREDENTIAL:
        return NotBegun("parked")
    if run.state == RunState.RUNNING:
        live = store.live_of_run(connection, run.id)
        if live is None or live.executor != executor or live.launcher is not None:
            return NotBegun("running")
    return None


def _ensure_token(ctx: Context, credential_id: str | None) -> str | None:
    """The credential's id once a token of it is in the cache; None where it has just been refused."""
    if credential_id is None:
        return None
    try:
        tokens.ensure(ctx, credential_id)
    except (ConflictError, NotFoundError):
        return None  # refused or ended meanwhile; its state tells, and the caller reads it again
    return credential_id


def _begin(
    ctx: Context, connection: sa.Connection, run: sa.Row[Any], credential_id: str, principal: Principal
) -> Begun:
    now = ctx.clock.now()
    key = new_key(STANDIN_KEY_PREFIX)
    live = store.live_of_run(connection, run.id)
    if live is not None:
        attempt_id, number = str(live.id), int(live.number)
        store.set_key(connection, attempt_id, key.digest(), key.last_four, now)
        changes.append(connection, "attempt", attempt_id, now)
    else:
        attempt_id, number = str(uuid.uuid4()), int(run.attempts_made) + 1
        run_store.move(
            connection,
            run.id,
            (RunState.QUEUED,),
            run.dispatch_no,
            state=RunState.RUNNING,
            reason="",
            attempts_made=number,
            started_at=run.started_at or now,
            progress_done=None,
            progress_total=None,
            progress_text="",
            exit_code=None,
        )
        store.insert(
            connection,
            attempt_id=attempt_id,
            run_id=run.id,
            number=number,
            credential_id=credential_id,
            executor=principal.iam_id,
            standin_digest=key.digest(),
            standin_last_four=key.last_four,
            now=now,
        )
    audit.append(
        connection,
        audit.Event(
            "attempt:begin",
            "success",
            actor_of(principal),
            run.account_id,
            run.iam_id,
            "attempt",
            attempt_id,
            run.id,
            {"number": number, "credential_id": credential_id, "new_key": live is not None},
        ),
        now,
    )
    return Begun(attempt_id, run.id, number, key, run.task, run.parameters, run.account_id, run.iam_id)


def _park(ctx: Context, connection: sa.Connection, run: sa.Row[Any], why: str) -> None:
    run_store.move(
        connection,
        run.id,
        (RunState.QUEUED,),
        run.dispatch_no,
        state=RunState.WAITING_FOR_CREDENTIAL,
        reason=PARKED_REASON[why],
    )
    prompts.open_for(ctx, connection, run.account_id, run.iam_id, why)
    event = audit.Event(
        "run:park",
        "success",
        audit.KEEPER,
        run.account_id,
        run.iam_id,
        "run",
        run.id,
        run.id,
        {"waits_for": why},
    )
    audit.append(connection, event, ctx.clock.now())


def _decide(
    ctx: Context,
    connection: sa.Connection,
    attempt: sa.Row[Any],
    outcome: AttemptOutcome,
    reason: str,
    exit_code: int | None,
    now: datetime,
) -> None:
    run = _run(connection, attempt.run_id)
    decision: Again | End
    if run.cancel_requested_at is not None and outcome is not AttemptOutcome.SUCCEEDED:
        decision = End(RunState.CANCELLED, "Cancelled by its owner.")
    else:
        rule = ctx.tasks.get(run.task, UNKNOWN_TASK).retry
        decision = decide_after_attempt(rule, outcome, run.attempts_made, run.lost_attempts, reason)
    values: dict[str, Any] = {
        "exit_code": exit_code,
        "lost_attempts": run.lost_attempts + (outcome is AttemptOutcome.LOST),
    }
    if isinstance(decision, Again):
        values |= {
            "state": RunState.QUEUED,
            "reason": f"Attempt {attempt.number} ended and is followed by another: {reason}"[:_REASON],
            "dispatch_no": run.dispatch_no + 1,
            "queued_at": now,
        }
        owner = run_store.partition(run.account_id, run.iam_id)
        ctx.queue.enqueue(connection, run.id, run.dispatch_no + 1, owner, decision.delay)
    else:
        values |= {"state": decision.state, "reason": decision.reason[:_REASON], "ended_at": now}
        _audit(connection, "run:end", attempt, run, {"state": decision.state.value}, now)
    run_store.move(connection, run.id, (RunState.RUNNING,), run.dispatch_no, **values)


def _audit(
    connection: sa.Connection,
    action: str,
    attempt: sa.Row[Any],
    run: sa.Row[Any],
    details: dict[str, Any],
    now: datetime,
) -> None:
    kind, target_id = ("run", run.id) if action.startswith("run:") else ("attempt", attempt.id)
    event = audit.Event(
        action,
        "success",
        audit.Actor(attempt.executor, "worker"),
        run.account_id,
        run.iam_id,
        kind,
        target_id,
        run.id,
        details,
    )
    audit.append(connection, event, now)


def _run(connection: sa.Connection, run_id: str) -> sa.Row[Any]:
    row = run_store.find(connection, run_id)
    if row is None:
        raise NotFoundError("There is no such run.", hint="It may have ended long ago and been removed.")
    return row
