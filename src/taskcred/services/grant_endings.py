"""How grants end: withdrawn, with their service, or on their date; and who is told."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

import sqlalchemy as sa

from taskcred.domain.grants import GrantEnd, GrantState, GrantView
from taskcred.domain.runs import AttemptOutcome, RunState
from taskcred.services import endings, events, notices, prompts
from taskcred.services.context import Context
from taskcred.store import attempts as attempt_store
from taskcred.store import audit
from taskcred.store import grants as store
from taskcred.store import notices as notice_store
from taskcred.store import runs as run_store

ENDED_REASON: Final = "The grant it was started under was ended."
EXPIRED: Final = "expired"  # the reason that services are told, beside those of GrantEnd
_EXPIRING: Final = "grant_expiring"
_WHY: Final = {
    GrantEnd.SERVICE_ENDED: "an operator has removed the service.",
    GrantEnd.OPERATOR: "an operator has ended it.",
}


def end(
    ctx: Context, connection: sa.Connection, grant: GrantView, reason: GrantEnd, actor: audit.Actor
) -> None:
    """End a grant and all that it carries, in the caller's transaction; nothing where it has ended before.

    It is in the revocation log before it is committed: an older backup must not bring it back.
    """
    now = ctx.clock.now()
    if not store.close(connection, grant.id, GrantState.ENDED, reason, now):
        return
    ctx.revocations.append("grant", grant.id, grant.account_id, grant.iam_id)
    end_runs(ctx, connection, grant, actor)
    tell_ended(ctx, connection, grant, reason, actor)
    if reason in _WHY:
        said = {"grant_id": grant.id, "service": grant.service_title, "why": _WHY[reason]}
        notices.add(ctx, connection, grant.account_id, grant.iam_id, "grant_ended", said)


def end_of_service(
    ctx: Context, connection: sa.Connection, service_id: str, actor: audit.Actor = audit.OPERATOR
) -> int:
    """End every active grant of a service that ends, in the caller's transaction. Their owners are told.
    Answers how many."""
    found = store.active_of_service(connection, service_id, ctx.clock.now())
    for grant in found:
        end(ctx, connection, grant, GrantEnd.SERVICE_ENDED, actor)
    return len(found)


def end_restored(connection: sa.Connection, grant: GrantView, now: datetime) -> None:
    """End an active grant of a restored backup that was ended since, or may have been, and all that it
    carries. No process runs on these records yet: nobody is to be told but the audit trail."""
    store.close(connection, grant.id, GrantState.ENDED, GrantEnd.OPERATOR, now)
    details = {"service_id": grant.service_id, "reason": GrantEnd.OPERATOR.value}
    record(connection, "grant:end", audit.OPERATOR, grant, details, now)
    for run in store.unfinished_runs(connection, grant.id):
        live = attempt_store.live_of_run(connection, run.id)
        if live is not None:
            attempt_store.end(connection, live.id, AttemptOutcome.CANCELLED, ENDED_REASON, None, now)
        run_store.move(
            connection,
            run.id,
            (RunState(run.state),),
            state=RunState.CANCELLED,
            ended_at=now,
            reason=ENDED_REASON,
        )
        event = audit.Event(
            "run:end",
            "success",
            audit.OPERATOR,
            run.account_id,
            run.iam_id,
            "run",
            run.id,
            run.id,
            {"state": RunState.CANCELLED.value},
        )
        audit.append(connection, event, now)


def expire_due(ctx: Context, limit: int = 100) -> int:
    """Record that grants have reached their date, and tell their services; keeper. Answers how many."""
    now = ctx.clock.now()
    with ctx.store.read() as connection:
        if not store.passed(connection, now, 1):
            return 0
    with ctx.store.write() as connection:
        found = store.passed(connection, now, limit)
        for grant in found:
            store.close(connection, grant.id, GrantState.EXPIRED, None, now)
            tell_ended(ctx, connection, grant, EXPIRED, audit.KEEPER)
    return len(found)


def remind_due(ctx: Context, limit: int = 100) -> int:
    """Tell owners a week before that a grant expires; keeper. Answers how many. Who gave a grant for a week
    or less knows."""
    now = ctx.clock.now()
    with ctx.store.read() as connection:
        if not store.to_remind_of(connection, now, 1):
            return 0
    with ctx.store.write() as connection:
        found = store.to_remind_of(connection, now, limit)
        for grant in found:
            store.set_reminded(connection, grant.id)
            said = {
                "grant_id": grant.id,
                "service": grant.service_title,
                "service_id": grant.service_id,
                "tasks": ",".join(grant.tasks),
                "until": f"{grant.expires_at:%Y-%m-%d %H:%M} UTC",
            }
            notices.add(ctx, connection, grant.account_id, grant.iam_id, _EXPIRING, said)
    return len(found)


def end_runs(
    ctx: Context, connection: sa.Connection, grant: GrantView, actor: audit.Actor, besides: Sequence[str] = ()
) -> None:
    """Cancel what has not ended under the grant, but for the tasks `besides`, and kill the keys it holds."""
    runs = store.unfinished_runs(connection, grant.id, besides)
    for run in runs:
        endings.cancel(ctx, connection, run, ENDED_REASON, actor)
    if runs:
        prompts.withdraw_unless_awaited(ctx, connection, grant.account_id, grant.iam_id, actor)


def tell_ended(
    ctx: Context, connection: sa.Connection, grant: GrantView, reason: str, actor: audit.Actor
) -> None:
    """The service, and the audit trail; what the owner was told about its date is no longer true."""
    now = ctx.clock.now()
    events.add(ctx, connection, grant.service_id, "grant.ended", {**ids(grant), "reason": reason})
    action = "grant:expire" if reason == EXPIRED else "grant:end"
    record(connection, action, actor, grant, {"service_id": grant.service_id, "reason": reason}, now)
    for notice in notice_store.of_owner(connection, grant.account_id, grant.iam_id, unread=True, limit=200):
        if notice.kind == _EXPIRING and notice.payload["grant_id"] == grant.id:
            notice_store.mark_read(connection, notice.id, grant.account_id, grant.iam_id, now)


def ids(grant: GrantView) -> dict[str, Any]:
    """Which grant, and whose, as services are told."""
    return {"grant_id": grant.id, "account_id": grant.account_id, "iam_id": grant.iam_id}


def record(
    connection: sa.Connection,
    action: str,
    actor: audit.Actor,
    grant: GrantView,
    details: dict[str, Any],
    now: datetime,
) -> None:
    """An audit event about a grant."""
    event = audit.Event(
        action, "success", actor, grant.account_id, grant.iam_id, "grant", grant.id, details=details
    )
    audit.append(connection, event, now)
