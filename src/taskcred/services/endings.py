"""How attempts end, and what becomes of their runs: one transaction, and the service is told in it.

The stand-in key dies with its attempt. Where a worker of ours carries the run out, its task's rule says
whether it is tried again; another executor says so itself, except where it fell silent.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final

import sqlalchemy as sa

from taskcred.domain.grants import GrantState
from taskcred.domain.runs import (
    NO_RETRY,
    Again,
    AttemptOutcome,
    End,
    Executor,
    RunState,
    decide_after_attempt,
)
from taskcred.domain.shown import plain
from taskcred.errors import NotFoundError
from taskcred.services import events
from taskcred.services.context import Context
from taskcred.services.reports import find_attempt
from taskcred.services.runs import UNKNOWN_TASK
from taskcred.store import attempts as store
from taskcred.store import audit, changes, grants
from taskcred.store import runs as run_store

_REASON: Final = 512  # characters kept of a reason
_UNFINISHED: Final = (RunState.QUEUED, RunState.WAITING_FOR_CREDENTIAL, RunState.RUNNING)
_SILENT: Final[dict[Executor, str]] = {
    Executor.WORKER: "The worker running it stopped unexpectedly.",
    Executor.SERVICE: "The service carrying it out fell silent.",
    Executor.OWNER: "The program carrying it out on your machine fell silent.",
}
_EXPIRED: Final = "The grant it was started under has expired."
_CANCELLED: Final = "Cancelled by its owner."  # where a run of an older release does not say
_KINDS: Final[dict[Executor, audit.ActorKind]] = {
    Executor.WORKER: "worker",
    Executor.SERVICE: "service",
    Executor.OWNER: "person",
}


def finish(
    ctx: Context, attempt_id: str, outcome: AttemptOutcome, reason: str = "", exit_code: int | None = None
) -> None:
    """End an attempt, its stand-in key at once, and decide what becomes of its run: one transaction.

    `reason` is a sentence for the owner. A run that is tried again is queued in the same transaction.
    Nothing happens where the attempt has already ended.
    """
    with ctx.store.write() as connection:
        end(ctx, connection, find_attempt(connection, attempt_id), outcome, reason, exit_code)


def lost(ctx: Context, attempt_id: str, actor: audit.Actor | None = None) -> None:
    """Whoever carried the attempt out is gone, its job with it or as good as gone: the run is tried again,
    or marked failed by its task's rule, and in any case after the fifth loss. `actor` is who found out,
    where that is not the executor itself."""
    with ctx.store.write() as connection:
        attempt = find_attempt(connection, attempt_id)
        reason = _SILENT[Executor(find_run(connection, attempt.run_id).executor)]
        end(ctx, connection, attempt, AttemptOutcome.LOST, reason, actor=actor, is_taken=True)


def take_away(ctx: Context, attempt_id: str, outcome: AttemptOutcome, reason: str) -> None:
    """End an attempt whose executor does not; it hears so at its next heartbeat."""
    with ctx.store.write() as connection:
        attempt = find_attempt(connection, attempt_id)
        end(ctx, connection, attempt, outcome, reason, actor=audit.KEEPER, is_taken=True)


def end(
    ctx: Context,
    connection: sa.Connection,
    attempt: sa.Row[Any],
    outcome: AttemptOutcome,
    reason: str,
    exit_code: int | None = None,
    *,
    again: bool = False,
    actor: audit.Actor | None = None,
    is_taken: bool = False,
) -> bool:
    """End a live attempt in the caller's transaction; False where it had ended.

    `again` is the word of an executor that is no worker of ours. `actor` is who ends it where that is not
    its executor; `is_taken` where the executor does not know of it, and a service has to be told.
    """
    now, reason = ctx.clock.now(), plain(reason)
    if not store.end(connection, attempt.id, outcome, reason[:_REASON], exit_code, now):
        return False
    changes.append(connection, "attempt", attempt.id, now)
    run = find_run(connection, attempt.run_id)
    actor = actor or _executor_of(attempt, run)
    details = {"number": attempt.number, "outcome": outcome.value, "exit_code": exit_code}
    _audit(connection, "attempt:end", actor, run, ("attempt", attempt.id), details, now)
    if is_taken:
        _tell_taken(ctx, connection, run, attempt, outcome, reason)
    _decide(ctx, connection, attempt, run, outcome, reason, exit_code, again, actor)
    return True


def end_run(
    ctx: Context,
    connection: sa.Connection,
    run: sa.Row[Any],
    decision: End,
    actor: audit.Actor,
    **values: Any,
) -> None:
    """The run reaches a final state, with these further values; whoever started it is told."""
    now = ctx.clock.now()
    values |= {"state": decision.state, "reason": decision.reason[:_REASON], "ended_at": now}
    run_store.move(connection, run.id, _UNFINISHED, run.dispatch_no, **values)
    _audit(connection, "run:end", actor, run, ("run", run.id), {"state": decision.state.value}, now)
    events.of_run(ctx, connection, run, "run.ended", state=decision.state.value, reason_text=values["reason"])


def cancel(
    ctx: Context, connection: sa.Connection, run: sa.Row[Any], reason: str, actor: audit.Actor
) -> None:
    """End a run that has not ended, from outside. The executor of a live attempt hears at its next heartbeat
    that it is over, and ends the job; the key is dead with this transaction."""
    live = store.live_of_run(connection, run.id)
    if live is None:
        end_run(ctx, connection, run, End(RunState.CANCELLED, reason), actor)
    else:
        end(ctx, connection, live, AttemptOutcome.CANCELLED, reason, actor=actor, is_taken=True)


def end_expired(ctx: Context, connection: sa.Connection, run: sa.Row[Any]) -> bool:
    """Cancel a queued run whose grant has reached its date, before an attempt of it begins; whether it had. What
    was asked for in time, but not begun, is not what the owner consented to any more."""
    if _is_granted(ctx, connection, run):
        return False
    end_run(ctx, connection, run, End(RunState.CANCELLED, _EXPIRED), audit.KEEPER)
    return True


def find_run(connection: sa.Connection, run_id: str) -> sa.Row[Any]:
    """The run's row, whoever owns it. Raises NotFoundError."""
    row = run_store.find(connection, run_id)
    if row is None:
        raise NotFoundError("There is no such run.", hint="It may have ended long ago and been removed.")
    return row


def _decide(
    ctx: Context,
    connection: sa.Connection,
    attempt: sa.Row[Any],
    run: sa.Row[Any],
    outcome: AttemptOutcome,
    reason: str,
    exit_code: int | None,
    again: bool,
    actor: audit.Actor,
) -> None:
    values = {
        "exit_code": exit_code,
        "lost_attempts": run.lost_attempts + (outcome is AttemptOutcome.LOST),
    }
    decision: Again | End
    if again and (why_not := _refuse_other(ctx, connection, run)):
        again, reason = False, f"{reason} There is no other attempt: {why_not}".lstrip()
    if run.cancel_requested_at is not None and outcome is not AttemptOutcome.SUCCEEDED:
        decision = End(RunState.CANCELLED, run.reason or _CANCELLED)
    elif again:
        decision = Again(NO_RETRY.delay)
    else:
        rule = ctx.tasks.get(run.task, UNKNOWN_TASK).retry
        if run.executor != Executor.WORKER and outcome is not AttemptOutcome.LOST:
            rule = NO_RETRY
        decision = decide_after_attempt(rule, outcome, run.attempts_made, run.lost_attempts, reason)
    if isinstance(decision, End):
        end_run(ctx, connection, run, decision, actor, **values)
        return
    run_store.move(
        connection,
        run.id,
        (RunState.RUNNING,),
        run.dispatch_no,
        state=RunState.QUEUED,
        reason=f"Attempt {attempt.number} ended and is followed by another: {reason}"[:_REASON],
        dispatch_no=run.dispatch_no + 1,
        queued_at=ctx.clock.now(),
        **values,
    )
    if run.executor == Executor.WORKER:
        owner = run_store.partition(run.account_id, run.iam_id)
        ctx.queue.enqueue(connection, run.id, run.dispatch_no + 1, owner, decision.delay)
    events.of_run(ctx, connection, run, "run.queued", why="again")


def _refuse_other(ctx: Context, connection: sa.Connection, run: sa.Row[Any]) -> str:
    """Why its executor gets no other attempt of the run, empty where it does. Else a service would go on for
    ever, by one attempt after the other: after the date that its owner consented to, or was there, or with as
    much output of each as the task may keep."""
    within, most = ctx.policy.runs.again_within, ctx.policy.runs.max_attempts
    if run.attempts_made >= most:
        return f"it has had {most} attempts already."
    if not _is_granted(ctx, connection, run):
        return "the grant it was started under has expired."
    is_bounded = run.executor == Executor.SERVICE and run.grant_id is None
    if is_bounded and ctx.clock.now() - run.started_at > within:
        return f"the first one began more than {within.days} days ago, and no grant is behind it."
    return ""


def _is_granted(ctx: Context, connection: sa.Connection, run: sa.Row[Any]) -> bool:
    """Whether a run that was started under a grant still has one."""
    if run.grant_id is None:
        return True
    grant = grants.find_active(connection, run.service_id, run.account_id, run.iam_id, ctx.clock.now())
    return grant is not None and grant.state is GrantState.ACTIVE and run.task in grant.tasks


def _tell_taken(
    ctx: Context,
    connection: sa.Connection,
    run: sa.Row[Any],
    attempt: sa.Row[Any],
    outcome: AttemptOutcome,
    reason: str,
) -> None:
    events.of_run(
        ctx,
        connection,
        run,
        "attempt.ended",
        attempt_id=attempt.id,
        outcome=outcome.value,
        reason_text=reason[:_REASON],
    )


def _executor_of(attempt: sa.Row[Any], run: sa.Row[Any]) -> audit.Actor:
    executor = Executor(run.executor)
    is_owner = executor is Executor.OWNER
    return audit.Actor(run.acting_iam_id or run.iam_id if is_owner else attempt.executor, _KINDS[executor])


def _audit(
    connection: sa.Connection,
    action: str,
    actor: audit.Actor,
    run: sa.Row[Any],
    target: tuple[str, str],
    details: dict[str, Any],
    now: datetime,
) -> None:
    event = audit.Event(action, "success", actor, run.account_id, run.iam_id, *target, run.id, details)
    audit.append(connection, event, now)
