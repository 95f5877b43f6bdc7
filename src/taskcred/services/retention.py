"""Forgetting: ended runs with their output, closed prompts and notices, finished changes, ended grants, and
what services were told; keeper.

Audit events stay. Work is done in small transactions, since there is one write lock: a hundred rows
hold it for a millisecond or two.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Final

import sqlalchemy as sa

from taskcred.services.context import Context
from taskcred.store import events, grants, intents, notices, prompts, runs

_BATCH: Final = 100
_EVENTS: Final = timedelta(days=30)  # a service that polls may be away for so long


def sweep(ctx: Context, batches: int = 100) -> int:
    """Forget what is older than `policy.runs.retention`, at most `batches` transactions for each kind.

    Answers how many rows went: runs (with their attempts and output), prompts, notices, intents, grants,
    events of services (after 30 days).
    """
    now = ctx.clock.now()
    before = now - ctx.policy.runs.retention
    return sum(
        _in_batches(ctx, batches, forget)
        for forget in (
            lambda connection: runs.forget_ended(connection, before, _BATCH),
            lambda connection: prompts.forget_closed(connection, before, _BATCH),
            lambda connection: notices.forget_closed(connection, before, _BATCH),
            lambda connection: intents.forget_ended(connection, before, _BATCH),
            lambda connection: grants.forget_ended(connection, before, _BATCH),
            lambda connection: events.forget(connection, now - _EVENTS, _BATCH),
        )
    )


def _in_batches(ctx: Context, batches: int, forget: Callable[[sa.Connection], int]) -> int:
    total = 0
    for _ in range(batches):
        with ctx.store.write() as connection:
            gone = forget(connection)
        total += gone
        if gone < _BATCH:
            break
    return total
