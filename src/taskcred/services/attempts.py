"""Attempts: what whoever executes a run asks and reports. A stand-in key lives as long as its attempt."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

import sqlalchemy as sa

from taskcred.domain.keytext import STANDIN_KEY_PREFIX, new_key
from taskcred.domain.permissions import Authentication, Permission, Principal
from taskcred.domain.runs import FINAL_STATES, Executor, RunState
from taskcred.domain.secret import Secret
from taskcred.errors import ConflictError, ForbiddenError, NotFoundError, UnavailableError
from taskcred.services import events, prompts, tokens
from taskcred.services.authorize import actor_of, authorize
from taskcred.services.context import Context
from taskcred.services.endings import end_expired, find_run, finish, lost
from taskcred.services.reports import (
    append_output,
    cancel_requested,
    heartbeat,
    progress,
    set_launcher,
)
from taskcred.services.runs import PARKED_REASON
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
    cancelled   its owner ended it, or its grant has reached its date
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
    if principal.authentication is not Authentication.WORKER:
        raise ForbiddenError("Only a worker takes up dispatches.", hint="See services.executions.")
    with ctx.store.read() as connection:
        run = find_run(connection, run_id)
        standing = prompt_store.standing(connection, run.account_id, run.iam_id)
        refused = _refuse(connection, run, dispatch_no, principal.iam_id)
    if refused is not None:
        return refused
    ensured = None if standing.why else ensure_token(ctx, standing.credential_id)
    with ctx.store.write() as connection:
        run = find_run(connection, run_id)
        refused = _refuse(connection, run, dispatch_no, principal.iam_id)
        if refused is not None:
            return refused
        if run.state == RunState.QUEUED and end_expired(ctx, connection, run):
            return NotBegun("cancelled")
        standing = prompt_store.standing(connection, run.account_id, run.iam_id)
        if standing.why and run.state == RunState.QUEUED:
            park(ctx, connection, run, standing.why)
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


def _refuse(connection: sa.Connection, run: sa.Row[Any], dispatch_no: int, executor: str) -> NotBegun | None:
    if run.executor != Executor.WORKER:
        return NotBegun("superseded")  # it was never in line for a worker
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


def ensure_token(ctx: Context, credential_id: str | None) -> str | None:
    """The credential's id once a token of it is in the cache; None where it has just been refused.

    Talks to vault and provider: no transaction may be open."""
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
    live = store.live_of_run(connection, run.id)
    if live is None:
        return open_attempt(ctx, connection, run, credential_id, principal.iam_id, actor_of(principal))
    now = ctx.clock.now()
    key = new_key(STANDIN_KEY_PREFIX)
    store.set_key(connection, live.id, key.digest(), key.last_four, now)
    changes.append(connection, "attempt", live.id, now)
    return _begun(
        connection, run, live.id, live.number, key, credential_id, actor_of(principal), now, is_new=False
    )


def open_attempt(
    ctx: Context,
    connection: sa.Connection,
    run: sa.Row[Any],
    credential_id: str,
    executor: str,
    actor: audit.Actor,
    addresses: Sequence[str] | None = None,
) -> Begun:
    """A further attempt of a queued run, in the caller's transaction, with a fresh stand-in key.

    `executor` is who carries it out; the key works from the networks `addresses` only (None: from anywhere).
    """
    now = ctx.clock.now()
    key = new_key(STANDIN_KEY_PREFIX)
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
        executor=executor,
        standin_digest=key.digest(),
        standin_last_four=key.last_four,
        addresses=None if addresses is None else list(addresses),
        now=now,
    )
    return _begun(connection, run, attempt_id, number, key, credential_id, actor, now, is_new=True)


def _begun(
    connection: sa.Connection,
    run: sa.Row[Any],
    attempt_id: str,
    number: int,
    key: Secret,
    credential_id: str,
    actor: audit.Actor,
    now: datetime,
    *,
    is_new: bool,
) -> Begun:
    details = {"number": number, "credential_id": credential_id, "new_key": not is_new}
    event = audit.Event(
        "attempt:begin",
        "success",
        actor,
        run.account_id,
        run.iam_id,
        "attempt",
        attempt_id,
        run.id,
        details,
    )
    audit.append(connection, event, now)
    return Begun(attempt_id, run.id, number, key, run.task, run.parameters, run.account_id, run.iam_id)


def park(ctx: Context, connection: sa.Connection, run: sa.Row[Any], why: str) -> str:
    """A queued run waits for its owner's task credential from now on; answers the prompt's id."""
    run_store.move(
        connection,
        run.id,
        (RunState.QUEUED,),
        run.dispatch_no,
        state=RunState.WAITING_FOR_CREDENTIAL,
        reason=PARKED_REASON[why],
    )
    prompt_id = prompts.open_for(ctx, connection, run.account_id, run.iam_id, why)
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
    events.of_run(ctx, connection, run, "run.waiting", prompt_id=prompt_id)
    return prompt_id
