"""The keys of a credential: list them, end one."""

from __future__ import annotations

from taskcred.domain.credentials import CredentialState, KeyState, KeyView, RevocationReason
from taskcred.domain.permissions import Permission, Principal
from taskcred.errors import ConflictError, NotFoundError
from taskcred.services import intent_ending, intents, owned
from taskcred.services.authorize import actor_of, authorize
from taskcred.services.context import Context
from taskcred.services.intent_lease import Means
from taskcred.store import changes, credentials


def keys(ctx: Context, principal: Principal, credential_id: str) -> list[KeyView]:
    """All keys the credential has had: the active one, then newest first. Raises NotFoundError."""
    authorize(ctx, principal, Permission.CREDENTIAL_READ, "credential", credential_id)
    with ctx.store.read() as connection:
        return credentials.keys(connection, owned.find(connection, principal, credential_id).id)


def end_key(ctx: Context, principal: Principal, credential_id: str, key_id: str) -> None:
    """End a key that is not the active one now, whatever was planned for it.

    Raises NotFoundError, and ConflictError with code key_active, key_ended or credential_locked.
    """
    authorize(ctx, principal, Permission.CREDENTIAL_ROTATE, "key", key_id)
    holder = intents.new_holder()
    with ctx.store.write() as connection:
        now = ctx.clock.now()
        credential = owned.find_for_change(connection, principal, credential_id)
        key = credentials.key(connection, key_id)
        if key is None or key.credential_id != credential.id:
            raise NotFoundError("There is no such key.", hint="List the credential's keys.")
        _refuse_end(credential.state, key)
        intent = intent_ending.revoke(
            connection,
            credential,
            [key],
            RevocationReason.SUPERSEDED,
            actor_of(principal),
            now,
            holder=holder,
            lease_until=now + ctx.policy.intents.lease,
        )
        changes.append(connection, "credential", credential.id, now)
    intents.drive(ctx, intent, holder, Means(actor_of(principal), authority=principal.token))


def _refuse_end(state: CredentialState, key: KeyView) -> None:
    if key.state is KeyState.ACTIVE:
        raise ConflictError(
            "This is the active key.",
            hint="Rotate to replace it, or delete the task credential.",
            code="key_active",
        )
    if state is CredentialState.LOCKED:
        raise ConflictError(
            "The task credential is locked; its keys stay as they are until the lock is lifted.",
            hint="An administrator can lift the lock; deleting the task credential ends all its keys.",
            code="credential_locked",
        )
    if key.state in {KeyState.REVOKED, KeyState.DESTROYED}:
        # Why it was revoked stays as it is: a key reported leaked is not one that was merely replaced.
        raise ConflictError("This key has ended already.", code="key_ended")
