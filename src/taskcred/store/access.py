"""Queries about what attempts were handed."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection
from dataclasses import dataclass, replace
from datetime import datetime

import sqlalchemy as sa

from taskcred.domain.runs import AttemptView, Executor, TokenHandOut
from taskcred.store import attempts
from taskcred.store import tables as t
from taskcred.store.service_tables import services


@dataclass(frozen=True, slots=True)
class LiveAccess:
    """An attempt that holds a stand-in key now, and the tokens it received that are still alive."""

    attempt_id: str
    run_id: str
    task: str
    number: int
    executor: str
    standin_last_four: str
    started_at: datetime
    tokens: tuple[TokenHandOut, ...]
    service_name: str | None  # the service that carries it out


def _handed_out(
    connection: sa.Connection, attempt_ids: Collection[str]
) -> dict[str, tuple[TokenHandOut, ...]]:
    c = t.attempt_tokens.c
    rows = connection.execute(
        sa.select(t.attempt_tokens).where(c.attempt_id.in_(attempt_ids)).order_by(c.first_at)
    )
    found: defaultdict[str, list[TokenHandOut]] = defaultdict(list)
    for row in rows:
        item = TokenHandOut(row.key_id, row.first_at, row.last_at, row.uses, row.expires_at)
        found[row.attempt_id].append(item)
    return {attempt_id: tuple(items) for attempt_id, items in found.items()}


def live_of_owner(connection: sa.Connection, account_id: str, iam_id: str, now: datetime) -> list[LiveAccess]:
    """The owner's attempts that hold a stand-in key, oldest first."""
    a, r, s = t.attempts.c, t.runs.c, services.c
    rows = connection.execute(
        sa.select(t.attempts, r.task, s.name, s.title)
        .join(t.runs, r.id == a.run_id)
        .outerjoin(services, sa.and_(s.id == r.service_id, r.executor == Executor.SERVICE))
        .where(
            r.account_id == account_id,
            r.iam_id == iam_id,
            a.outcome.is_(None),
            a.standin_last_four != "",
        )
        .order_by(a.started_at, a.id)
    ).all()
    tokens = _handed_out(connection, [row.id for row in rows])
    return [
        LiveAccess(
            row.id,
            row.run_id,
            row.task,
            row.number,
            row.executor,
            row.standin_last_four,
            row.started_at,
            tuple(item for item in tokens.get(row.id, ()) if item.expires_at > now),
            row.title or row.name,
        )
        for row in rows
    ]


def attempts_of(connection: sa.Connection, run_id: str) -> list[AttemptView]:
    """A run's attempts with what each was handed, first to last."""
    found = attempts.of_run(connection, run_id)
    tokens = _handed_out(connection, [attempt.id for attempt in found])
    return [replace(attempt, tokens=tokens.get(attempt.id, ())) for attempt in found]


def live_attempt(connection: sa.Connection, attempt_id: str) -> tuple[str, str, str] | None:
    """Run, account and iam_id of a live attempt that holds a stand-in key."""
    a, r = t.attempts.c, t.runs.c
    row = connection.execute(
        sa.select(a.run_id, r.account_id, r.iam_id)
        .join(t.runs, r.id == a.run_id)
        .where(a.id == attempt_id, a.outcome.is_(None), a.standin_last_four != "")
    ).one_or_none()
    return None if row is None else (row.run_id, row.account_id, row.iam_id)


def forget_standin(connection: sa.Connection, attempt_id: str, replacement: bytes) -> None:
    """Overwrite an attempt's stand-in digest with one that no key has; its last four become empty."""
    connection.execute(
        t.attempts.update()
        .where(t.attempts.c.id == attempt_id)
        .values(standin_digest=replacement, standin_last_four="")
    )
