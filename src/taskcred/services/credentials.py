"""Task credentials: create, read, update, rotate, delete.

Each change commits an intent first and is then advanced inline; what a crash or an absent part leaves, the
keeper finishes (services/intents).
"""

from __future__ import annotations

import json
import uuid
from datetime import datetime
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError

from taskcred.domain.credentials import (
    Created,
    CredentialState,
    CredentialView,
    Drain,
    Generated,
    Impact,
    KeySource,
    KeyState,
    KeyView,
    Provided,
    RevocationReason,
)
from taskcred.domain.permissions import Permission, Principal
from taskcred.errors import (
    ConflictError,
    InvalidRequestError,
    StalePreconditionError,
)
from taskcred.services import intent_ending, intents, key_change, owned, usability
from taskcred.services.authorize import actor_of, authorize, record_refusal
from taskcred.services.context import Context
from taskcred.services.keys import end_key, keys
from taskcred.store import audit, changes, credentials, tokens
from taskcred.store import impact as impact_store
from taskcred.store import intents as intent_store

__all__ = [
    "create",
    "delete",
    "end",
    "end_key",
    "get",
    "impact",
    "keys",
    "list_own",
    "lock",
    "rotate",
    "unlock",
    "update",
]

lock = usability.lock
unlock = usability.unlock

_LONGEST_NAME: Final = 256
_LONGEST_DESCRIPTION: Final = 1024
_LARGEST_SCOPE: Final = 4096


def create(
    ctx: Context,
    principal: Principal,
    *,
    name: str,
    description: str = "",
    scope: dict[str, Any] | None = None,
    source: KeySource,
    key_name: str = "",
) -> Created:
    """Make the owner's one task credential.

    Raises ConflictError (code credential_exists, detail existing_id) where there is one,
    InvalidRequestError (key_refused, key_of_other_owner, key_malformed) for a key that will not do, and
    UnavailableError where vault or provider are away. A failed create leaves nothing. Where the provider's
    answer was lost the stage in the answer is not "done": the keeper finds out and finishes or undoes it.
    """
    kind = "generated" if isinstance(source, Generated) else "provided"
    authorize(ctx, principal, Permission(f"credential:create_{kind}"), "credential")
    _check_text("name", name, _LONGEST_NAME, required=True)
    _check_text("description", description, _LONGEST_DESCRIPTION)
    _check_text("key_name", key_name, _LONGEST_NAME)
    if len(json.dumps(scope or {})) > _LARGEST_SCOPE:
        raise InvalidRequestError(f"scope is larger than {_LARGEST_SCOPE} bytes.", field="scope")
    key_change.check_source(ctx, source)
    credential_id, holder = str(uuid.uuid4()), intents.new_holder()
    _refuse_second(ctx, principal)
    try:
        with ctx.store.write() as connection:
            now = ctx.clock.now()
            credentials.insert(
                connection,
                credential_id=credential_id,
                account_id=principal.account_id,
                iam_id=principal.iam_id,
                name=name,
                description=description,
                scope=scope or {},
                created_by=principal.actor_id,
                now=now,
            )
            intent = key_change.begin(
                ctx, connection, principal, "create", credential_id, source, key_name, Drain(), holder, now
            )
    except IntegrityError:
        # Another create committed since we looked: the unique index decides, whatever we saw.
        _refuse_second(ctx, principal)
        raise ConflictError(
            "A create of the same owner's task credential is under way.", hint="Try again."
        ) from None
    return key_change.advance(ctx, principal, intent, holder, source)


def _refuse_second(ctx: Context, principal: Principal) -> None:
    with ctx.store.read() as connection:
        existing = credentials.find_own(connection, principal.account_id, principal.iam_id)
    if existing is None:
        return
    record_refusal(ctx, principal, "credential:create", "credential", existing.id, "credential_exists")
    raise ConflictError(
        "You have a task credential in this account already.",
        hint="Rotate its key, or delete it first.",
        code="credential_exists",
        action_url=f"{ctx.public_url}/profile/api-key",
        existing_id=existing.id,
    )


def list_own(ctx: Context, principal: Principal) -> list[CredentialView]:
    """The caller's task credentials that have not ended: one or none."""
    authorize(ctx, principal, Permission.CREDENTIAL_READ, "credential")
    with ctx.store.read() as connection:
        own = credentials.find_own(connection, principal.account_id, principal.iam_id)
    return [own] if own else []


def get(ctx: Context, principal: Principal, credential_id: str) -> CredentialView:
    """One of the caller's. Raises NotFoundError, for another's as for none."""
    authorize(ctx, principal, Permission.CREDENTIAL_READ, "credential", credential_id)
    with ctx.store.read() as connection:
        return owned.find(connection, principal, credential_id)


def update(
    ctx: Context,
    principal: Principal,
    credential_id: str,
    *,
    name: str | None = None,
    description: str | None = None,
    if_match: int | None = None,
) -> CredentialView:
    """Change name and description. Raises StalePreconditionError where `if_match` is not the revision."""
    authorize(ctx, principal, Permission.CREDENTIAL_UPDATE, "credential", credential_id)
    values: dict[str, str] = {}
    if name is not None:
        _check_text("name", name, _LONGEST_NAME, required=True)
        values["name"] = name
    if description is not None:
        _check_text("description", description, _LONGEST_DESCRIPTION)
        values["description"] = description
    with ctx.store.write() as connection:
        credential = owned.find_for_change(connection, principal, credential_id)
        if if_match is not None and if_match != credential.revision:
            raise StalePreconditionError(
                "The task credential was changed since you read it.",
                hint="Read it again, then repeat your change with the new revision.",
            )
        if values:
            now = ctx.clock.now()
            credentials.change(connection, credential_id, now, **values)
            event = usability.event(
                credential, "credential:update", actor_of(principal), fields=sorted(values)
            )
            audit.append(connection, event, now)
        return owned.find(connection, principal, credential_id)


def rotate(
    ctx: Context,
    principal: Principal,
    credential_id: str,
    *,
    source: KeySource,
    drain: Drain | None = None,
    leaked: bool = False,
    key_name: str = "",
) -> Created:
    """Replace the key. `drain` says when the old one ends; by default when its last token has expired.

    `leaked` ends the old key first, at the provider too whatever its origin, working or not, and then
    replaces it. An unusable credential gets its new key in place. Raises as `create` does, and ConflictError with code
    credential_locked, credential_busy (another change is under way) or key_known.
    """
    drain = drain or Drain()
    authorize(ctx, principal, Permission.CREDENTIAL_ROTATE, "credential", credential_id)
    _check_text("key_name", key_name, _LONGEST_NAME)
    key_change.check_source(ctx, source)
    if drain.how == "at" and (drain.at is None or drain.at <= ctx.clock.now()):
        raise InvalidRequestError(
            "The old key's end must be a time in the future.", hint="Or say tokens, or now.", field="drain"
        )
    holder = intents.new_holder()
    with ctx.store.write() as connection:
        now = ctx.clock.now()
        credential = owned.find_for_change(connection, principal, credential_id)
        leaked_key = intent_ending.latest_to_end(connection, credential) if leaked else None
        _refuse_rotation(ctx, connection, credential, source, leaked_key)
        if leaked_key:
            intent_ending.revoke(
                connection,
                credential,
                [leaked_key],
                RevocationReason.KEY_COMPROMISE,
                actor_of(principal),
                now,
            )
            usability.take_out_of_use(
                connection,
                credential,
                CredentialState.UNUSABLE,
                "Its key was reported leaked and ended.",
                now,
            )
        intent = key_change.begin(
            ctx, connection, principal, "rotate", credential_id, source, key_name, drain, holder, now
        )
    if leaked:
        key_change.finish_ended(ctx, principal, credential_id)
    return key_change.advance(ctx, principal, intent, holder, source)


def _refuse_rotation(
    ctx: Context,
    connection: sa.Connection,
    credential: CredentialView,
    source: KeySource,
    leaked_key: KeyView | None,
) -> None:
    if credential.state is CredentialState.LOCKED:
        raise ConflictError(
            f"The task credential is locked: {credential.state_reason}",
            hint="An administrator can lift the lock.",
            code="credential_locked",
        )
    is_making = any(
        intent.kind in {"create", "rotate"} and intent.stage != "undo"
        for intent in intent_store.open_of(connection, credential.id)
    )
    if is_making:
        raise ConflictError(
            "Another change of this task credential's key is under way.",
            hint="Wait until it is finished; it takes seconds, or is given up visibly.",
            code="credential_busy",
        )
    if isinstance(source, Provided) and credentials.forbids_digest(
        connection,
        credential.id,
        ctx.sealer.keyed_digest(source.api_key),
        leaked_key.id if leaked_key else None,
    ):
        raise ConflictError(
            "The task credential has, or had, this very key.",
            hint="Make a new API key at the identity provider and provide that.",
            code="key_known",
        )


def delete(
    ctx: Context,
    principal: Principal,
    credential_id: str,
    *,
    reason: RevocationReason = RevocationReason.CESSATION_OF_OPERATION,
) -> None:
    """End a credential for good. It and its stand-in keys are out of use when this returns; keys we made
    are ended at the provider, and all material destroyed, now or by the keeper."""
    authorize(ctx, principal, Permission.CREDENTIAL_DELETE, "credential", credential_id)
    with ctx.store.write() as connection:
        now = ctx.clock.now()
        credential = owned.find_for_change(connection, principal, credential_id)
        end(connection, credential, reason, actor_of(principal), now)
    key_change.finish_ended(ctx, principal, credential_id)


def end(
    connection: sa.Connection,
    credential: CredentialView,
    reason: RevocationReason,
    actor: audit.Actor,
    now: datetime,
) -> None:
    """The commit that ends a credential, whoever asked for it; intents finish it outside."""
    event = usability.event(credential, "credential:delete", actor, reason=reason)
    audit.append(connection, event, now)
    credentials.change(
        connection,
        credential.id,
        now,
        state=CredentialState.ENDED,
        ended_at=now,
        end_reason=reason,
    )
    if credential.state is CredentialState.CREATING:
        return  # it has no keys yet; the intent that makes its first one finds it ended and undoes itself
    tokens.drop(connection, credential.id)
    changes.append(connection, "credential", credential.id, now)
    living = [state for state in KeyState if state is not KeyState.DESTROYED]
    intent_ending.revoke(
        connection,
        credential,
        credentials.keys(connection, credential.id, living),
        reason,
        actor,
        now,
        kind="delete",
    )


def impact(ctx: Context, principal: Principal, credential_id: str) -> Impact:
    """What ending the credential now would break."""
    authorize(ctx, principal, Permission.CREDENTIAL_READ, "credential", credential_id)
    with ctx.store.read() as connection:
        credential = owned.find(connection, principal, credential_id)
        return impact_store.of(connection, credential, ctx.clock.now())


def _check_text(field: str, text: str, longest: int, *, required: bool = False) -> None:
    if required and not text.strip():
        raise InvalidRequestError(f"{field} is empty.", hint=f"Say a {field}.", field=field)
    if len(text) > longest or any(ord(c) < 32 and c not in "\t\n\r" for c in text) or "\x7f" in text:
        raise InvalidRequestError(
            f"{field} is too long or has control characters.",
            hint=f"At most {longest} characters of plain text.",
            field=field,
        )
