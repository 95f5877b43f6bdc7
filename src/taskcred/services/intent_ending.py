"""Ending keys: the stages of the intents `end_key` and `delete`.

    stage    on disk when it begins                       what it does
    record   the keys are revoked in the records          append to the revocation log         -> end
    end      the same                                     each key: end it at the provider if we made it (or
                                                          it leaked), destroy its material      -> done

Nothing waits for this: when the intent was committed the keys were out of use. A key we made is ended at
the provider before its material is destroyed, with the owner's token, its own, or its successor's.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from datetime import datetime

import sqlalchemy as sa

from taskcred.domain.credentials import (
    CredentialView,
    KeyState,
    KeyView,
    Origin,
    RevocationReason,
)
from taskcred.domain.secret import Secret
from taskcred.errors import KeyRefusedError, ProviderRefusedError, RecordNotFoundError
from taskcred.services import material
from taskcred.services.intent_lease import Lease, Means
from taskcred.store import audit, credentials, intents


def revoke(
    connection: sa.Connection,
    credential: CredentialView,
    keys: list[KeyView],
    reason: RevocationReason,
    actor: audit.Actor,
    now: datetime,
    *,
    kind: intents.Kind = "end_key",
    holder: str | None = None,
    lease_until: datetime | None = None,
) -> intents.Intent:
    """End keys for good in the records, and begin the intent that finishes it outside.

    A key that was revoked before keeps its first reason and time, unless now it is reported leaked.
    """
    is_leak = reason is RevocationReason.KEY_COMPROMISE
    for key in keys:
        if key.reason is not None and (key.reason is reason or not is_leak):
            continue
        credentials.change_key(
            connection, key.id, state=KeyState.REVOKED, reason=reason, ended_at=now, end_at=None
        )
        event = audit.Event(
            "key:revoke",
            "success",
            actor,
            credential.account_id,
            credential.iam_id,
            "key",
            key.id,
            details={"credential": credential.id, "reason": reason},
        )
        audit.append(connection, event, now)
    return _insert(
        connection,
        credential,
        [key.id for key in keys],
        now,
        kind=kind,
        holder=holder,
        lease_until=lease_until,
    )


def end_leftovers(connection: sa.Connection, credential: CredentialView, now: datetime) -> None:
    """Keys that expired or were refused were kept in case they recovered; now there is a successor."""
    being_ended = _being_ended(connection, credential)
    left = credentials.keys(connection, credential.id, (KeyState.EXPIRED, KeyState.REVOKED))
    ids = [key.id for key in left if key.id not in being_ended]
    if ids:
        _insert(connection, credential, ids, now)


def latest_to_end(connection: sa.Connection, credential: CredentialView) -> KeyView | None:
    """The key the credential works with, or worked with until it expired or was refused; None where that
    one's end is over or under way."""
    being_ended = _being_ended(connection, credential)
    for key in credentials.keys(connection, credential.id)[:1]:
        if key.state is not KeyState.DESTROYED and key.id not in being_ended:
            return key
    return None


def _being_ended(connection: sa.Connection, credential: CredentialView) -> set[str]:
    return {
        key_id
        for intent in intents.open_of(connection, credential.id)
        for key_id in intent.data.get("key_ids", ())
    }


def _insert(
    connection: sa.Connection,
    credential: CredentialView,
    key_ids: list[str],
    now: datetime,
    *,
    kind: intents.Kind = "end_key",
    holder: str | None = None,
    lease_until: datetime | None = None,
) -> intents.Intent:
    return intents.insert(
        connection,
        intent_id=str(uuid.uuid4()),
        kind=kind,
        credential_id=credential.id,
        account_id=credential.account_id,
        iam_id=credential.iam_id,
        stage="record",
        data={"credential_id": credential.id, "key_ids": key_ids},
        now=now,
        holder=holder,
        lease_until=lease_until,
    )


def record(lease: Lease, _means: Means) -> None:
    """Tell the log outside every backup, so that a restore cannot bring the keys back."""
    intent = lease.intent
    if intent.kind == "delete":
        lease.ctx.revocations.append("credential", lease.credential_id, intent.account_id, intent.iam_id)
    for key_id in intent.data["key_ids"]:
        lease.ctx.revocations.append("key", key_id, intent.account_id, intent.iam_id)
    with lease.commit(stage="end"):
        pass


def end(lease: Lease, means: Means) -> None:
    """End each key outside, and commit that it is destroyed; one already destroyed is passed over."""
    for key_id in lease.intent.data["key_ids"]:
        with lease.ctx.store.read() as connection:
            key = credentials.key(connection, key_id)
        if key is None or key.state is KeyState.DESTROYED:
            continue
        # Asked of the key: it may have leaked in another change than the one that ends it now.
        if key.origin is Origin.GENERATED or key.reason is RevocationReason.KEY_COMPROMISE:
            _end_at_provider(lease, means, key)
        lease.ctx.vault.destroy(material.path(key.credential_id, key.id))
        with lease.commit(stage="end") as (connection, now):
            ended_at = key.ended_at or now
            credentials.change_key(connection, key.id, state=KeyState.DESTROYED, ended_at=ended_at)
            event = lease.event("key:destroy", means.actor, target=("key", key.id))
            audit.append(connection, event, now)
    with lease.commit(stage="done", state="done", error=None):
        pass


def _end_at_provider(lease: Lease, means: Means, key: KeyView) -> None:
    """Delete the key at the provider, or disable it where its owner made it. Raises ProviderRefusedError
    where every authority was refused and the key still works."""
    ctx = lease.ctx
    try:
        value = ctx.vault.open(material.path(key.credential_id, key.id))
    except RecordNotFoundError:
        return  # destroyed by an earlier try, which means that the provider's part was done
    refusal: ProviderRefusedError | None = None
    for authority in _authorities(lease, means, key, value):
        try:
            provider_key_id = key.provider_key_id or ctx.provider.key_details(value, authority).id
            if key.origin is Origin.GENERATED:
                ctx.provider.delete_key(authority, provider_key_id)
            else:
                ctx.provider.disable_key(authority, provider_key_id)
        except ProviderRefusedError as error:
            refusal = error
        else:
            return
    if refusal is not None and _management_token(lease, value) is not None:
        raise refusal


def _authorities(lease: Lease, means: Means, key: KeyView, value: Secret) -> Iterator[Secret]:
    """Whose token may end the key, cheapest first: the owner's, the key's own, its successor's."""
    if means.authority is not None:
        yield means.authority
    own = _management_token(lease, value)
    if own is not None:
        yield own
    with lease.ctx.store.read() as connection:
        successor = credentials.active_key(connection, key.credential_id)
    if successor is None:
        return
    try:
        value = lease.ctx.vault.open(material.path(successor.credential_id, successor.id))
    except RecordNotFoundError:
        return
    successors = _management_token(lease, value)
    if successors is not None:
        yield successors


def _management_token(lease: Lease, value: Secret) -> Secret | None:
    """A token that may manage keys; None where the provider refuses the key."""
    try:
        return lease.ctx.provider.exchange(value, for_run=False).token
    except KeyRefusedError:
        return None
