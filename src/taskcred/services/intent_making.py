"""Making a credential's key: the stages of the intents `create` and `rotate`.

    stage   on disk when it begins                              what it does
    seal    the intent (and, for create, a row in `creating`)   provided: exchange, seal, activate
                                                                generated: draw, seal           -> make
    make    + the value in the vault; the provider may have it  create it there, or find it     -> check
    check   + the provider's id of the key                      exchange, activate              -> done
    undo    the same, and the reason                            end it at the provider, destroy
                                                                the value, remove the row       -> undone

A live exchange with the value decides what a crash or a time-out left at the provider. Activating is one
commit: the new key active, the old one phased out, the token cached, the prompt answered.
"""

from __future__ import annotations

import contextlib
from datetime import datetime

import sqlalchemy as sa

from taskcred.domain import keytext
from taskcred.domain.credentials import (
    CredentialState,
    CredentialView,
    KeyState,
    KeyView,
    Origin,
    RevocationReason,
)
from taskcred.domain.secret import Secret
from taskcred.errors import (
    ConflictError,
    InvalidRequestError,
    KeyRefusedError,
    ProviderRefusedError,
    RecordNotFoundError,
    UnavailableError,
)
from taskcred.ports import AccessToken, ProviderKey
from taskcred.services import intent_ending, intent_undoing, material, prompts, tokens
from taskcred.services.intent_lease import AbandonError, Lease, LeaseLostError, Means
from taskcred.services.intent_undoing import made_key, made_path
from taskcred.store import audit, changes, credentials


def interrupted() -> ConflictError:
    """What the caller hears where a crash, or another holder, ended the work."""
    return ConflictError(
        "The work was interrupted before the key was made; nothing of it is left.",
        hint="Do it again.",
        code="interrupted",
    )


# seal


def seal(lease: Lease, means: Means) -> None:
    """The first stage: get the value into the vault before anything else can hold it."""
    _require_open_credential(lease)
    if lease.intent.data["origin"] == Origin.PROVIDED:
        _seal_provided(lease, means)
    else:
        _seal_generated(lease, means)


def _require_open_credential(lease: Lease) -> None:
    with lease.ctx.store.read() as connection:
        credential = credentials.find(connection, lease.credential_id)
    if credential is None or credential.state is CredentialState.ENDED:
        raise AbandonError(
            ConflictError("The task credential was deleted meanwhile.", code="credential_ended")
        )


def _seal_provided(lease: Lease, means: Means) -> None:
    try:
        value = means.provided or lease.ctx.vault.open(made_path(lease))
        token = _exchange_own(lease, value)
        described = _describe(lease, means, value)
        if means.provided:
            lease.ctx.vault.store(made_path(lease), value)
    except RecordNotFoundError:
        raise AbandonError(interrupted()) from None
    except KeyRefusedError:
        raise AbandonError(
            InvalidRequestError(
                "The identity provider does not accept this API key.",
                hint="Check that the key exists, is enabled and has not expired; then paste it again.",
                code="key_refused",
                field="secret.api_key",
            )
        ) from None
    except UnavailableError as error:
        if means.provided:  # only this request has the value: nobody could go on later
            raise AbandonError(error) from None
        raise
    _activate(lease, means, value, token, described)


def _exchange_own(lease: Lease, value: Secret) -> AccessToken:
    """A token for runs from the key, which must be this owner's and this account's."""
    token = lease.ctx.provider.exchange(value, for_run=True)
    if (token.account_id, token.iam_id) != (lease.intent.account_id, lease.intent.iam_id):
        raise AbandonError(
            InvalidRequestError(
                "This API key belongs to somebody else, or to another account.",
                hint="Provide a key of your own, made in the account you are signed in to.",
                code="key_of_other_owner",
                field="secret.api_key",
            )
        )
    return token


def _describe(lease: Lease, means: Means, value: Secret) -> ProviderKey | None:
    """Name and expiry of a provided key; None where the provider does not tell us."""
    with contextlib.suppress(ProviderRefusedError):
        if means.authority:
            return lease.ctx.provider.key_details(value, means.authority)
    with contextlib.suppress(ProviderRefusedError):
        own = lease.ctx.provider.exchange(value, for_run=False)
        return lease.ctx.provider.key_details(value, own.token)
    return None


def _seal_generated(lease: Lease, means: Means) -> None:
    if lease.intent.kind == "create" and means.authority is None:
        raise AbandonError(interrupted(), maybe_made=False)
    drawn = keytext.new_key(keytext.USER_KEY_PREFIX)
    try:
        # Once: a holder that was paused here and comes late must not replace a value that by now is a key.
        value = lease.ctx.vault.store_once(made_path(lease), drawn)
    except UnavailableError as error:
        raise AbandonError(error, maybe_made=False) from None
    now = lease.ctx.clock.now()
    # A call to the provider ends within the lease: after this instant none can arrive late any more.
    unsure_until = (now + lease.ctx.policy.intents.lease).timestamp()
    data = {**lease.intent.data, "maybe_made": True, "unsure_until": unsure_until}
    with lease.commit(stage="make", data=data) as (connection, at):
        audit.append(connection, lease.event("key:seal", means.actor, target=made_key(lease)), at)
    means.drawn = value


# make


def make(lease: Lease, means: Means) -> None:
    """Create the key at the provider with the sealed value, or find that it is there already."""
    _require_open_credential(lease)
    if means.drawn is not None:  # drawn a moment ago: the provider cannot know it yet
        value = means.drawn
    else:
        value = _open_sealed(lease)
        found = _find_made(lease, value)
        if found is not None:
            _made(lease, means, found)
            return
    authority = means.authority or _active_keys_token(lease)
    if authority is None:
        raise AbandonError(interrupted())
    try:
        made = lease.ctx.provider.create_key(
            authority,
            name=material.provider_name(lease.credential_id, lease.intent.data["key_id"]),
            iam_id=lease.intent.iam_id,
            account_id=lease.intent.account_id,
            value=value,
            expires_at=_expires_at(lease),
        )
    except ProviderRefusedError as error:
        raise AbandonError(
            ConflictError(
                f"The identity provider refused to make an API key: {error.message}",
                hint="There may be too many keys already, or your rights do not allow it; see the provider.",
                code="provider_refused",
            ),
            maybe_made=False,
        ) from error
    except UnavailableError:
        means.drawn = None  # from here on a live exchange decides
        found = _find_made(lease, value)
        if found is None:
            raise
        made = found
    try:
        _made(lease, means, made)
    except LeaseLostError:
        intent_undoing.take_back(lease, authority, made)
        raise


def _expires_at(lease: Lease) -> datetime | None:
    wished: str | None = lease.intent.data["expires_at"]
    return datetime.fromisoformat(wished) if wished else None


def _open_sealed(lease: Lease) -> Secret:
    try:
        return lease.ctx.vault.open(made_path(lease))
    except RecordNotFoundError:
        raise AbandonError(interrupted(), maybe_made=False) from None


def _find_made(lease: Lease, value: Secret) -> ProviderKey | None:
    """The provider's description of the key with this value; None where there is no such key."""
    try:
        own = lease.ctx.provider.exchange(value, for_run=False)
    except KeyRefusedError:
        return None
    return lease.ctx.provider.key_details(value, own.token)


def _active_keys_token(lease: Lease) -> Secret | None:
    """The authority of an unattended rotation: a management token from the key that is active now."""
    with lease.ctx.store.read() as connection:
        active = credentials.active_key(connection, lease.credential_id)
    if active is None:
        return None
    try:
        value = lease.ctx.vault.open(material.path(lease.credential_id, active.id))
        return lease.ctx.provider.exchange(value, for_run=False).token
    except (KeyRefusedError, RecordNotFoundError):
        return None


def _made(lease: Lease, means: Means, made: ProviderKey) -> None:
    data = {**lease.intent.data, "provider_key_id": made.id}
    with lease.commit(stage="check", data=data) as (connection, at):
        event = lease.event("key:create", means.actor, target=made_key(lease), provider_key=made.id)
        audit.append(connection, event, at)


# check and activate


def check(lease: Lease, means: Means) -> None:
    """Try the new key live; only a key that works replaces anything."""
    _require_open_credential(lease)
    value = means.drawn or _open_sealed(lease)
    token = _exchange_own(lease, value)
    _activate(lease, means, value, token, None)


def _activate(
    lease: Lease,
    means: Means,
    value: Secret,
    token: AccessToken,
    described: ProviderKey | None,
) -> None:
    """The one commit that makes the key the credential's; `described` is what the provider says of it."""
    ctx, data = lease.ctx, lease.intent.data
    with lease.commit(stage="done", state="done", error=None) as (connection, now):
        credential = credentials.find_for_change(connection, lease.credential_id)
        if credential is None or credential.state in {CredentialState.ENDED, CredentialState.LOCKED}:
            raise AbandonError(
                ConflictError(
                    "The task credential was locked or deleted meanwhile.",
                    hint="Its state says what is possible now.",
                    code="credential_changed",
                )
            )
        if credential.active_key:
            _replace(lease, means, connection, credential, credential.active_key, now)
        intent_ending.end_leftovers(connection, credential, now)
        credentials.insert_key(
            connection,
            key_id=data["key_id"],
            credential_id=credential.id,
            name=data["key_name"] or (described.name if described else credential.name),
            origin=Origin(data["origin"]),
            last_four=value.last_four,
            digest=ctx.sealer.keyed_digest(value),
            provider_key_id=described.id if described else data.get("provider_key_id"),
            expires_at=described.expires_at if described else _expires_at(lease),
            token_expires_at=token.expires_at,
            now=now,
        )
        tokens.put(ctx, connection, credential.id, data["key_id"], token)
        credentials.change(connection, credential.id, now, state=CredentialState.USABLE, state_reason=None)
        if credential.state is not CredentialState.CREATING:
            # What processes hold of the old key is out of use: they fetch the new token at the next call.
            changes.append(connection, "credential", credential.id, now)
        if credential.state is not CredentialState.USABLE:
            # Who asked for the key has answered, also where the keeper finishes it.
            who = audit.Actor(data["by"], data["by_kind"]) if means.is_keeper else means.actor
            prompts.settle(ctx, connection, credential.account_id, credential.iam_id, who)
        event = lease.event(
            f"credential:{lease.intent.kind}",
            means.actor,
            key=data["key_id"],
            origin=data["origin"],
            by=data["by"],
        )
        audit.append(connection, event, now)


def _replace(
    lease: Lease,
    means: Means,
    connection: sa.Connection,
    credential: CredentialView,
    old: KeyView,
    now: datetime,
) -> None:
    """Phase the old key out, or end it, as the caller wished."""
    drain = lease.intent.data["drain"]
    if drain["how"] == "now":
        intent_ending.revoke(connection, credential, [old], RevocationReason.SUPERSEDED, means.actor, now)
        return
    end_at = datetime.fromisoformat(drain["at"]) if drain["how"] == "at" else old.last_token_expires_at
    credentials.change_key(
        connection,
        old.id,
        state=KeyState.PHASED_OUT,
        drain=drain["how"],
        end_at=end_at or now,
    )
    event = lease.event("key:phase_out", means.actor, target=("key", old.id), drain=drain["how"])
    audit.append(connection, event, now)
