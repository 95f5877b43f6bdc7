"""The ticker: turns due times of schedules into runs, exactly once; keeper.

A due time, the run made from it and the schedule's next time commit together with the run's place in the
queue, and the database refuses a second run of the same schedule and time. Any number of tickers may run.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any, Final

import sqlalchemy as sa

from taskcred.domain.runs import Misfire, RunState
from taskcred.errors import InvalidRequestError
from taskcred.services import runs
from taskcred.services.context import Context
from taskcred.services.cron import next_after
from taskcred.services.parameters import verify_parameters
from taskcred.store import audit, prompts
from taskcred.store import schedules as store
from taskcred.store.prompts import Standing

GRACE: Final = timedelta(minutes=1)  # late by no more, a time has not been missed: a restart takes less
_BATCH: Final = 20  # due times of one transaction: it holds the one write lock


def tick(ctx: Context, limit: int = 200) -> int:
    """Make the runs that are due, at most `limit`; answers how many due times were dealt with."""
    handled = 0
    while handled < limit:
        now = ctx.clock.now()
        # A look without the write lock first: mostly nothing is due.
        with ctx.store.read() as connection:
            if not store.is_any_due(connection, now):
                break
        with ctx.store.write() as connection:
            rows = store.due(connection, now, min(_BATCH, limit - handled))
            # Of owners; they cannot change in this transaction.
            standings: dict[tuple[str, str], Standing] = {}
            for row in rows:
                owner = row.account_id, row.iam_id
                if owner not in standings:
                    standings[owner] = prompts.standing(connection, *owner)
                _handle(ctx, connection, row, standings[owner], now)
        handled += len(rows)
    return handled


def _handle(
    ctx: Context, connection: sa.Connection, row: sa.Row[Any], standing: Standing, now: datetime
) -> None:
    """One due schedule. All its times up to now count as this one: a backlog is caught up with one run."""
    try:
        next_at = next_after(row.cron, row.timezone, now)
    except InvalidRequestError as error:
        # A time zone may leave the host's database; a schedule in it stops, for its owner to see.
        _stop(ctx, connection, row, error.message)
        return
    why_not = _reason_to_skip(row, now)
    if why_not:
        if store.advance(connection, row.id, row.next_at, next_at):
            _audit_skip(connection, row, why_not, now)
        return
    new = _new_run(row)
    if store.advance(connection, row.id, row.next_at, next_at, last_at=row.next_at, last_run_id=new.id):
        _make_run(ctx, connection, new, standing)


def _new_run(row: sa.Row[Any]) -> runs.NewRun:
    return runs.NewRun(
        row.account_id,
        row.iam_id,
        row.task,
        row.parameters,
        row.created_by,
        schedule_id=row.id,
        scheduled_for=row.next_at,
        acting_iam_id=row.created_by if row.created_by != row.iam_id else "",
    )


def _stop(ctx: Context, connection: sa.Connection, row: sa.Row[Any], why: str) -> None:
    new = _new_run(row)
    if store.advance(connection, row.id, row.next_at, None, last_at=row.next_at, last_run_id=new.id):
        runs.create_failed(ctx, connection, new, audit.KEEPER, why)


def _reason_to_skip(row: sa.Row[Any], now: datetime) -> str:
    if row.misfire == Misfire.SKIP and now - row.next_at > GRACE:
        return "missed: it was due while taskcred could not start it"
    if row.last_state == RunState.WAITING_FOR_CREDENTIAL:
        return "its last run still waits for a task credential and stands for this one too"
    return ""


def _make_run(ctx: Context, connection: sa.Connection, new: runs.NewRun, standing: Standing) -> None:
    """Queue or park it; where neither can be, it is recorded as failed, so that its owner sees why."""
    try:
        # The catalogue may have changed since the schedule was made.
        verify_parameters(runs.find_task_for_worker(ctx, new.task), new.parameters)
    except InvalidRequestError as error:
        runs.create_failed(ctx, connection, new, audit.KEEPER, error.message)
        return
    if not runs.create(ctx, connection, new, standing, audit.KEEPER):
        runs.create_failed(ctx, connection, new, audit.KEEPER, runs.TOO_MANY_WAIT)


def _audit_skip(connection: sa.Connection, row: sa.Row[Any], why: str, now: datetime) -> None:
    event = audit.Event(
        "schedule:skip",
        "refused",
        audit.KEEPER,
        row.account_id,
        row.iam_id,
        "schedule",
        row.id,
        details={"why": why, "scheduled_for": row.next_at.isoformat()},
    )
    audit.append(connection, event, now)
