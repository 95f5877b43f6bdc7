"""What the routes of keys and service ids share: revisions by ETag and If-Match, flags in headers."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from flask import Request, Response, jsonify

from taskcred.errors import StalePreconditionError
from taskcred.iam.fields import invalid, missing


def entity_tag(row: sa.Row[Any]) -> str:
    """IBM's form: `<revision>-<32 hex>`."""
    return f"{row.revision}-{row.tag}"


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
