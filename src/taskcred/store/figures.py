"""Counts for metrics: what is in which state now."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa

from taskcred.store import service_tables as s
from taskcred.store import tables as t


@dataclass(frozen=True, slots=True)
class Figures:
    """Rows by state; a state without rows is left out."""

    credentials: dict[str, int]
    runs: dict[str, int]
    prompts: dict[str, int]
    intents: dict[str, int]
    notices: dict[str, int]
    events: dict[str, int]  # of services
    grants: dict[str, int]
    services: dict[str, int]
    live_attempts: int
    token_requests: int  # answered to attempts that are still kept
    live_tokens: int  # made for runs and not yet expired
    failing_exchanges: int  # credentials whose latest exchange failed and is tried again


def read(connection: sa.Connection, now: datetime) -> Figures:
    """The figures of this instant."""
    uses = sa.select(sa.func.coalesce(sa.func.sum(t.attempt_tokens.c.uses), 0))
    return Figures(
        credentials=_by_state(connection, t.task_credentials),
        runs=_by_state(connection, t.runs),
        prompts=_by_state(connection, t.prompts),
        intents=_by_state(connection, t.intents),
        notices=_by_state(connection, t.notices),
        events=_by_state(connection, s.service_events),
        grants=_by_state(connection, s.grants),
        services=_by_state(connection, s.services),
        live_attempts=_count(connection, t.attempts.c.outcome.is_(None)),
        token_requests=int(connection.execute(uses).scalar_one()),
        live_tokens=_count(connection, t.run_tokens.c.expires_at > now),
        failing_exchanges=_count(connection, t.access_tokens.c.failures > 0),
    )


def _count(connection: sa.Connection, which: sa.ColumnElement[bool]) -> int:
    return int(connection.execute(sa.select(sa.func.count()).where(which)).scalar_one())


def _by_state(connection: sa.Connection, table: sa.Table) -> dict[str, int]:
    rows = connection.execute(sa.select(table.c.state, sa.func.count()).group_by(table.c.state))
    return {str(state): int(count) for state, count in rows}
