"""Runs: an owner starts, watches and cancels them, and so does a service with those it started.

A run without a usable credential is parked.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

import sqlalchemy as sa

from taskcred.domain.permissions import Authentication, Permission, Principal
from taskcred.domain.runs import FINAL_STATES, AttemptView, Executor, OutputView, RunState, RunView
from taskcred.domain.tasks import Task, TaskKind
from taskcred.errors import ConflictError, InvalidRequestError, NotFoundError, PolicyViolationError
from taskcred.services import events, prompts
from taskcred.services.authorize import actor_of, authorize
from taskcred.services.context import Context
from taskcred.services.cursors import cut, read_cursor, verify_limit
from taskcred.services.parameters import verify_parameters
from taskcred.store import attempts as attempt_store
from taskcred.store import audit
from taskcred.store import prompts as prompt_store
from taskcred.store import runs as store

_WAITING: Final = (RunState.QUEUED, RunState.WAITING_FOR_CREDENTIAL)
UNKNOWN_TASK: Final = Task("", TaskKind.COMMAND)  # the rules for runs whose task has left the catalogue
TOO_MANY_WAIT: Final = "Too many of your runs in this account already wait for a task credential."
PARKED_REASON: Final = {
    "missing": "Waits for a task credential.",
    "locked": "Waits until the task credential is unlocked.",
    "unusable": "Waits for a new key of the task credential.",
}


@dataclass(frozen=True, slots=True)
class NewRun:
    """What a run is made from. `started_by` is who asked; a schedule's runs name schedule and time, a
    service's the service, what it calls the run, where it wants the owner back, and the grant where there is
    one."""

    account_id: str
    iam_id: str
    task: str
    parameters: dict[str, Any]
    started_by: str
    schedule_id: str | None = None
    scheduled_for: datetime | None = None
    executor: Executor = Executor.WORKER
    service_id: str | None = None
    grant_id: str | None = None
    acting_iam_id: str = ""
    reference: str = ""
    return_to: str = ""
    id: str = field(default_factory=lambda: str(uuid.uuid4()))


def find_task(ctx: Context, name: str) -> Task:
    """The catalogue's task. Raises InvalidRequestError (`unknown_task`)."""
    task = ctx.tasks.get(name)
    if task is None:
        raise InvalidRequestError(
            "There is no such task in the catalogue.",
            hint="`taskcred task list`, or `GET /v1/tasks`, lists the tasks there are.",
            code="unknown_task",
            field="task",
        )
    return task


def find_task_for_worker(ctx: Context, name: str) -> Task:
    """The catalogue's task, to be carried out here. Raises InvalidRequestError (`external_task`) too."""
    task = find_task(ctx, name)
    if task.kind is TaskKind.EXTERNAL:
        raise InvalidRequestError(
            "This task is carried out elsewhere, not by taskcred: it can be neither scheduled nor run from here.",
            hint="The service it is made for starts it; on your own machine `taskcred exec` does.",
            code="external_task",
            field="task",
        )
    return task


def start(
    ctx: Context, principal: Principal, *, task: str, parameters: dict[str, Any], reference: str = ""
) -> RunView:
    """Start a run of `task` for the caller: queued, or parked with a prompt where no credential is usable.

    An external task is for the caller's own machine, and is started from there: by access token, not on
    the pages. Raises InvalidRequestError (`unknown_task`, `invalid_parameters`, `external_task`) and
    PolicyViolationError (`too_many_waiting_runs`).
    """
    authorize(ctx, principal, Permission.RUN_START, "task", task[:64])
    is_bearer = principal.authentication is Authentication.INTERACTIVE
    chosen = find_task(ctx, task) if is_bearer else find_task_for_worker(ctx, task)
    verify_parameters(chosen, parameters)
    new = NewRun(
        principal.account_id,
        principal.iam_id,
        task,
        parameters,
        principal.acting_iam_id or principal.iam_id,
        executor=Executor.OWNER if chosen.kind is TaskKind.EXTERNAL else Executor.WORKER,
        acting_iam_id=principal.acting_iam_id,
        reference=reference,
    )
    with ctx.store.write() as connection:
        return start_new(ctx, connection, principal, new)


def start_new(ctx: Context, connection: sa.Connection, principal: Principal, new: NewRun) -> RunView:
    """Make the run that `principal` asked for, in the caller's transaction; see `start`."""
    standing = prompt_store.standing(connection, new.account_id, new.iam_id)
    if not create(ctx, connection, new, standing, actor_of(principal)):
        raise PolicyViolationError(
            TOO_MANY_WAIT,
            hint="Create a task credential, or cancel runs that wait.",
            code="too_many_waiting_runs",
            action_url=f"{ctx.public_url}/prompts",
        )
    return find_own(connection, principal, new.id)


def create(
    ctx: Context,
    connection: sa.Connection,
    new: NewRun,
    standing: prompt_store.Standing,
    actor: audit.Actor,
) -> bool:
    """Queue or park a run in the caller's transaction, as the owner's credential stands; False where too
    many of the owner's runs are parked already."""
    now = ctx.clock.now()
    if not standing.why:
        _insert(connection, new, RunState.QUEUED, "", now)
        if new.executor is Executor.WORKER:
            ctx.queue.enqueue(connection, new.id, 1, store.partition(new.account_id, new.iam_id))
        _audit_start(connection, new, actor, {}, now)
        return True
    most = ctx.policy.runs.max_parked
    if store.count_parked(connection, new.account_id, new.iam_id, most) >= most:
        return False
    _insert(connection, new, RunState.WAITING_FOR_CREDENTIAL, PARKED_REASON[standing.why], now)
    prompts.open_for(ctx, connection, new.account_id, new.iam_id, standing.why, actor)
    _audit_start(connection, new, actor, {"waits_for": standing.why}, now)
    return True


def create_failed(
    ctx: Context, connection: sa.Connection, new: NewRun, actor: audit.Actor, reason: str
) -> None:
    """Record a run that could not even be queued, so that its owner sees that it did not happen, and why."""
    now = ctx.clock.now()
    _insert(connection, new, RunState.FAILED, reason[:512], now)
    _audit_start(connection, new, actor, {"failed": True}, now)


def get(ctx: Context, principal: Principal, run_id: str) -> RunView:
    """One of the caller's runs. Raises NotFoundError for other owners' runs too."""
    authorize(ctx, principal, Permission.RUN_READ, "run", run_id)
    with ctx.store.read() as connection:
        return find_own(connection, principal, run_id)


def list_own(
    ctx: Context,
    principal: Principal,
    *,
    state: RunState | None = None,
    schedule_id: str | None = None,
    after: str | None = None,
    limit: int = 50,
) -> tuple[list[RunView], str | None]:
    """The caller's runs, newest first, and the cursor of the next page (None at the end)."""
    authorize(ctx, principal, Permission.RUN_READ, "run")
    size = verify_limit(limit)
    before = read_cursor(after)
    with ctx.store.read() as connection:
        found = store.views(
            connection,
            _seen_by(principal),
            state=state,
            schedule_id=schedule_id,
            before=before,
            limit=size + 1,
        )
    return cut(found, size, lambda each: (each.created_at, each.id))


def cancel(ctx: Context, principal: Principal, run_id: str) -> RunView:
    """End a run: at once where it is queued or parked; a running one is asked, its executor ends the job.

    Cancelling twice is fine. Raises ConflictError (`run_ended`) where it has already ended otherwise.
    """
    authorize(ctx, principal, Permission.RUN_CANCEL, "run", run_id)
    now = ctx.clock.now()
    actor = actor_of(principal)
    with ctx.store.write() as connection:
        run = find_own(connection, principal, run_id)
        if run.state is RunState.CANCELLED or run.cancel_requested_at is not None:
            return run
        if run.state in FINAL_STATES:
            raise ConflictError(
                f"The run has already {run.state}.", hint="Only a run that has not ended.", code="run_ended"
            )
        if run.state is RunState.RUNNING:
            store.move(
                connection,
                run_id,
                (RunState.RUNNING,),
                cancel_requested_at=now,
                reason=cancelled_by(principal),
            )
        else:
            store.move(
                connection,
                run_id,
                _WAITING,
                state=RunState.CANCELLED,
                cancel_requested_at=now,
                ended_at=now,
                reason=cancelled_by(principal),
            )
            prompts.withdraw_unless_awaited(ctx, connection, run.account_id, run.iam_id, actor)
        audit.append(
            connection,
            audit.Event("run:cancel", "success", actor, run.account_id, run.iam_id, "run", run_id, run_id),
            now,
        )
        cancelled = find_own(connection, principal, run_id)
        _tell_cancelled(ctx, connection, cancelled)
        return cancelled


def cancelled_by(principal: Principal) -> str:
    """The reason of a run that `principal` cancels, as its owner reads it."""
    if principal.authentication is Authentication.SERVICE:
        return "Cancelled by the service that started it."
    return "Cancelled by its owner."


def _tell_cancelled(ctx: Context, connection: sa.Connection, run: RunView) -> None:
    told = {"run_id": run.id, "reference": run.reference}
    if run.state is RunState.CANCELLED:
        ended = {"state": run.state.value, "reason_text": run.reason}
        events.add(ctx, connection, run.service_id, "run.ended", {**told, **ended})
    else:
        events.add(ctx, connection, run.service_id, "run.cancel_requested", told)


def attempts(ctx: Context, principal: Principal, run_id: str) -> list[AttemptView]:
    """The attempts of one of the caller's runs, oldest first, without the tokens they were handed."""
    authorize(ctx, principal, Permission.RUN_READ, "run", run_id)
    with ctx.store.read() as connection:
        find_own(connection, principal, run_id)
        return attempt_store.of_run(connection, run_id)


def output(
    ctx: Context, principal: Principal, run_id: str, after: int = 0, attempt: int | None = None
) -> OutputView:
    """What the run has printed after the cursor `after`: of attempt number `attempt`, else of the latest.

    One call answers a bounded part; `finished` says that nothing will follow.
    """
    authorize(ctx, principal, Permission.RUN_READ, "run", run_id)
    with ctx.store.read() as connection:
        run = find_own(connection, principal, run_id)
        found = attempt_store.output(connection, run_id, after, attempt)
    if found is not None:
        return found
    if attempt is not None:
        raise NotFoundError(
            "The run has no such attempt.", hint="`taskcred run show`, or `GET /v1/runs/{id}`, counts them."
        )
    return OutputView("", 0, truncated=False, finished=run.state in FINAL_STATES)


def _insert(connection: sa.Connection, new: NewRun, state: RunState, reason: str, now: datetime) -> None:
    store.insert(
        connection,
        run_id=new.id,
        account_id=new.account_id,
        iam_id=new.iam_id,
        task=new.task,
        parameters=new.parameters,
        state=state,
        reason=reason,
        started_by=new.started_by,
        now=now,
        schedule_id=new.schedule_id,
        scheduled_for=new.scheduled_for,
        executor=new.executor,
        service_id=new.service_id,
        grant_id=new.grant_id,
        acting_iam_id=new.acting_iam_id,
        reference=new.reference,
        return_to=new.return_to,
    )


def _audit_start(
    connection: sa.Connection,
    new: NewRun,
    actor: audit.Actor,
    details: dict[str, Any],
    now: datetime,
) -> None:
    named = {
        "schedule_id": new.schedule_id,
        "service_id": new.service_id,
        "grant_id": new.grant_id,
        "acting_iam_id": new.acting_iam_id,
    }
    event = audit.Event(
        "run:start",
        "success",
        actor,
        new.account_id,
        new.iam_id,
        "run",
        new.id,
        new.id,
        {"task": new.task, **{name: value for name, value in named.items() if value}, **details},
    )
    audit.append(connection, event, now)


def find_own(connection: sa.Connection, principal: Principal, run_id: str) -> RunView:
    """One of the runs that are the caller's to see. Raises NotFoundError, for another's as for none."""
    found = store.views(connection, _seen_by(principal), run_id=run_id)
    if not found:
        raise NotFoundError(
            "There is no such run.", hint="`taskcred run list`, or `GET /v1/runs`, lists your runs."
        )
    return found[0]


def _seen_by(principal: Principal) -> sa.ColumnElement[bool]:
    if principal.authentication is Authentication.SERVICE:
        return store.seen_by_service(events.service_of(principal))
    return store.seen_by_owner(principal.account_id, principal.iam_id)
