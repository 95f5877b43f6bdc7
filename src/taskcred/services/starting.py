"""Starting runs for services: by an owner's own interactive access token, or under a grant of theirs.

The access token (`subject_token`, RFC 8693) is verified by whoever calls, and never kept.
"""

from __future__ import annotations

import math
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, Final

import sqlalchemy as sa

from taskcred.domain.grants import GrantView
from taskcred.domain.permissions import Denied, Permission, Principal
from taskcred.domain.runs import Executor, RunView
from taskcred.domain.services import leads_back
from taskcred.domain.starts import decide_service, decide_subject
from taskcred.domain.tasks import TaskKind
from taskcred.errors import ForbiddenError, InvalidRequestError, NotFoundError, RateLimitedError
from taskcred.services import events, grants, runs
from taskcred.services.authorize import actor_of, authorize
from taskcred.services.context import Context
from taskcred.services.parameters import verify_parameters
from taskcred.store import audit, services, sessions
from taskcred.store import grants as grant_store
from taskcred.store import runs as run_store

_WINDOW: Final = timedelta(minutes=1)
_MOST_RECORDED: Final = 10  # refusals of one service in one owner's audit trail within the window
_LOOKED_AT: Final = 100  # the owner's latest events, to count them


def start(
    ctx: Context,
    principal: Principal,
    *,
    task: str,
    parameters: dict[str, Any],
    subject: Principal | None = None,
    grant_id: str | None = None,
    reference: str = "",
    return_to: str = "",
) -> RunView:
    """Start a run for the owner of the access token that the service `principal` showed (`subject`), or of
    the grant it names: exactly one of the two.

    A task of kind external is the service's own to carry out, any other goes to a worker. `return_to` is where
    the owner is led after they answered the run's prompt, one of the service's callback URLs. Raises
    InvalidRequestError (`invalid_return_to`), ForbiddenError (`service_disabled`, `task_not_allowed`, `executor_not_allowed`; `programmatic_token`,
    `run_token`; `grant_ended`, `grant_expired`, `task_not_granted`), NotFoundError for a grant it was not
    given, RateLimitedError, and what `runs.start` raises.
    """
    authorize(ctx, principal, Permission.RUN_START, "task", task[:64])
    service_id = events.service_of(principal)
    with ctx.store.read() as connection:
        owner = subject or _giver(connection, service_id, grant_id, ctx.clock.now())
    new = runs.NewRun(
        owner.account_id,
        owner.iam_id,
        task,
        parameters,
        principal.iam_id,
        service_id=service_id,
        grant_id=grant_id,
        acting_iam_id=owner.acting_iam_id,
        reference=reference,
        return_to=return_to,
    )
    try:
        return _start(ctx, principal, new, service_id, subject)
    except ForbiddenError as error:
        _record_refusal(ctx, principal, new, error.error_code)
        raise


def _start(
    ctx: Context, principal: Principal, new: runs.NewRun, service_id: str, subject: Principal | None
) -> RunView:
    with ctx.store.read() as connection:
        _verify_service(connection, service_id, new, None)
    if subject is not None:
        _verify(decide_subject(subject.authentication))
    chosen = runs.find_task(ctx, new.task)
    verify_parameters(chosen, new.parameters)
    executor = Executor.SERVICE if chosen.kind is TaskKind.EXTERNAL else Executor.WORKER
    with ctx.store.write() as connection:
        # Asked again: service or grant may have been ended meanwhile.
        most = _verify_service(connection, service_id, new, executor)
        if new.grant_id is not None:
            grants.find_for_service(ctx, connection, service_id, new.grant_id, new.task)
        _limit(ctx, connection, service_id, most)
        if subject is not None and subject.email:
            # Who has never signed in here can be told by mail all the same that a run waits for them.
            sessions.remember_owner(connection, subject.iam_id, subject.email, subject.name, ctx.clock.now())
        return runs.start_new(ctx, connection, principal, replace(new, executor=executor))


def _giver(connection: sa.Connection, service_id: str, grant_id: str | None, now: datetime) -> GrantView:
    """The grant, whatever its state; it says whose run it would be."""
    grant = None if grant_id is None else grant_store.find(connection, grant_id, now)
    if grant is None or grant.service_id != service_id:
        raise NotFoundError(
            "This service was given no such grant.",
            hint="`GET /v1/grants` lists its grants; an owner gives one on the page of consent.",
        )
    return grant


def _verify_service(
    connection: sa.Connection, service_id: str, new: runs.NewRun, executor: Executor | None
) -> int:
    """How many runs the service may start in a minute. Raises ForbiddenError where it may not start this, and
    InvalidRequestError where its owner could not be led back as it asks."""
    service = services.find(connection, service_id)
    if service is None:
        raise NotFoundError("There is no such service.", hint="The operator registers it anew.")
    _verify(decide_service(service.state, service.tasks, service.executors, new.task, executor))
    if new.return_to and not leads_back(service.callback_urls, new.return_to):
        # Not the URL itself: whatever is in it was not meant for logs.
        raise InvalidRequestError(
            "return_to is not one of the callback URLs that this service is registered with.",
            hint="It must be equal to one of them in every character; the operator or an administrator of the "
            "service adds it.",
            code="invalid_return_to",
            field="return_to",
        )
    return int(service.starts_per_minute)


def _verify(denied: Denied | None) -> None:
    if denied is not None:
        raise ForbiddenError(denied.message, hint=denied.hint, code=denied.code)


def _limit(ctx: Context, connection: sa.Connection, service_id: str, most: int) -> None:
    now = ctx.clock.now()
    first = run_store.started_since(connection, service_id, now - _WINDOW, most)
    if first is not None:
        wait = math.ceil((first + _WINDOW - now).total_seconds())
        raise RateLimitedError(
            f"This service may start {most} runs in a minute, and has.", retry_after=max(1, wait)
        )


def _record_refusal(ctx: Context, principal: Principal, new: runs.NewRun, why: str) -> None:
    """The refusal is in the audit trail of the owner it concerns, unless enough like it are: a service that tries
    on and on must neither bury what else happened to its owner nor keep the records' one writer busy."""
    event = audit.Event(
        Permission.RUN_START.value,
        "refused",
        actor_of(principal),
        new.account_id,
        new.iam_id,
        "task",
        new.task[:64],
        details={"why": why, "service_id": new.service_id, "grant_id": new.grant_id},
    )
    now = ctx.clock.now()
    with ctx.store.read() as connection:
        recorded = audit.count_alike(connection, event, now - _WINDOW, _LOOKED_AT)
    if recorded < _MOST_RECORDED:
        with ctx.store.write(shared=True) as connection:
            audit.append(connection, event, now)
