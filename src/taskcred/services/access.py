"""What runs hold: the owner sees who got tokens when, and can end it."""

from __future__ import annotations

import secrets
from typing import Final

from taskcred.domain.permissions import Permission, Principal
from taskcred.domain.runs import AttemptView, Executor
from taskcred.errors import NotFoundError
from taskcred.services import endings
from taskcred.services.authorize import actor_of, authorize
from taskcred.services.context import Context
from taskcred.services.runs import find_own
from taskcred.store import access, audit, changes
from taskcred.store.access import LiveAccess

__all__ = ["LiveAccess", "end_access", "live_access", "run_access"]
_ENDED: Final = "Its owner ended its access."


def live_access(ctx: Context, principal: Principal) -> list[LiveAccess]:
    """The caller's attempts that hold a stand-in key now, with their live tokens."""
    authorize(ctx, principal, Permission.TOKEN_READ, "attempt")
    with ctx.store.read() as connection:
        return access.live_of_owner(connection, principal.account_id, principal.iam_id, ctx.clock.now())


def run_access(ctx: Context, principal: Principal, run_id: str) -> list[AttemptView]:
    """Every attempt of one of the caller's runs, with the times of what it was handed."""
    authorize(ctx, principal, Permission.RUN_READ, "run", run_id)
    with ctx.store.read() as connection:
        find_own(connection, principal, run_id)
        return access.attempts_of(connection, run_id)


def end_access(ctx: Context, principal: Principal, attempt_id: str) -> None:
    """Take an attempt's stand-in key away, at once and everywhere; what its job already received lives until
    it expires.

    A job of a worker goes on without it, and fails where it needs a token. Elsewhere the run is cancelled with
    it: a service that is refused would only begin another attempt, with another key.
    """
    authorize(ctx, principal, Permission.TOKEN_END, "attempt", attempt_id)
    actor = actor_of(principal)
    with ctx.store.write() as connection:
        now = ctx.clock.now()
        attempt = access.live_attempt(connection, attempt_id)
        if attempt is None or attempt[1:] != (principal.account_id, principal.iam_id):
            raise NotFoundError("There is no such attempt with access now.", hint="List your live tokens.")
        event = audit.Event(
            "token:end",
            "success",
            actor,
            principal.account_id,
            principal.iam_id,
            "attempt",
            attempt_id,
            attempt[0],
        )
        audit.append(connection, event, now)
        run = endings.find_run(connection, attempt[0])
        if run.executor == Executor.WORKER:
            access.forget_standin(connection, attempt_id, secrets.token_bytes(32))
            changes.append(connection, "attempt", attempt_id, now)
        else:
            endings.cancel(ctx, connection, run, _ENDED, actor)
