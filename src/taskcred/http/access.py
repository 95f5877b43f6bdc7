"""/v1/access: which attempts of the caller's hold live access tokens, and ending one."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from flask import Response
from pydantic import BaseModel, Field

from taskcred.domain.permissions import Permission
from taskcred.http.answers import nothing, send
from taskcred.http.authentication import caller, context
from taskcred.http.executions import HandOut
from taskcred.http.operations import nouns, operation
from taskcred.http.shapes import Told
from taskcred.services import access as live

api = nouns("access", "Live access of one's own runs.")


class Access(Told):
    """A live attempt and what it holds: times only."""

    attempt_id: UUID
    run_id: UUID
    task: str
    number: int = Field(ge=1)
    executor: str
    standin_last_four: str
    started_at: datetime
    tokens: list[HandOut]


class AccessList(BaseModel):
    """Live access."""

    items: list[Access]
    next: str | None = None


class AttemptPath(BaseModel):
    """/…/{attempt_id}"""

    attempt_id: UUID


@operation(api, "get", "/v1/access", Permission.TOKEN_READ, answers={200: AccessList})
def list_access() -> Response:
    """The caller's live attempts, and until when the tokens they hold live."""
    own = live.live_access(context(), caller())
    return send(AccessList(items=[Access.model_validate(item) for item in own]))


@operation(
    api, "delete", "/v1/access/<uuid:attempt_id>", Permission.TOKEN_END, answers={204: None}, errors=(409,)
)
def end_access(path: AttemptPath) -> Response:
    """Refuse the attempt's stand-in key from now on."""
    live.end_access(context(), caller(), str(path.attempt_id))
    return nothing()
