"""Grants: an owner consents, once, that one service starts runs of named tasks until a date.

A new consent to the same service replaces the one before. What was started under the replaced grant goes
on under the new one where its task is still granted, so that widening or renewing a grant interrupts
nothing; what the owner has left out is ended like by a withdrawal.

A grant that has reached its date starts nothing more; what runs then goes on to its end. A grant that is
ended takes everything with it, in one transaction: keys of live attempts, running jobs, runs that wait.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import urlencode

import sqlalchemy as sa

from taskcred.domain.grants import (
    DEFAULT_DAYS,
    LONGEST_DAYS,
    REMIND_BEFORE,
    GrantEnd,
    GrantState,
    GrantView,
)
from taskcred.domain.permissions import Authentication, Permission, Principal
from taskcred.domain.runs import RunState
from taskcred.errors import ConflictError, ForbiddenError, InvalidRequestError, NotFoundError
from taskcred.services import events, grant_endings
from taskcred.services.authorize import actor_of, authorize
from taskcred.services.context import Context
from taskcred.services.cursors import cut, read_cursor, verify_limit
from taskcred.store import grants as store


@dataclass(frozen=True, slots=True)
class UnderWay:
    """A run that has not ended."""

    run_id: str
    task: str
    state: RunState
    created_at: datetime


def give(
    ctx: Context,
    principal: Principal,
    *,
    service_id: str,
    tasks: Sequence[str],
    days: int = DEFAULT_DAYS,
) -> GrantView:
    """Consent that the service starts runs of `tasks` for the caller, for `days` days (1 to 365).

    Needs a fresh interactive sign-in. Raises NotFoundError (no such service), ConflictError
    (`service_not_active`) and InvalidRequestError (`task_not_offered`: not one of the service's tasks).
    """
    authorize(ctx, principal, Permission.GRANT_GIVE, "service", service_id[:64])
    wanted = sorted(set(tasks))
    if not 1 <= days <= LONGEST_DAYS:
        raise InvalidRequestError(
            f"A grant lasts 1 to {LONGEST_DAYS} days.", hint="Choose fewer days and renew it.", field="days"
        )
    grant_id, life = str(uuid.uuid4()), timedelta(days=days)
    actor = actor_of(principal)
    with ctx.store.write() as connection:
        now = ctx.clock.now()
        verify_offer(ctx, connection, service_id, wanted)
        before = store.find_active(connection, service_id, principal.account_id, principal.iam_id, now)
        if before is not None:
            passed = before.state is GrantState.EXPIRED
            # An older backup must not bring back what the owner leaves out now.
            ctx.revocations.append("grant", before.id, before.account_id, before.iam_id)
            store.close(
                connection,
                before.id,
                GrantState.EXPIRED if passed else GrantState.ENDED,
                None if passed else GrantEnd.REPLACED,
                now,
            )
        store.insert(
            connection,
            grant_id=grant_id,
            account_id=principal.account_id,
            iam_id=principal.iam_id,
            acting_iam_id=principal.acting_iam_id,
            service_id=service_id,
            tasks=wanted,
            now=now,
            expires_at=now + life,
            remind_at=now + life - REMIND_BEFORE if life > REMIND_BEFORE else None,
        )
        given = _own(connection, principal, grant_id, now)
        if before is not None:
            grant_endings.end_runs(ctx, connection, before, actor, besides=wanted)
            store.hand_over_runs(connection, before.id, grant_id)
            grant_endings.tell_ended(
                ctx, connection, before, "expired" if passed else GrantEnd.REPLACED, actor
            )
        events.add(
            ctx,
            connection,
            service_id,
            "grant.given",
            {**grant_endings.ids(given), "tasks": wanted, "expires_at": given.expires_at.isoformat()},
        )
        details = {"service_id": service_id, "tasks": wanted, "days": days}
        grant_endings.record(connection, "grant:give", actor, given, details, now)
        return given


def end(ctx: Context, principal: Principal, grant_id: str) -> GrantView:
    """Withdraw a grant of the caller's. When this returns, every key of what runs under it is dead, its
    jobs are being ended, what waited is cancelled, and the service finds all of it among its events.

    Ending twice is fine. Raises NotFoundError for other owners' grants too.
    """
    authorize(ctx, principal, Permission.GRANT_END, "grant", grant_id)
    actor = actor_of(principal)
    with ctx.store.write() as connection:
        now = ctx.clock.now()
        grant = _own(connection, principal, grant_id, now)
        grant_endings.end(ctx, connection, grant, GrantEnd.OWNER, actor)
        return _own(connection, principal, grant_id, now)


def list_own(
    ctx: Context, principal: Principal, *, after: str | None = None, limit: int = 50
) -> tuple[list[GrantView], str | None]:
    """The grants the caller gave, or was given where it is a service, newest first, and the cursor of the
    next page (None at the end)."""
    authorize(ctx, principal, Permission.GRANT_READ, "grant")
    size = verify_limit(limit)
    before = read_cursor(after)
    now = ctx.clock.now()
    with ctx.store.read() as connection:
        if principal.authentication is Authentication.SERVICE:
            service_id = events.service_of(principal)
            found = store.of_service(connection, service_id, now=now, before=before, limit=size + 1)
        else:
            found = store.of_owner(
                connection,
                principal.account_id,
                principal.iam_id,
                now=now,
                before=before,
                limit=size + 1,
            )
    return cut(found, size, lambda each: (each.created_at, each.id))


def get(ctx: Context, principal: Principal, grant_id: str) -> GrantView:
    """A grant the caller gave, or was given where it is a service. Raises NotFoundError."""
    authorize(ctx, principal, Permission.GRANT_READ, "grant", grant_id)
    with ctx.store.read() as connection:
        return _own(connection, principal, grant_id, ctx.clock.now())


def under_way(ctx: Context, principal: Principal, grant_id: str) -> list[UnderWay]:
    """What has not ended under a grant of the caller's, oldest first: what its end would stop."""
    authorize(ctx, principal, Permission.GRANT_READ, "grant", grant_id)
    with ctx.store.read() as connection:
        _own(connection, principal, grant_id, ctx.clock.now())
        return [
            UnderWay(row.id, row.task, RunState(row.state), row.created_at)
            for row in store.unfinished_runs(connection, grant_id)
        ]


def find_for_service(
    ctx: Context, connection: sa.Connection, service_id: str, grant_id: str, task: str
) -> GrantView:
    """The grant under which the service may start `task` now; its use is recorded, in the caller's
    transaction.

    Raises NotFoundError (none, or another service's), ForbiddenError (`grant_ended`, `grant_expired`,
    `task_not_granted`).
    """
    now = ctx.clock.now()
    grant = store.find(connection, grant_id, now)
    if grant is None or grant.service_id != service_id:
        raise _unknown()
    asked = {"service": service_id, "tasks": ",".join(sorted({*grant.tasks, task}))}
    consent = f"{ctx.public_url}/grants/new?{urlencode(asked)}"
    if grant.state is GrantState.ENDED:
        raise ForbiddenError(
            "This grant was ended.",
            hint="Ask its owner for a new one: lead them to the consent page.",
            code="grant_ended",
            action_url=consent,
        )
    if grant.state is GrantState.EXPIRED:
        raise ForbiddenError(
            "This grant has expired.",
            hint="Ask its owner to renew it: lead them to the consent page.",
            code="grant_expired",
            action_url=consent,
        )
    if task not in grant.tasks:
        raise ForbiddenError(
            "Its owner did not grant this task.",
            hint="Ask for a grant that names it: lead the owner to the consent page.",
            code="task_not_granted",
            action_url=consent,
        )
    store.set_used(connection, grant_id, now)
    return grant


def verify_offer(
    ctx: Context, connection: sa.Connection, service_id: str, tasks: Sequence[str]
) -> sa.Row[Any]:
    """The row of the service that `tasks` may be granted to. Raises what `give` raises."""
    service = store.find_service(connection, service_id)
    if service is None or service.state == "ended":
        raise NotFoundError(
            "There is no such service.",
            hint="Check its client id, or follow the link that the service gave you once more.",
        )
    if service.state != "active":
        raise ConflictError(
            "This service is disabled at present.",
            hint="Ask its administrator; come back when it is enabled.",
            code="service_not_active",
        )
    unknown = [name for name in tasks if name not in service.tasks or name not in ctx.tasks]
    if unknown or not tasks:
        raise InvalidRequestError(
            f"The service may not start the task {unknown[0][:64]!r}." if unknown else "No task is named.",
            hint="Ask whoever runs the service for the names of its tasks; the operator registers it for more.",
            code="task_not_offered",
            field="tasks",
        )
    return service


def _own(connection: sa.Connection, principal: Principal, grant_id: str, now: datetime) -> GrantView:
    grant = store.find(connection, grant_id, now)
    if grant is not None:
        if principal.authentication is Authentication.SERVICE:
            if grant.service_id == events.service_of(principal):
                return grant
        elif (grant.account_id, grant.iam_id) == (principal.account_id, principal.iam_id):
            return grant
    raise _unknown()


def _unknown() -> NotFoundError:
    return NotFoundError(
        "There is no such grant.", hint="`taskcred grant list`, or `GET /v1/grants`, lists your grants."
    )
