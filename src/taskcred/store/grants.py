"""Grants: queries. One active grant for each service and owner: an index sees to it."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from typing import Any, Final

import sqlalchemy as sa

from taskcred.domain.grants import REMIND_BEFORE, GrantEnd, GrantState, GrantView
from taskcred.domain.runs import FINAL_STATES
from taskcred.store import tables as t
from taskcred.store.paging import is_older
from taskcred.store.service_tables import grants, services

_ACTIVE: Final = sa.literal(GrantState.ACTIVE.value, literal_execute=True)  # for the partial indexes
_NEXT_REVISION: Final = grants.c.revision + 1


def insert(
    connection: sa.Connection,
    *,
    grant_id: str,
    account_id: str,
    iam_id: str,
    acting_iam_id: str,
    service_id: str,
    tasks: Collection[str],
    now: datetime,
    expires_at: datetime,
    remind_at: datetime | None,
) -> None:
    """A new active grant; the owner has no other active one for the service."""
    connection.execute(
        grants.insert().values(
            id=grant_id,
            account_id=account_id,
            iam_id=iam_id,
            acting_iam_id=acting_iam_id,
            service_id=service_id,
            tasks=list(tasks),
            state=GrantState.ACTIVE,
            created_at=now,
            expires_at=expires_at,
            remind_at=remind_at,
        )
    )


def find(connection: sa.Connection, grant_id: str, now: datetime) -> GrantView | None:
    """The grant, whoever's it is."""
    found = _views(connection, _query().where(grants.c.id == grant_id), now)
    return found[0] if found else None


def find_active(
    connection: sa.Connection, service_id: str, account_id: str, iam_id: str, now: datetime
) -> GrantView | None:
    """The owner's grant for the service that is recorded as active, though its date may have passed."""
    c = grants.c
    query = _query().where(
        c.service_id == service_id, c.account_id == account_id, c.iam_id == iam_id, c.state == _ACTIVE
    )
    found = _views(connection, query, now)
    return found[0] if found else None


def of_owner(
    connection: sa.Connection,
    account_id: str,
    iam_id: str,
    *,
    now: datetime,
    before: tuple[datetime, str] | None = None,
    limit: int = 50,
) -> list[GrantView]:
    """An owner's grants, newest first; `before` is where the last page ended."""
    c = grants.c
    return _page(
        connection, _query().where(c.account_id == account_id, c.iam_id == iam_id), now, before, limit
    )


def of_service(
    connection: sa.Connection,
    service_id: str,
    *,
    now: datetime,
    before: tuple[datetime, str] | None = None,
    limit: int = 50,
) -> list[GrantView]:
    """The grants that owners gave a service, newest first."""
    return _page(connection, _query().where(grants.c.service_id == service_id), now, before, limit)


def active(connection: sa.Connection, now: datetime) -> list[GrantView]:
    """Every grant that is recorded as active."""
    return _views(connection, _query().where(grants.c.state == _ACTIVE), now)


def active_of_service(connection: sa.Connection, service_id: str, now: datetime) -> list[GrantView]:
    """Every grant of the service that is recorded as active."""
    return _views(
        connection, _query().where(grants.c.service_id == service_id, grants.c.state == _ACTIVE), now
    )


def passed(connection: sa.Connection, now: datetime, limit: int) -> list[GrantView]:
    """Grants recorded as active whose date has passed."""
    c = grants.c
    query = _query().where(c.state == _ACTIVE, c.expires_at <= now)
    return _views(connection, query.order_by(c.expires_at).limit(limit), now)


def to_remind_of(connection: sa.Connection, now: datetime, limit: int) -> list[GrantView]:
    """Active grants that expire soon and whose owners have not been told."""
    c = grants.c
    # The bound on the date is for the index.
    query = _query().where(c.state == _ACTIVE, c.expires_at <= now + REMIND_BEFORE, c.remind_at <= now)
    return _views(connection, query.order_by(c.expires_at).limit(limit), now)


def set_reminded(connection: sa.Connection, grant_id: str) -> None:
    """Its owner has been told that it expires."""
    connection.execute(grants.update().where(grants.c.id == grant_id).values(remind_at=None))


def close(
    connection: sa.Connection, grant_id: str, state: GrantState, reason: GrantEnd | None, now: datetime
) -> bool:
    """End an active grant; whether it was active."""
    c = grants.c
    done = connection.execute(
        grants.update()
        .where(c.id == grant_id, c.state == GrantState.ACTIVE)
        .values(state=state, end_reason=reason, ended_at=now, revision=_NEXT_REVISION)
    )
    return done.rowcount == 1


def set_used(connection: sa.Connection, grant_id: str, now: datetime) -> None:
    """A run was started under it."""
    connection.execute(grants.update().where(grants.c.id == grant_id).values(last_used_at=now))


def unfinished_runs(
    connection: sa.Connection, grant_id: str, besides: Collection[str] = ()
) -> list[sa.Row[Any]]:
    """Rows of the grant's runs that have not ended, oldest first; `besides` leaves out those tasks."""
    c = t.runs.c
    query = sa.select(t.runs).where(c.grant_id == grant_id, c.state.not_in(FINAL_STATES))
    return list(connection.execute(query.where(c.task.not_in(besides)).order_by(c.created_at, c.id)))


def hand_over_runs(connection: sa.Connection, from_grant: str, to_grant: str) -> None:
    """What has not ended under one grant goes on under another."""
    c = t.runs.c
    connection.execute(
        t.runs.update()
        .where(c.grant_id == from_grant, c.state.not_in(FINAL_STATES))
        .values(grant_id=to_grant)
    )


def find_service(connection: sa.Connection, service_id: str) -> sa.Row[Any] | None:
    """The service's row, whatever its state."""
    return connection.execute(sa.select(services).where(services.c.id == service_id)).first()


def forget_ended(connection: sa.Connection, before: datetime, limit: int) -> int:
    """Delete grants that ended before `before`, at most `limit`; answers how many."""
    c = grants.c
    old = sa.select(c.id).where(c.ended_at < before).order_by(c.ended_at).limit(limit)
    return connection.execute(grants.delete().where(c.id.in_(old))).rowcount


def _query() -> sa.Select[Any]:
    return sa.select(
        grants, services.c.name.label("service_name"), services.c.title.label("service_title")
    ).join(services, services.c.id == grants.c.service_id)


def _page(
    connection: sa.Connection,
    query: sa.Select[Any],
    now: datetime,
    before: tuple[datetime, str] | None,
    limit: int,
) -> list[GrantView]:
    c = grants.c
    if before is not None:
        query = query.where(is_older(c.created_at, c.id, before))
    return _views(connection, query.order_by(c.created_at.desc(), c.id.desc()).limit(limit), now)


def _views(connection: sa.Connection, query: sa.Select[Any], now: datetime) -> list[GrantView]:
    return [
        GrantView(
            id=row.id,
            account_id=row.account_id,
            iam_id=row.iam_id,
            acting_iam_id=row.acting_iam_id,
            service_id=row.service_id,
            service_name=row.service_name,
            service_title=row.service_title or row.service_name,
            tasks=tuple(row.tasks),
            state=_state(row, now),
            created_at=row.created_at,
            expires_at=row.expires_at,
            last_used_at=row.last_used_at,
            ended_at=row.ended_at,
            end_reason=None if row.end_reason is None else GrantEnd(row.end_reason),
            revision=row.revision,
        )
        for row in connection.execute(query)
    ]


def _state(row: sa.Row[Any], now: datetime) -> GrantState:
    if row.state == GrantState.ACTIVE and row.expires_at <= now:
        return GrantState.EXPIRED
    return GrantState(row.state)
