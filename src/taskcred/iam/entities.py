"""What keys and service ids share: revisions by entity_tag, ETag and If-Match; locks; flags in headers."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from flask import Request, Response, jsonify

from taskcred.errors import ConflictError, StalePreconditionError
from taskcred.iam.database import remember
from taskcred.iam.fields import invalid, missing


def entity_tag(row: sa.Row[Any]) -> str:
    """IBM's form: `<revision>-<32 hex>`."""
    return f"{row.revision}-{row.tag}"


def next_tag() -> str:
    """The random half of an entity_tag."""
    return secrets.token_hex(16)


def change(
    connection: sa.Connection,
    table: sa.Table,
    row: sa.Row[Any],
    values: Mapping[str, Any],
    *,
    action: str,
    by: str,
    now: datetime,
) -> None:
    """Write `values` to a key or service id: a new revision, remembered by the names of what changed."""
    connection.execute(
        sa.update(table)
        .where(table.c.id == row.id)
        .values(**values, modified_at=now, revision=row.revision + 1, tag=next_tag())
    )
    remember(
        connection,
        at=now,
        action=action,
        target=row.id,
        iam_id=by,
        account_id=row.account_id,
        params={"changed": sorted(values)},
    )


def verify_unlocked(row: sa.Row[Any], what: str) -> None:
    """Raise ConflictError where the entity is locked."""
    if row.locked:
        raise ConflictError(
            f"This {what} is locked against changes.", hint=f"Unlock the {what} first.", code="locked"
        )


def answer_entity(body: dict[str, Any], status: int = 200) -> Response:
    """An entity with its tag as the ETag header, bare as IBM sends it: its SDK hands it back verbatim."""
    response = jsonify(body)
    response.status_code = status
    response.headers["ETag"] = body["entity_tag"]
    return response


def verify_if_match(request: Request, row: sa.Row[Any]) -> None:
    """Raise StalePreconditionError where If-Match names another revision; `*` fits any. IBM asks for the
    header, so its absence is refused."""
    given = request.headers.get("If-Match", "").strip()
    if not given:
        raise missing("If-Match")
    if given != "*" and given.removeprefix("W/").strip('"') != entity_tag(row):
        raise StalePreconditionError(
            "Somebody changed this in the meantime.",
            hint="Read it again, and send its new entity_tag in If-Match.",
        )


def read_header(request: Request, name: str) -> bool:
    """A boolean header, as IBM's SDK sends Entity-Lock."""
    raw = request.headers.get(name, "false").strip().lower()
    if raw not in {"true", "false", ""}:
        raise invalid(name, "It must be true or false.")
    return raw == "true"
