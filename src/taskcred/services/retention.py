"""Forgetting: ended runs with their output, closed prompts and notices, finished changes; keeper.

Audit events stay. Work is done in small transactions, since SQLite has one write lock: a hundred rows
hold it for a millisecond or two.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import sqlalchemy as sa

from taskcred.services.context import Context
from taskcred.store import intents, notices, prompts, runs

_BATCH: Final = 100


def sweep(ctx: Context, batches: int = 100) -> int:
    """Forget what is older than `policy.runs.retention`, at most `batches` transactions for each kind.

    Answers how many rows went: runs (with their attempts and output), prompts, notices, intents.
    """
    before = ctx.clock.now() - ctx.policy.runs.retention
    return sum(
        _in_batches(ctx, batches, forget)
        for forget in (
            lambda connection: runs.forget_ended(connection, before, _BATCH),
            lambda connection: prompts.forget_closed(connection, before, _BATCH),
            lambda connection: notices.forget_closed(connection, before, _BATCH),
            lambda connection: intents.forget_ended(connection, before, _BATCH),
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
