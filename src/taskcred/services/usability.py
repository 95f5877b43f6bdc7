"""When a credential stops being usable, or is again, without its owner having changed it."""

from __future__ import annotations

from datetime import datetime

import sqlalchemy as sa

from taskcred.domain.credentials import (
    CredentialState,
    CredentialView,
    KeyState,
    KeyView,
    RevocationReason,
)
from taskcred.errors import ConflictError, NotFoundError
from taskcred.services import notices, prompts
from taskcred.services.context import Context
from taskcred.store import audit, changes, credentials, tokens


def event(
    credential: CredentialView,
    action: str,
    actor: audit.Actor,
    outcome: audit.Outcome = "success",
    **details: object,
) -> audit.Event:
    """An audit event about a credential."""
    return audit.Event(
        action,
        outcome,
        actor,
        credential.account_id,
        credential.iam_id,
        "credential",
        credential.id,
        details=details,
    )


def take_out_of_use(
    connection: sa.Connection,
    credential: CredentialView,
    state: CredentialState,
    state_reason: str | None,
    now: datetime,
) -> None:
    """The credential leaves `usable`: its cached token is forgotten, and every process hears of it."""
    credentials.change(connection, credential.id, now, state=state, state_reason=state_reason)
    tokens.drop(connection, credential.id)
    changes.append(connection, "credential", credential.id, now)


def put_aside(
    connection: sa.Connection, credential: CredentialView, reason: str, actor: audit.Actor, now: datetime
) -> None:
    """The commit of a lock, whatever locks."""
    if credential.active_key:
        # A usable credential has one active key, any other none: the lock puts it aside, undrained.
        credentials.change_key(connection, credential.active_key.id, state=KeyState.PHASED_OUT)
    take_out_of_use(connection, credential, CredentialState.LOCKED, reason, now)
    audit.append(connection, event(credential, "credential:lock", actor, reason=reason), now)


def key_expired(ctx: Context, connection: sa.Connection, key: KeyView, now: datetime) -> None:
    """The active key's time is over."""
    credentials.change_key(connection, key.id, state=KeyState.EXPIRED, ended_at=now)
    _has_become_unusable(ctx, connection, key, "Its key has expired.", "key_expired", now)


def key_refused(ctx: Context, connection: sa.Connection, key: KeyView, now: datetime) -> None:
    """The identity provider refuses the active key. Its material is kept until it is replaced."""
    credentials.change_key(
        connection,
        key.id,
        state=KeyState.REVOKED,
        reason=RevocationReason.PRIVILEGE_WITHDRAWN,
        ended_at=now,
    )
    _has_become_unusable(ctx, connection, key, "The identity provider refuses its key.", "key_refused", now)


def _has_become_unusable(
    ctx: Context, connection: sa.Connection, key: KeyView, why: str, kind: str, now: datetime
) -> None:
    credential = credentials.find_for_change(connection, key.credential_id)
    if credential is None:
        raise NotFoundError("There is no such task credential.")
    take_out_of_use(connection, credential, CredentialState.UNUSABLE, why, now)
    audit.append(
        connection, event(credential, "credential:unusable", audit.KEEPER, key=key.id, why=kind), now
    )
    notices.add(
        ctx,
        connection,
        credential.account_id,
        credential.iam_id,
        kind,
        {"credential_id": credential.id, "credential": credential.name, "key": key.name},
    )


def lock(ctx: Context, actor: audit.Actor, credential_id: str, reason: str) -> None:
    """End a credential reversibly: its key is put aside, runs get no more tokens from now on.

    Raises NotFoundError, and ConflictError where its state does not allow it.
    """
    with ctx.store.write() as connection:
        now = ctx.clock.now()
        credential = _for_change(connection, credential_id)
        if credential.state not in {CredentialState.USABLE, CredentialState.UNUSABLE}:
            raise ConflictError(
                f"A task credential that is {credential.state} cannot be locked.",
                hint="Only a usable or unusable one can.",
                code="credential_not_lockable",
            )
        put_aside(connection, credential, reason, actor, now)
        notices.add(
            ctx,
            connection,
            credential.account_id,
            credential.iam_id,
            "credential_locked",
            {"credential_id": credential.id, "credential": credential.name, "reason": reason},
        )


def unlock(ctx: Context, actor: audit.Actor, credential_id: str) -> None:
    """Lift a lock: the key that was put aside is active again, and parked runs are queued.

    Where there is none, or it has expired meanwhile, the credential is unusable until its key is replaced.
    """
    with ctx.store.write() as connection:
        now = ctx.clock.now()
        credential = _for_change(connection, credential_id)
        if credential.state is not CredentialState.LOCKED:
            raise ConflictError("This task credential is not locked.", code="credential_not_locked")
        audit.append(connection, event(credential, "credential:unlock", actor), now)
        key = credentials.held_key(connection, credential_id)
        if key is None:
            credentials.change(
                connection,
                credential_id,
                now,
                state=CredentialState.UNUSABLE,
                state_reason="It has no working key.",
            )
            return
        credentials.change_key(connection, key.id, state=KeyState.ACTIVE)
        credentials.change(connection, credential_id, now, state=CredentialState.USABLE, state_reason=None)
        if key.expires_at and key.expires_at <= now:
            key_expired(ctx, connection, key, now)
        else:
            prompts.settle(ctx, connection, credential.account_id, credential.iam_id, actor)


def _for_change(connection: sa.Connection, credential_id: str) -> CredentialView:
    credential = credentials.find_for_change(connection, credential_id)
    if credential is None:
        raise NotFoundError("There is no such task credential.", hint="List the task credentials.")
    return credential
