"""Replays: the same Idempotency-Key with the same request gets the same answer, and does the thing once.

A key belongs to its owner and route and is kept for a day. A request that was refused changed nothing, so
its key may be used again. One whose process died before the answer was kept stays "under way": whether it
took effect is not guessed, and a repetition is refused with the advice to look.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

from taskcred.domain.permissions import Principal
from taskcred.domain.secret import Secret
from taskcred.errors import ConflictError, PolicyViolationError, TaskcredError
from taskcred.services.context import Context
from taskcred.store import idempotency as rows

KEPT_FOR: Final = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Answer:
    """A route's answer. `body` is JSON; `shown_once` names members that are told once and never kept."""

    status: int
    body: dict[str, Any]
    shown_once: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Replayed:
    """An answer that was given before; nothing was done now."""

    status: int
    body: dict[str, Any]


def once(
    ctx: Context,
    principal: Principal,
    route: str,
    key: str,
    request: object,
    work: Callable[[], Answer],
) -> Answer | Replayed:
    """`work`'s answer, or the one kept from the first time. `request` is what was asked, as JSON values.

    Raises ConflictError (code idempotency_in_progress) while the first request is under way, and
    PolicyViolationError (code idempotency_key_reused) where the key came with another request.
    """
    now = ctx.clock.now()
    name = rows.Request(principal.account_id, principal.iam_id, route, key)
    # Keyed, for a request may hold an API key.
    digest = ctx.sealer.keyed_digest(Secret(json.dumps(request, sort_keys=True)))
    with ctx.store.write() as connection:
        kept = rows.find(connection, name)
        if kept is not None and now - kept.created_at > KEPT_FOR:
            rows.delete(connection, name)
            kept = None
        if kept is None:
            rows.add(connection, name, digest, now)
    if kept is not None:
        return _replay(kept, digest)
    try:
        answer = work()
    except TaskcredError:
        # Refused, or a part was away: nothing was changed (errors.py), and the same key may be used again.
        with ctx.store.write() as connection:
            rows.delete(connection, name)
        raise
    keep = {member: value for member, value in answer.body.items() if member not in answer.shown_once}
    with ctx.store.write() as connection:
        rows.answer(connection, name, answer.status, keep)
    return answer


def sweep(ctx: Context) -> int:
    """Forget keys older than a day; how many there were. The keeper's."""
    with ctx.store.write() as connection:
        return rows.delete_older(connection, ctx.clock.now() - KEPT_FOR)


def _replay(kept: rows.Kept, digest: bytes) -> Replayed:
    if kept.request_digest != digest:
        raise PolicyViolationError(
            "This Idempotency-Key was used for another request.",
            hint="Use a new key for a new request.",
            code="idempotency_key_reused",
        )
    if kept.status is None or kept.body is None:
        raise ConflictError(
            "The first request with this Idempotency-Key is still under way, or its answer was lost.",
            hint="Look whether it took effect before asking again with a new key.",
            code="idempotency_in_progress",
        )
    return Replayed(kept.status, kept.body)
