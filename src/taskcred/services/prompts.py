"""Prompts: an owner without a usable task credential is asked for one, once, and told until they answer.

What the answer does is in `answering`.
"""

from __future__ import annotations

import uuid
from datetime import datetime
from typing import Any, Final

import sqlalchemy as sa

from taskcred.domain.permissions import Permission, Principal
from taskcred.domain.runs import Executor, PromptState, PromptView
from taskcred.errors import NotFoundError
from taskcred.services import events, notices
from taskcred.services.authorize import authorize
from taskcred.services.context import Context
from taskcred.services.cursors import cut, read_cursor, verify_limit
from taskcred.store import audit
from taskcred.store import notices as notice_store
from taskcred.store import prompts as store
from taskcred.store import runs as run_store

OPENED: Final = "prompt.opened"
REMINDER: Final = "prompt.reminder"
_MOST_TOLD: Final = 3  # openings; else a service that starts and cancels sends its owner a mail each time


def address(ctx: Context, prompt_id: str, run_id: str, return_to: str) -> str:
    """The prompt's page, as whoever started the run shows it to its owner. It names the run where that knows
    the way back."""
    page = f"{ctx.public_url}/prompts/{prompt_id}"
    return f"{page}?run={run_id}" if return_to else page


def open_for(
    ctx: Context,
    connection: sa.Connection,
    account_id: str,
    iam_id: str,
    why: str,
    actor: audit.Actor = audit.KEEPER,
) -> str:
    """The owner's open prompt, opened now if there is none; answers its id.

    Runs in the caller's transaction, so that what waits and the prompt for it commit together. `why` is
    "missing", "unusable" or "locked". The owner is told when it opens, unless just told of several that did,
    then daily (`remind_due`).
    """
    now = ctx.clock.now()
    row = store.find_open(connection, account_id, iam_id)
    if row is not None:
        if row.why != why:
            store.set_why(connection, row.id, why)
        return str(row.id)
    prompt_id = str(uuid.uuid4())
    repeat = ctx.policy.notices.repeat_prompt
    store.insert(connection, prompt_id, account_id, iam_id, why, now, now + repeat)
    if notice_store.count_since(connection, account_id, iam_id, OPENED, now - repeat) < _MOST_TOLD:
        notices.add(ctx, connection, account_id, iam_id, OPENED, _payload(prompt_id, why))
    _audit(connection, "prompt:open", actor, account_id, iam_id, prompt_id, now, {"why": why})
    return prompt_id


def settle(
    ctx: Context,
    connection: sa.Connection,
    account_id: str,
    iam_id: str,
    actor: audit.Actor,
) -> int:
    """The owner has a usable task credential: close the prompt, queue every parked run; answers how many.

    `actor` is who made it usable. Runs in the transaction that makes the credential usable. Touches rows of this owner only, so other
    owners' parked runs cost nothing.
    """
    now = ctx.clock.now()
    row = store.find_open(connection, account_id, iam_id)
    if row is not None:
        _close(connection, row, PromptState.ANSWERED, actor, now)
    queued = run_store.queue_parked(connection, account_id, iam_id, now)
    owner = run_store.partition(account_id, iam_id)
    for run in queued:
        if run.executor == Executor.WORKER:
            ctx.queue.enqueue(connection, run.id, run.dispatch_no + 1, owner)
        events.of_run(ctx, connection, run, "run.queued", why="prompt_answered")
    return len(queued)


def withdraw_unless_awaited(
    ctx: Context, connection: sa.Connection, account_id: str, iam_id: str, actor: audit.Actor
) -> None:
    """Close the owner's prompt where no parked run and no schedule needs an answer any more."""
    row = store.find_open(connection, account_id, iam_id)
    if row is not None and not store.is_awaited(connection, account_id, iam_id):
        _close(connection, row, PromptState.WITHDRAWN, actor, ctx.clock.now())


def list_own(
    ctx: Context,
    principal: Principal,
    *,
    state: PromptState | None = None,
    after: str | None = None,
    limit: int = 50,
) -> tuple[list[PromptView], str | None]:
    """The caller's prompts, newest first, and the cursor of the next page (None at the end)."""
    authorize(ctx, principal, Permission.PROMPT_READ, "prompt")
    size = verify_limit(limit)
    before = read_cursor(after)
    with ctx.store.read() as connection:
        found = store.of_owner(
            connection,
            principal.account_id,
            principal.iam_id,
            state=state,
            before=before,
            limit=size + 1,
        )
    return cut(found, size, lambda each: (each.opened_at, each.id))


def get(ctx: Context, principal: Principal, prompt_id: str) -> PromptView:
    """One of the caller's prompts. Raises NotFoundError for other owners' prompts too."""
    authorize(ctx, principal, Permission.PROMPT_READ, "prompt", prompt_id)
    with ctx.store.read() as connection:
        return find_own(connection, principal, prompt_id)


def remind_due(ctx: Context, limit: int = 100) -> int:
    """Tell the owners of long open prompts again; keeper. Answers how many were told."""
    now = ctx.clock.now()
    with ctx.store.read() as connection:
        if not store.due(connection, now, 1):
            return 0
    with ctx.store.write() as connection:
        rows = [
            row
            for row in store.due(connection, now, limit)
            if store.postpone(connection, row.id, row.notify_at, now + ctx.policy.notices.repeat_prompt)
        ]
        for row in rows:
            # One notice on the page is enough: the older one makes room.
            notice_store.withdraw(connection, row.account_id, row.iam_id, (OPENED, REMINDER), now)
            notices.add(ctx, connection, row.account_id, row.iam_id, REMINDER, _payload(row.id, row.why))
    return len(rows)


def _payload(prompt_id: str, why: str) -> dict[str, Any]:
    return {"prompt_id": prompt_id, "why": why}


def find_own(connection: sa.Connection, principal: Principal, prompt_id: str) -> PromptView:
    """One of the caller's prompts, within the caller's transaction. Raises NotFoundError for other owners'."""
    found = store.of_owner(connection, principal.account_id, principal.iam_id, prompt_id=prompt_id)
    if not found:
        raise NotFoundError(
            "There is no such prompt.",
            hint="`taskcred prompt list`, or `GET /v1/prompts`, lists your prompts.",
        )
    return found[0]


def _close(
    connection: sa.Connection, row: sa.Row[Any], state: PromptState, actor: audit.Actor, now: datetime
) -> None:
    store.close(connection, row.id, state, now)
    notice_store.withdraw(connection, row.account_id, row.iam_id, (OPENED, REMINDER), now)
    action = "prompt:answer" if state is PromptState.ANSWERED else "prompt:withdraw"
    _audit(connection, action, actor, row.account_id, row.iam_id, row.id, now, {})


def _audit(
    connection: sa.Connection,
    action: str,
    actor: audit.Actor,
    account_id: str,
    iam_id: str,
    prompt_id: str,
    now: datetime,
    details: dict[str, Any],
) -> None:
    event = audit.Event(action, "success", actor, account_id, iam_id, "prompt", prompt_id, details=details)
    audit.append(connection, event, now)
