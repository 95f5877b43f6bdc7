"""Prompts, and what an owner's task credential is good for at this moment."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import sqlalchemy as sa

from taskcred.domain.credentials import CredentialState
from taskcred.domain.runs import PromptState, PromptView, RunState
from taskcred.store import tables as t
from taskcred.store.paging import is_older

# Written into the statement, not bound: SQLite uses a partial index only where it can see the value.
_OPEN: Final = sa.literal(PromptState.OPEN.value, literal_execute=True)
_ENDED: Final = sa.literal(CredentialState.ENDED.value, literal_execute=True)


@dataclass(frozen=True, slots=True)
class Standing:
    """An owner's task credential as runs see it. `why` is empty where it is usable, else the prompt's
    why: "missing" (also while it is being made), "locked", "unusable"."""

    credential_id: str | None
    why: str


def standing(connection: sa.Connection, account_id: str, iam_id: str) -> Standing:
    """What the owner's task credential is good for now."""
    c = t.task_credentials.c
    row = connection.execute(
        sa.select(c.id, c.state).where(c.account_id == account_id, c.iam_id == iam_id, c.state != _ENDED)
    ).first()
    if row is None or row.state == CredentialState.CREATING:
        return Standing(None, "missing")
    return Standing(row.id, "" if row.state == CredentialState.USABLE else row.state)


def find_open(connection: sa.Connection, account_id: str, iam_id: str) -> sa.Row[Any] | None:
    """The owner's open prompt: there is at most one."""
    c = t.prompts.c
    return connection.execute(
        sa.select(t.prompts).where(c.account_id == account_id, c.iam_id == iam_id, c.state == _OPEN)
    ).first()


def insert(
    connection: sa.Connection,
    prompt_id: str,
    account_id: str,
    iam_id: str,
    why: str,
    now: datetime,
    notify_at: datetime,
) -> None:
    """A new open prompt; the database refuses a second open one of the same owner."""
    connection.execute(
        t.prompts.insert().values(
            id=prompt_id,
            account_id=account_id,
            iam_id=iam_id,
            state=PromptState.OPEN,
            why=why,
            opened_at=now,
            notify_at=notify_at,
        )
    )


def set_why(connection: sa.Connection, prompt_id: str, why: str) -> None:
    """What is wrong has changed while the prompt was open."""
    connection.execute(t.prompts.update().where(t.prompts.c.id == prompt_id).values(why=why))


def close(connection: sa.Connection, prompt_id: str, state: PromptState, now: datetime) -> None:
    """Answered or withdrawn: nobody is told again."""
    connection.execute(
        t.prompts.update()
        .where(t.prompts.c.id == prompt_id)
        .values(state=state, closed_at=now, notify_at=None)
    )


def is_awaited(connection: sa.Connection, account_id: str, iam_id: str) -> bool:
    """Whether a parked run or an unpaused schedule of the owner still needs an answer."""
    r, s = t.runs.c, t.schedules.c
    parked = sa.select(r.id).where(
        r.state == RunState.WAITING_FOR_CREDENTIAL, r.account_id == account_id, r.iam_id == iam_id
    )
    planned = sa.select(s.id).where(
        s.account_id == account_id, s.iam_id == iam_id, s.paused == sa.false(), s.next_at.is_not(None)
    )
    return bool(connection.execute(sa.select(sa.or_(parked.exists(), planned.exists()))).scalar())


def due(connection: sa.Connection, now: datetime, limit: int) -> list[sa.Row[Any]]:
    """Open prompts whose owners are to be told again, longest overdue first."""
    c = t.prompts.c
    return list(
        connection.execute(sa.select(t.prompts).where(c.notify_at <= now).order_by(c.notify_at).limit(limit))
    )


def postpone(connection: sa.Connection, prompt_id: str, was: datetime, notify_at: datetime) -> bool:
    """Plan the next reminder; False where somebody else has just told the owner."""
    c = t.prompts.c
    done = connection.execute(
        t.prompts.update().where(c.id == prompt_id, c.notify_at == was).values(notify_at=notify_at)
    )
    return done.rowcount == 1


def of_owner(
    connection: sa.Connection,
    account_id: str,
    iam_id: str,
    *,
    prompt_id: str | None = None,
    state: PromptState | None = None,
    before: tuple[datetime, str] | None = None,
    limit: int = 50,
) -> list[PromptView]:
    """An owner's prompts, newest first: all, or the one named."""
    c, r = t.prompts.c, t.runs.c
    waiting = (
        sa.select(sa.func.count())
        .select_from(t.runs)
        .where(r.state == RunState.WAITING_FOR_CREDENTIAL, r.account_id == account_id, r.iam_id == iam_id)
        .scalar_subquery()
    )
    query = sa.select(
        t.prompts, sa.case((c.state == PromptState.OPEN, waiting), else_=0).label("waiting_runs")
    ).where(c.account_id == account_id, c.iam_id == iam_id)
    if prompt_id is not None:
        query = query.where(c.id == prompt_id)
    if state is not None:
        query = query.where(c.state == sa.literal(state.value, literal_execute=True))
    if before is not None:
        query = query.where(is_older(c.opened_at, c.id, before))
    rows = connection.execute(query.order_by(c.opened_at.desc(), c.id.desc()).limit(limit))
    return [
        PromptView(
            row.id,
            row.account_id,
            row.iam_id,
            PromptState(row.state),
            row.why,
            row.waiting_runs,
            row.opened_at,
            row.closed_at,
        )
        for row in rows
    ]


def forget_closed(connection: sa.Connection, before: datetime, limit: int) -> int:
    """Delete prompts closed before `before`, at most `limit`; answers how many."""
    c = t.prompts.c
    old = sa.select(c.id).where(c.closed_at < before).limit(limit)
    return connection.execute(t.prompts.delete().where(c.id.in_(old))).rowcount
