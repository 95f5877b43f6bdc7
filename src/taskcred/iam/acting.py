"""Who may act for a service id (`serviceid:act`): functions over a connection of iam.db.

The permission is between one person and one service id of an account that person is a member of. It is
the operator's to give and take; whoever lets somebody act asks each time.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Final

import sqlalchemy as sa

from taskcred.errors import ConflictError
from taskcred.iam import tables
from taskcred.iam.accounts import User, is_administrator
from taskcred.iam.database import remember
from taskcred.iam.serviceids import ServiceId

_a, _m, _s, _u = tables.actors, tables.memberships, tables.service_ids, tables.users

# Read with the membership each time: who is no member of the account acts for nothing in it.
_PERMITTED: Final = (
    sa.select(_s.c.id, _s.c.iam_id, _s.c.account_id, _s.c.name)
    .join(_a, _a.c.service_id == _s.c.id)
    .join(_m, sa.and_(_m.c.account_id == _s.c.account_id, _m.c.iam_id == _a.c.iam_id))
    .order_by(_s.c.name, _s.c.id)
)


@dataclass(frozen=True, slots=True)
class Permitted:
    """One permission, as the operator sees it."""

    service_id: ServiceId
    iam_id: str
    email: str
    given_at: datetime
    given_by: str


def allow(connection: sa.Connection, service_id: ServiceId, person: User, *, by: str, now: datetime) -> None:
    """Let a person act for a service id; nothing happens where they may. Raises ConflictError where they
    are no member of its account."""
    if is_administrator(connection, service_id.account_id, person.iam_id) is None:
        raise ConflictError(
            "This person is no member of the service id's account.",
            hint="Make them one first: `taskcred iam add-member`.",
            code="not_a_member",
        )
    here = sa.and_(_a.c.service_id == service_id.id, _a.c.iam_id == person.iam_id)
    if connection.execute(sa.select(_a.c.iam_id).where(here)).first() is not None:
        return
    connection.execute(
        sa.insert(_a).values(service_id=service_id.id, iam_id=person.iam_id, given_at=now, given_by=by)
    )
    _remember(connection, "serviceid:allow_act", service_id, person, by, now)


def disallow(
    connection: sa.Connection, service_id: ServiceId, person: User, *, by: str, now: datetime
) -> bool:
    """Take the permission away; whether there was one."""
    here = sa.and_(_a.c.service_id == service_id.id, _a.c.iam_id == person.iam_id)
    if connection.execute(sa.delete(_a).where(here)).rowcount == 0:
        return False
    _remember(connection, "serviceid:disallow_act", service_id, person, by, now)
    return True


def permitted(connection: sa.Connection, service_id: ServiceId | None = None) -> list[Permitted]:
    """All permissions, or those on one service id; by service id and address."""
    query = (
        sa.select(
            _s.c.id,
            _s.c.iam_id,
            _s.c.account_id,
            _s.c.name,
            _u.c.iam_id,
            _u.c.email,
            _a.c.given_at,
            _a.c.given_by,
        )
        .join(_a, _a.c.service_id == _s.c.id)
        .join(_u, _u.c.iam_id == _a.c.iam_id)
        .order_by(_s.c.name, _s.c.id, _u.c.email)
    )
    if service_id is not None:
        query = query.where(_s.c.id == service_id.id)
    return [Permitted(ServiceId(*row[:4]), *row[4:]) for row in connection.execute(query)]


def acts_for(connection: sa.Connection, account_id: str, person: str) -> list[ServiceId]:
    """The service ids of the account that this person may act for."""
    rows = connection.execute(_PERMITTED.where(_s.c.account_id == account_id, _a.c.iam_id == person))
    return [ServiceId(*row) for row in rows]


def _remember(
    connection: sa.Connection, action: str, service_id: ServiceId, person: User, by: str, now: datetime
) -> None:
    remember(
        connection,
        at=now,
        action=action,
        target=service_id.id,
        iam_id=by,
        account_id=service_id.account_id,
        params={"iam_id": person.iam_id},
    )
