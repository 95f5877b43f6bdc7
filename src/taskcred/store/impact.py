"""What depends on a credential: the query behind 'what would ending it break?'."""

from __future__ import annotations

from datetime import datetime

import sqlalchemy as sa

from taskcred.domain.credentials import CredentialView, Impact, ImpactItem
from taskcred.domain.runs import RunState
from taskcred.store import tables as t
from taskcred.store import tokens


def of(connection: sa.Connection, credential: CredentialView, now: datetime) -> Impact:
    """The owner's schedules that are not paused, runs with a live attempt, runs that wait for a turn or a
    credential, and how long tokens already made can live."""
    s, r, a, k = t.schedules.c, t.runs.c, t.attempts.c, t.keys.c
    owner = (credential.account_id, credential.iam_id)
    schedules = connection.execute(
        sa.select(s.id, s.name, s.next_at)
        .where(s.account_id == owner[0], s.iam_id == owner[1], s.paused.is_(False))
        .order_by(s.next_at)
    )
    live = connection.execute(
        sa.select(r.id, r.task, a.started_at)
        .join(t.attempts, a.run_id == r.id)
        .where(a.credential_id == credential.id, a.outcome.is_(None))
        .order_by(a.started_at)
    )
    waiting = connection.execute(
        sa.select(sa.func.count())
        .select_from(t.runs)
        .where(
            r.account_id == owner[0],
            r.iam_id == owner[1],
            r.state.in_((RunState.QUEUED, RunState.WAITING_FOR_CREDENTIAL)),
        )
    ).scalar_one()
    last_used_at = connection.execute(
        sa.select(sa.func.max(k.last_used_at)).where(k.credential_id == credential.id)
    ).scalar_one()
    until = tokens.latest_expiry(connection, credential.id)
    return Impact(
        schedules=tuple(ImpactItem(row.id, row.name, row.next_at) for row in schedules),
        live_runs=tuple(ImpactItem(row.id, row.task, row.started_at) for row in live),
        waiting_runs=int(waiting),
        live_tokens_until=until if until and until > now else None,
        last_used_at=last_used_at,
    )
