"""The door every use case passes first."""

from __future__ import annotations

from taskcred.domain.permissions import Authentication, Permission, Principal, decide_permission
from taskcred.errors import ForbiddenError
from taskcred.services.context import Context
from taskcred.store import audit

_ACTOR_KINDS: dict[Authentication, audit.ActorKind] = {
    Authentication.SESSION: "person",
    Authentication.INTERACTIVE: "person",
    Authentication.PROGRAMMATIC: "program",
    Authentication.RUN_TOKEN: "run",
    Authentication.WORKER: "worker",
    Authentication.SERVICE: "service",
}


def actor_of(principal: Principal) -> audit.Actor:
    """The principal as audit events name it: a person who acts for a service id by their own id."""
    return audit.Actor(
        principal.actor_id, _ACTOR_KINDS[principal.authentication], principal.request_id, principal.address
    )


def authorize(
    ctx: Context, principal: Principal, permission: Permission, target_type: str = "", target_id: str = ""
) -> None:
    """Return where the table allows it; else record the refusal and raise ForbiddenError."""
    denied = decide_permission(permission, principal, ctx.clock.now())
    if denied is None:
        return
    record_refusal(ctx, principal, permission, target_type, target_id, denied.code)
    action_url = None
    if denied.code in {"fresh_sign_in_required", "programmatic_token"}:
        action_url = f"{ctx.public_url}/sign-in"
    raise ForbiddenError(denied.message, hint=denied.hint, code=denied.code, action_url=action_url)


def record_refusal(
    ctx: Context, principal: Principal, action: str, target_type: str, target_id: str, why: str
) -> None:
    """An audit event for something that was asked for and refused, in a transaction of its own."""
    now = ctx.clock.now()
    event = audit.Event(
        action,
        "refused",
        actor_of(principal),
        principal.account_id,
        principal.iam_id,
        target_type,
        target_id,
        details={"why": why},
    )
    with ctx.store.write(shared=True) as connection:
        audit.append(connection, event, now)
