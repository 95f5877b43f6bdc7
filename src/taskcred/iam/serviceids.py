"""Service ids: identities of programs, in one account each. Functions over a connection of iam.db."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from taskcred.errors import ConflictError, NotFoundError
from taskcred.iam import tables
from taskcred.iam.database import remember
from taskcred.iam.entities import entity_tag, next_tag
from taskcred.iam.fields import DESCRIPTION_LENGTH, Fields, format_instant, is_plain

_s, _k = tables.service_ids, tables.api_keys


@dataclass(frozen=True, slots=True)
class ServiceId:
    """Which service id it is. `id` names it in routes, `iam_id` in tokens."""

    id: str
    iam_id: str
    account_id: str
    name: str


@dataclass(frozen=True, slots=True)
class NewServiceId:
    """What a caller asks for."""

    name: str
    description: str = ""
    group_id: str = ""
    unique_instance_crns: tuple[str, ...] = ()
    is_locked: bool = False

    @classmethod
    def read(cls, fields: Fields, *, locked: bool) -> NewServiceId:
        """From the body of a request. Raises InvalidRequestError."""
        return cls(
            name=fields.text("name", required=True),
            description=fields.text("description", at_most=DESCRIPTION_LENGTH, lines=True),
            group_id=fields.text("group_id"),
            unique_instance_crns=tuple(fields.texts("unique_instance_crns")),
            is_locked=locked,
        )


def add(
    connection: sa.Connection, new: NewServiceId, *, account_id: str, by: str, now: datetime
) -> sa.Row[Any]:
    """Create a service id: its row."""
    service_id = f"ServiceId-{uuid.uuid4()}"
    connection.execute(
        sa.insert(_s).values(
            id=service_id,
            iam_id=f"iam-{service_id}",
            account_id=account_id,
            name=new.name,
            description=new.description,
            group_id=new.group_id,
            unique_instance_crns=list(new.unique_instance_crns),
            locked=new.is_locked,
            created_at=now,
            created_by=by,
            modified_at=now,
            revision=1,
            tag=next_tag(),
        )
    )
    remember(
        connection,
        at=now,
        action="serviceid:create",
        target=service_id,
        iam_id=by,
        account_id=account_id,
        params={"name": new.name},
    )
    return get(connection, service_id, account_id)


def get(connection: sa.Connection, service_id: str, account_id: str) -> sa.Row[Any]:
    """The row of a service id of this account. Raises NotFoundError."""
    row = connection.execute(
        sa.select(_s).where(_s.c.id == service_id, _s.c.account_id == account_id)
    ).first()
    if row is None:
        raise NotFoundError(
            "The service id could not be found.", hint="List the account's service ids to see their ids."
        )
    return row


def named(connection: sa.Connection, given: str) -> ServiceId:
    """The service id of this id, iam_id or name, whatever its account. Raises NotFoundError, and
    ConflictError where several have the name."""
    columns = sa.select(_s.c.id, _s.c.iam_id, _s.c.account_id, _s.c.name)
    rows = connection.execute(
        columns.where(sa.or_(_s.c.id == given, _s.c.iam_id == given, _s.c.name == given))
        if is_plain(given)
        else columns.where(sa.false())
    ).all()
    exact = [row for row in rows if given in (row.id, row.iam_id)] or rows
    if not exact:
        raise NotFoundError(
            "There is no such service id.",
            hint="Name it by its iam_id, its id or its name.",
            code="service_id_not_found",
        )
    if len(exact) > 1:
        raise ConflictError(
            "Several service ids have this name.",
            hint="Name it by its iam_id: " + ", ".join(row.iam_id for row in exact),
            code="service_id_ambiguous",
        )
    return ServiceId(*exact[0])


def delete(connection: sa.Connection, row: sa.Row[Any], *, by: str, now: datetime) -> list[str]:
    """Take a service id, its keys and the permissions to act for it away: the ids of those keys whose values are kept."""
    here = _k.c.iam_id == row.iam_id
    kept = list(connection.scalars(sa.select(_k.c.id).where(here, _k.c.stored)))
    connection.execute(sa.delete(_k).where(here))
    connection.execute(sa.delete(tables.actors).where(tables.actors.c.service_id == row.id))
    connection.execute(sa.delete(_s).where(_s.c.id == row.id))
    remember(
        connection,
        at=now,
        action="serviceid:delete",
        target=row.id,
        iam_id=by,
        account_id=row.account_id,
        params={"name": row.name},
    )
    return kept


def as_json(row: sa.Row[Any], *, show_group_id: bool = False) -> dict[str, Any]:
    """A service id in IBM's shape."""
    answer: dict[str, Any] = {
        "id": row.id,
        "iam_id": row.iam_id,
        "entity_tag": entity_tag(row),
        "crn": f"crn:v1:bluemix:public:iam-identity::a/{row.account_id}::serviceid:{row.id}",
        "locked": row.locked,
        "created_at": format_instant(row.created_at),
        "modified_at": format_instant(row.modified_at),
        "account_id": row.account_id,
        "name": row.name,
        "unique_instance_crns": row.unique_instance_crns,
    }
    if row.description:
        answer["description"] = row.description
    if show_group_id and row.group_id:
        answer["group_id"] = row.group_id
    return answer
