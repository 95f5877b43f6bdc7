"""Runs: queries. Every change of state says which states it may come from, and grows the revision."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from typing import Any, Final

import sqlalchemy as sa

from taskcred.domain.runs import Executor, PromptState, RunState, RunView
from taskcred.store import service_tables as s
from taskcred.store import tables as t
from taskcred.store.paging import is_older

_OPEN: Final = sa.literal(PromptState.OPEN.value, literal_execute=True)  # for the partial index
_NEXT_REVISION: Final = t.runs.c.revision + 1


def partition(account_id: str, iam_id: str) -> str:
    """The owner as the engine limits them: one name for each (account, owner)."""
    return f"{account_id}/{iam_id}"


def insert(
    connection: sa.Connection,
    *,
    run_id: str,
    account_id: str,
    iam_id: str,
    task: str,
    parameters: dict[str, Any],
    state: RunState,
    started_by: str,
    now: datetime,
    reason: str = "",
    schedule_id: str | None = None,
    scheduled_for: datetime | None = None,
    executor: Executor = Executor.WORKER,
    service_id: str | None = None,
    grant_id: str | None = None,
    acting_iam_id: str = "",
    reference: str = "",
    return_to: str = "",
) -> None:
    """A new run: queued with its first dispatch, parked, or ended at once with a reason."""
    queued = state is RunState.QUEUED
    connection.execute(
        t.runs.insert(),
        {
            "id": run_id,
            "account_id": account_id,
            "iam_id": iam_id,
            "task": task,
            "parameters": parameters,
            "state": state,
            "reason": reason,
            "schedule_id": schedule_id,
            "scheduled_for": scheduled_for,
            "started_by": started_by,
            "executor": executor,
            "service_id": service_id,
            "grant_id": grant_id,
            "acting_iam_id": acting_iam_id,
            "reference": reference,
            "return_to": return_to,
            "dispatch_no": 1 if queued else 0,
            "created_at": now,
            "queued_at": now if queued else None,
            "ended_at": now if state is RunState.FAILED else None,
        },
    )


def find(connection: sa.Connection, run_id: str) -> sa.Row[Any] | None:
    """The run's row, whoever owns it."""
    return connection.execute(sa.select(t.runs).where(t.runs.c.id == run_id)).first()


def move(
    connection: sa.Connection,
    run_id: str,
    come_from: Collection[RunState],
    at_dispatch: int | None = None,
    **values: Any,
) -> bool:
    """Change a run if it is still in one of `come_from` (and at that dispatch); whether it was."""
    c = t.runs.c
    query = t.runs.update().where(c.id == run_id, c.state.in_(come_from))
    if at_dispatch is not None:
        query = query.where(c.dispatch_no == at_dispatch)
    return connection.execute(query.values(revision=_NEXT_REVISION, **values)).rowcount == 1


def queue_parked(connection: sa.Connection, account_id: str, iam_id: str, now: datetime) -> list[sa.Row[Any]]:
    """Queue every parked run of the owner, oldest first: their rows as they were."""
    c = t.runs.c
    parked = sa.and_(
        c.state == RunState.WAITING_FOR_CREDENTIAL, c.account_id == account_id, c.iam_id == iam_id
    )
    # What the caller needs and no more: parameters may be large, and thousands may be parked.
    queued: sa.Select[Any] = sa.select(c.id, c.dispatch_no, c.executor, c.service_id, c.reference).where(
        parked
    )
    rows = list(connection.execute(queued.order_by(c.created_at, c.id)))
    if rows:
        connection.execute(
            t.runs.update()
            .where(parked)
            .values(
                state=RunState.QUEUED,
                reason="",
                dispatch_no=c.dispatch_no + 1,
                queued_at=now,
                revision=_NEXT_REVISION,
            )
        )
    return rows


def count_parked(connection: sa.Connection, account_id: str, iam_id: str, at_most: int) -> int:
    """How many runs of the owner are parked; counting stops at `at_most`."""
    c = t.runs.c
    some = (
        sa.select(c.id)
        .where(c.state == RunState.WAITING_FOR_CREDENTIAL, c.account_id == account_id, c.iam_id == iam_id)
        .limit(at_most)
        .subquery()
    )
    return int(connection.execute(sa.select(sa.func.count()).select_from(some)).scalar_one())


def seen_by_owner(account_id: str, iam_id: str) -> sa.ColumnElement[bool]:
    """Runs that are an owner's."""
    return sa.and_(t.runs.c.account_id == account_id, t.runs.c.iam_id == iam_id)


def seen_by_service(service_id: str) -> sa.ColumnElement[bool]:
    """Runs that a service started."""
    return t.runs.c.service_id == service_id


def views(
    connection: sa.Connection,
    seen: sa.ColumnElement[bool],
    *,
    run_id: str | None = None,
    schedule_id: str | None = None,
    state: RunState | None = None,
    before: tuple[datetime, str] | None = None,
    limit: int = 50,
) -> list[RunView]:
    """The runs that are `seen`, newest first; all or the one named; `before` is where the last page ended."""
    c, p = t.runs.c, t.prompts.c
    waits_for = sa.and_(
        c.state == RunState.WAITING_FOR_CREDENTIAL,
        p.account_id == c.account_id,
        p.iam_id == c.iam_id,
        p.state == _OPEN,
    )
    query = (
        sa.select(t.runs, p.id.label("prompt_id"), s.services.c.name, s.services.c.title)
        .select_from(
            t.runs.outerjoin(t.prompts, waits_for).outerjoin(s.services, s.services.c.id == c.service_id)
        )
        .where(seen)
    )
    if run_id is not None:
        query = query.where(c.id == run_id)
    if schedule_id is not None:
        query = query.where(c.schedule_id == schedule_id)
    if state is not None:
        query = query.where(c.state == state)
    if before is not None:
        query = query.where(is_older(c.created_at, c.id, before))
    rows = connection.execute(query.order_by(c.created_at.desc(), c.id.desc()).limit(limit))
    return [view(row) for row in rows]


def view(row: sa.Row[Any]) -> RunView:
    """A row with its `prompt_id`, as the owner may see it."""
    return RunView(
        id=row.id,
        account_id=row.account_id,
        iam_id=row.iam_id,
        task=row.task,
        parameters=row.parameters,
        state=RunState(row.state),
        reason=row.reason,
        schedule_id=row.schedule_id,
        scheduled_for=row.scheduled_for,
        started_by=row.started_by,
        prompt_id=row.prompt_id,
        attempts_made=row.attempts_made,
        progress_done=row.progress_done,
        progress_total=row.progress_total,
        progress_text=row.progress_text,
        exit_code=row.exit_code,
        isolation=row.isolation,
        cancel_requested_at=row.cancel_requested_at,
        created_at=row.created_at,
        queued_at=row.queued_at,
        started_at=row.started_at,
        ended_at=row.ended_at,
        revision=row.revision,
        executor=Executor(row.executor),
        service_id=row.service_id,
        service_name=row.title or row.name,
        grant_id=row.grant_id,
        acting_iam_id=row.acting_iam_id,
        reference=row.reference,
        return_to=row.return_to,
    )


def cancel_requested(connection: sa.Connection) -> set[str]:
    """Ids of running runs whose owner asked for their end."""
    c = t.runs.c
    query = sa.select(c.id).where(c.state == RunState.RUNNING, c.cancel_requested_at.is_not(None))
    return set(connection.execute(query).scalars())


def started_since(
    connection: sa.Connection, service_id: str, since: datetime, number: int
) -> datetime | None:
    """When the `number`th latest run of the service was started; None where that was not after `since`."""
    c = t.runs.c
    query = sa.select(c.created_at).where(c.service_id == service_id, c.created_at > since)
    latest = query.order_by(c.created_at.desc(), c.id.desc()).limit(1).offset(number - 1)
    started_at: datetime | None = connection.execute(latest).scalar()
    return started_at


def never_begun(connection: sa.Connection, before: datetime, limit: int) -> list[sa.Row[Any]]:
    """Runs that were queued before then for a service or their owner, who has begun no attempt since."""
    c = t.runs.c
    query = sa.select(t.runs).where(
        c.state == RunState.QUEUED, c.executor != Executor.WORKER, c.queued_at < before
    )
    return list(connection.execute(query.order_by(c.queued_at).limit(limit)))


def forget_ended(connection: sa.Connection, before: datetime, limit: int) -> int:
    """Delete runs that ended before `before` with their attempts and output, at most `limit`; how many."""
    c = t.runs.c
    old = connection.execute(
        sa.select(c.id).where(c.ended_at < before).order_by(c.ended_at).limit(limit)
    ).scalars()
    ids = list(old)
    attempts = sa.select(t.attempts.c.id).where(t.attempts.c.run_id.in_(ids))
    connection.execute(t.run_output.delete().where(t.run_output.c.attempt_id.in_(attempts)))
    connection.execute(t.attempt_tokens.delete().where(t.attempt_tokens.c.attempt_id.in_(attempts)))
    connection.execute(t.attempts.delete().where(t.attempts.c.run_id.in_(ids)))
    connection.execute(t.runs.delete().where(c.id.in_(ids)))
    return len(ids)
