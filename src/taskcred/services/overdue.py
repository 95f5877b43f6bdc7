"""What an executor outside leaves undone, and we end in its stead; keeper.

A run that nobody begins for a week; an attempt that takes longer than its task allows, or that was told to
end and goes on. (One that falls silent is the reaper's.) A worker of ours sees to these things itself.
"""

from __future__ import annotations

from typing import Final

from taskcred.domain.runs import AttemptOutcome, End, Executor, RunState
from taskcred.services import endings
from taskcred.services.context import Context
from taskcred.services.runs import UNKNOWN_TASK
from taskcred.store import attempts as store
from taskcred.store import audit
from taskcred.store import runs as run_store

_BATCH: Final = 100
_NOT_BEGUN: Final[dict[str, str]] = {
    Executor.SERVICE: "The service that started it did not begin",
    Executor.OWNER: "No program on your machine began",
}


def tend(ctx: Context) -> int:
    """One round; answers how much was ended."""
    return _give_up_unbegun(ctx) + _end_overdue(ctx)


def _give_up_unbegun(ctx: Context) -> int:
    before = ctx.clock.now() - ctx.policy.runs.begin_within
    with ctx.store.read() as connection:
        if not run_store.never_begun(connection, before, 1):
            return 0
    with ctx.store.write() as connection:
        runs = run_store.never_begun(connection, before, _BATCH)
        for run in runs:
            reason = f"{_NOT_BEGUN[run.executor]} it within {ctx.policy.runs.begin_within.days} days."
            endings.end_run(ctx, connection, run, End(RunState.FAILED, reason), audit.KEEPER)
    return len(runs)


def _end_overdue(ctx: Context) -> int:
    now = ctx.clock.now()
    told_before = now - ctx.policy.runs.cancel_patience
    overdue: list[tuple[str, AttemptOutcome, str]] = []
    with ctx.store.read() as connection:
        for row in store.live_elsewhere(connection):
            if row.cancel_requested_at is not None and row.cancel_requested_at <= told_before:
                overdue.append((row.id, AttemptOutcome.CANCELLED, "It was told to end, and went on."))
            elif now - row.started_at >= ctx.tasks.get(row.task, UNKNOWN_TASK).timeout:
                overdue.append((row.id, AttemptOutcome.TIMED_OUT, "It took longer than its task allows."))
    for attempt_id, outcome, reason in overdue:
        endings.take_away(ctx, attempt_id, outcome, reason)
    return len(overdue)
