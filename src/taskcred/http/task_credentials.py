"""/v1/task_credentials: as IBM's clients use it, and ours on top (PATCH, rotate, keys, impact)."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any, Final, Literal
from uuid import UUID

from flask import Response
from pydantic import BaseModel, ConfigDict, Field

from taskcred.domain.credentials import (
    CREDENTIAL_TYPE,
    Created,
    CredentialState,
    CredentialView,
    Drain,
    KeyState,
    Origin,
    RevocationReason,
)
from taskcred.domain.permissions import Permission
from taskcred.http.answers import if_match, nothing, once, send
from taskcred.http.authentication import caller, context
from taskcred.http.operations import nouns, operation
from taskcred.http.shapes import (
    ABSENT,
    Asked,
    CredentialPath,
    Description,
    IdempotencyHeader,
    IfMatchHeader,
    IfNoneMatchHeader,
    Instant,
    Name,
    SourceIn,
    Told,
    left_out,
)
from taskcred.services import credentials
from taskcred.services import keys as key_service
from taskcred.services.idempotency import Answer

api = nouns("task_credentials", "Task credentials and their keys.")

_KEY_NAME: Final = "Default: a provided key's name at the identity provider; else the task credential's name."

ScopeText = Annotated[str, Field(max_length=256)]


class Key(Told):
    """A key; never its text."""

    id: UUID
    name: str
    state: KeyState
    origin: Origin
    last_four: str = Field(description="The last four characters.", max_length=4)
    provider_key_id: str | None = Field(description="Its id at the identity provider.")
    created_at: datetime
    last_used_at: datetime | None
    expires_at: datetime | None
    end_at: datetime | None = Field(description="A phased-out key ends then; null: not planned.")
    ended_at: datetime | None
    reason: RevocationReason | None
    last_token_expires_at: datetime | None = Field(description="Safe to delete after this instant.")


class TaskCredential(Told):
    """A task credential; IBM's fields (id, name, description, type, scope) and ours."""

    id: UUID
    name: str
    description: str
    type: Literal["iam_api_key"]
    scope: dict[str, Any]
    state: CredentialState
    state_reason: str | None = Field(description="Why it is locked or unusable.")
    account_id: str
    iam_id: str
    created_at: datetime
    created_by: str
    updated_at: datetime
    revision: int = Field(ge=1)
    active_key: Key | None


class NewCredential(TaskCredential):
    """A task credential just made or rotated."""

    stage: str = Field(description="How far the change has come; `done` when finished.")
    api_key: str | None = Field(
        None, description="The generated key, if it was to be shown: now and never again."
    )


class CredentialList(BaseModel):
    """IBM's list: the caller's own, at most one."""

    credentials: list[TaskCredential]


class KeyList(BaseModel):
    """The keys of a task credential, newest first."""

    items: list[Key]
    next: str | None = None


class ImpactItemOut(Told):
    """A schedule or run."""

    id: str
    name: str
    at: datetime | None = Field(description="Its next time, or its start.")


class ImpactOut(Told):
    """What ending the task credential would break."""

    schedules: list[ImpactItemOut]
    live_runs: list[ImpactItemOut]
    waiting_runs: int
    live_tokens_until: datetime | None
    last_used_at: datetime | None


class CreateCredentialBody(SourceIn):
    """As IBM's clients send it; members we do not know are ignored."""

    model_config = ConfigDict(extra="ignore")

    name: Name
    description: Description = ""
    type: Literal["iam_api_key"] = CREDENTIAL_TYPE
    scope: dict[ScopeText, ScopeText] | None = Field(None, max_length=16)
    key_name: Name = Field(default=ABSENT, json_schema_extra=left_out, description=_KEY_NAME)


class UpdateCredentialBody(Asked):
    """What may be changed in place."""

    name: Name = Field(default=ABSENT, json_schema_extra=left_out)
    description: Description = Field(default=ABSENT, json_schema_extra=left_out)


class RotateBody(SourceIn):
    """A new key, and when the old one ends."""

    drain: Literal["tokens", "now"] | Instant = Field(
        "tokens", description="The old key ends: when its last token has expired, at once, or at a time."
    )
    leaked: bool = Field(False, description="The old key is known to others: end it first, then replace it.")
    key_name: Name = Field(default=ABSENT, json_schema_extra=left_out, description=_KEY_NAME)

    def plan(self) -> Drain:
        """When the old key ends, in the domain's words."""
        if isinstance(self.drain, datetime):
            return Drain("at", self.drain.astimezone(UTC))
        return Drain(self.drain)


class KeyPath(CredentialPath):
    """/…/{credential_id}/keys/{key_id}"""

    key_id: UUID


@operation(
    api,
    "post",
    "/v1/task_credentials",
    Permission.CREDENTIAL_CREATE_PROVIDED,
    answers={201: NewCredential},
    errors=(409, 422),
)
def create_task_credential(header: IdempotencyHeader, body: CreateCredentialBody) -> Response:
    """Store a key of the caller's, or have one made.

    One task credential for each owner and account: a second one is 409 with `existing_id`.
    """

    def work() -> Answer:
        created = credentials.create(
            context(),
            caller(),
            name=body.name,
            description=body.description,
            scope=dict(body.scope or {}),
            source=body.source(),
            key_name=body.key_name or "",
        )
        return created_answer(created, 201)

    return once(header, work)


@operation(
    api,
    "get",
    "/v1/task_credentials",
    Permission.CREDENTIAL_READ,
    answers={200: CredentialList},
)
def list_task_credentials() -> Response:
    """The caller's own task credential in this account, as a list."""
    own = credentials.list_own(context(), caller())
    return send(CredentialList(credentials=[TaskCredential.model_validate(view) for view in own]))


@operation(
    api,
    "get",
    "/v1/task_credentials/<uuid:credential_id>",
    Permission.CREDENTIAL_READ,
    answers={200: TaskCredential, 304: None},
)
def get_task_credential(path: CredentialPath, header: IfNoneMatchHeader) -> Response:
    """One task credential of the caller's."""
    return _one(credentials.get(context(), caller(), str(path.credential_id)), header)


@operation(
    api,
    "delete",
    "/v1/task_credentials/<uuid:credential_id>",
    Permission.CREDENTIAL_DELETE,
    answers={204: None},
    errors=(409, 422),
)
def delete_task_credential(path: CredentialPath) -> Response:
    """End a task credential at once: its stand-in keys are refused, its generated key ends at the provider."""
    credentials.delete(context(), caller(), str(path.credential_id))
    return nothing()


@operation(
    api,
    "patch",
    "/v1/task_credentials/<uuid:credential_id>",
    Permission.CREDENTIAL_UPDATE,
    answers={200: TaskCredential},
    errors=(409, 412),
)
def update_task_credential(
    path: CredentialPath, header: IfMatchHeader, body: UpdateCredentialBody
) -> Response:
    """Change name and description."""
    view = credentials.update(
        context(),
        caller(),
        str(path.credential_id),
        name=body.name,
        description=body.description,
        if_match=if_match(header),
    )
    return _one(view)


@operation(
    api,
    "post",
    "/v1/task_credentials/<uuid:credential_id>/rotate",
    Permission.CREDENTIAL_ROTATE,
    answers={200: NewCredential, 202: NewCredential},
    errors=(409, 422),
)
def rotate_task_credential(path: CredentialPath, header: IdempotencyHeader, body: RotateBody) -> Response:
    """Replace the key; running jobs move to the new one at their next token. 202 while it is under way."""

    def work() -> Answer:
        created = credentials.rotate(
            context(),
            caller(),
            str(path.credential_id),
            source=body.source(),
            drain=body.plan(),
            leaked=body.leaked,
            key_name=body.key_name or "",
        )
        return created_answer(created, 200 if created.stage == "done" else 202)

    return once(header, work)


@operation(
    api,
    "get",
    "/v1/task_credentials/<uuid:credential_id>/keys",
    Permission.CREDENTIAL_READ,
    answers={200: KeyList},
)
def list_keys(path: CredentialPath) -> Response:
    """The keys it has and had."""
    keys = key_service.keys(context(), caller(), str(path.credential_id))
    return send(KeyList(items=[Key.model_validate(key) for key in keys]))


@operation(
    api,
    "delete",
    "/v1/task_credentials/<uuid:credential_id>/keys/<uuid:key_id>",
    Permission.CREDENTIAL_ROTATE,
    answers={204: None},
    errors=(409, 422),
)
def end_key(path: KeyPath) -> Response:
    """End a phased-out key now. The active key ends with its task credential, or by rotation."""
    key_service.end_key(context(), caller(), str(path.credential_id), str(path.key_id))
    return nothing()


@operation(
    api,
    "get",
    "/v1/task_credentials/<uuid:credential_id>/impact",
    Permission.CREDENTIAL_READ,
    answers={200: ImpactOut},
)
def show_impact(path: CredentialPath) -> Response:
    """What ending it would break."""
    impact = credentials.impact(context(), caller(), str(path.credential_id))
    return send(ImpactOut.model_validate(impact))


def _one(view: CredentialView, header: IfNoneMatchHeader | None = None) -> Response:
    return send(TaskCredential.model_validate(view), revision=view.revision, header=header)


def created_answer(created: Created, status: int) -> Answer:
    """The answer to what made a key. A key that is shown once is in it, and is not kept for replays."""
    body = TaskCredential.model_validate(created.credential).model_dump(mode="json")
    body["stage"] = created.stage
    body["api_key"] = None
    if created.shown_once is not None:
        # The owner asked to see the generated key, here and once.
        body["api_key"] = created.shown_once.reveal()
    return Answer(status, body, shown_once=("api_key",))
