"""What creating and rotating have in common: check the key source, commit the intent, advance it inline."""

from __future__ import annotations

import uuid
from datetime import datetime

import sqlalchemy as sa

from taskcred.domain.credentials import Created, Drain, Generated, KeySource, Origin, Provided
from taskcred.domain.permissions import Principal
from taskcred.errors import InvalidRequestError
from taskcred.services import intent_making, intents, material, owned
from taskcred.services.authorize import actor_of
from taskcred.services.context import Context
from taskcred.services.intent_lease import Means
from taskcred.store import intents as intent_store


def check_source(ctx: Context, source: KeySource) -> None:
    """Raise InvalidRequestError where the source cannot be meant so."""
    if isinstance(source, Provided):
        material.check_provided(source.api_key)
        return
    if source.expires_at is not None and source.never_expires:
        raise InvalidRequestError(
            "The key's expiry was given, and that it never expires.", hint="Say one.", field="never_expires"
        )
    if source.expires_at is not None and source.expires_at <= ctx.clock.now():
        raise InvalidRequestError("The key's expiry must be in the future.", field="expires_at")


def begin(
    ctx: Context,
    connection: sa.Connection,
    principal: Principal,
    kind: intent_store.Kind,
    credential_id: str,
    source: KeySource,
    key_name: str,
    drain: Drain,
    holder: str,
    now: datetime,
) -> intent_store.Intent:
    """The intent, leased by `holder`, in the transaction that makes room for the key."""
    expires_at = source.expiry(now) if isinstance(source, Generated) else None
    return intent_store.insert(
        connection,
        intent_id=str(uuid.uuid4()),
        kind=kind,
        credential_id=credential_id,
        account_id=principal.account_id,
        iam_id=principal.iam_id,
        stage="seal",
        data={
            "credential_id": credential_id,
            "key_id": str(uuid.uuid4()),
            "key_name": key_name,
            "origin": Origin.GENERATED if isinstance(source, Generated) else Origin.PROVIDED,
            "expires_at": expires_at.isoformat() if expires_at else None,
            "drain": {"how": drain.how, "at": drain.at.isoformat() if drain.at else None},
            "by": principal.actor_id,
            "by_kind": actor_of(principal).kind,
        },
        now=now,
        holder=holder,
        lease_until=now + ctx.policy.intents.lease,
    )


def advance(
    ctx: Context, principal: Principal, intent: intent_store.Intent, holder: str, source: KeySource
) -> Created:
    """Carry the change out as far as it goes now. Raises its cause where it cannot be had."""
    means = Means(
        actor_of(principal),
        authority=principal.token,
        provided=source.api_key if isinstance(source, Provided) else None,
    )
    credential_id = intent.data["credential_id"]
    after = intents.drive(ctx, intent, holder, means)
    if after.state == "rolled_back":
        raise intent_making.interrupted()
    if after.state == "done":
        finish_ended(ctx, principal, credential_id)
    with ctx.store.read() as connection:
        credential = owned.find(connection, principal, credential_id)
    shown = None
    if isinstance(source, Generated) and source.show_once and after.state == "done":
        shown = means.drawn
    return Created(credential, after.id, after.stage, shown)


def finish_ended(ctx: Context, principal: Principal, credential_id: str) -> None:
    """Carry out at once what the change ended, as far as the parts are there; the keeper does the rest."""
    with ctx.store.read() as connection:
        ending = [
            intent.id
            for intent in intent_store.open_of(connection, credential_id)
            if intent.kind in {"end_key", "delete"}
        ]
    holder = intents.new_holder()
    for intent_id in ending:
        intent = intents.take_up(ctx, intent_id, holder)
        if intent is not None:
            intents.drive(ctx, intent, holder, Means(actor_of(principal), authority=principal.token))
