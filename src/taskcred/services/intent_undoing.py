"""Undoing the making of a key: what was begun at the provider, in the vault and in the records."""

from __future__ import annotations

from typing import Any, Final

from taskcred.domain.credentials import CredentialState, RevocationReason
from taskcred.domain.secret import Secret
from taskcred.errors import KeyRefusedError, RecordNotFoundError, UpstreamUnavailableError
from taskcred.ports import ProviderKey
from taskcred.services import material
from taskcred.services.intent_lease import AbandonError, Lease, Means
from taskcred.store import audit, credentials, intents

UNDO: Final = "undo"


def made_path(lease: Lease) -> str:
    """The vault path of the key the intent makes."""
    return material.path(lease.credential_id, lease.intent.data["key_id"])


def made_key(lease: Lease) -> tuple[str, str]:
    """The same key as audit events name it."""
    return "key", lease.intent.data["key_id"]


def abandon(lease: Lease, means: Means, why: AbandonError) -> None:
    """From here on the intent only takes back. A credential that never came to be stops counting."""
    maybe_made = why.maybe_made and lease.intent.data.get("maybe_made", False)
    data = {**lease.intent.data, "maybe_made": maybe_made}
    with lease.commit(stage=UNDO, data=data, error=why.cause.message[:512], attempts=0) as (
        connection,
        now,
    ):
        credential = credentials.find_for_change(connection, lease.credential_id)
        if credential and credential.state is CredentialState.CREATING:
            credentials.change(
                connection,
                credential.id,
                now,
                state=CredentialState.ENDED,
                ended_at=now,
                end_reason=RevocationReason.UNSPECIFIED,
            )
        event = lease.event(
            f"credential:{lease.intent.kind}", means.actor, "refused", why=why.cause.error_code
        )
        audit.append(connection, event, now)
        if means.is_keeper:
            lease.tell_owner(connection, "creation_failed", why.cause.message)


def undo(lease: Lease, means: Means) -> None:
    """Take back what was begun: the key at the provider, the sealed value, the row."""
    if lease.intent.data.get("maybe_made"):
        _end_made(lease)
    lease.ctx.vault.destroy(made_path(lease))
    is_create = lease.intent.kind == "create"
    credential_id = lease.credential_id
    gone: dict[str, Any] = {"credential_id": None} if is_create else {}
    with lease.commit(stage="undone", state="rolled_back", **gone) as (connection, now):
        if is_create:
            credentials.remove(connection, credential_id)
        audit.append(connection, lease.event("key:destroy", means.actor, target=made_key(lease)), now)


def _end_made(lease: Lease) -> None:
    ctx, data = lease.ctx, lease.intent.data
    try:
        value = ctx.vault.open(made_path(lease))
        own = ctx.provider.exchange(value, for_run=False).token
    except RecordNotFoundError:
        return  # destroyed by an earlier try, which means that the provider's part was done
    except KeyRefusedError:
        if "provider_key_id" not in data and ctx.clock.now().timestamp() < data["unsure_until"]:
            raise UpstreamUnavailableError(
                "Whether the identity provider made the key is not known yet."
            ) from None
        return
    provider_key_id = data.get("provider_key_id") or ctx.provider.key_details(value, own).id
    ctx.provider.delete_key(own, provider_key_id)


def take_back(lease: Lease, authority: Secret, made: ProviderKey) -> None:
    """This process stood still so long that another holder found no key and undid the intent; only then
    did our call arrive. Nobody but us knows of the key."""
    with lease.ctx.store.read() as connection:
        intent = intents.find(connection, lease.intent.id)
    if intent is None or intent.state == "rolled_back":
        lease.ctx.provider.delete_key(authority, made.id)
