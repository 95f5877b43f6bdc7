"""A service's client secrets, and the secret that its webhooks are signed with.

Client secrets have 256 random bits, so their plain digest is kept, and guessing is no use. They are checked
against the records at each request: one that ended is refused from the next request on, on every host.
"""

from __future__ import annotations

import base64
import hmac
import secrets
import uuid
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Final

import sqlalchemy as sa

from taskcred.domain.keytext import SERVICE_SECRET_PREFIX, new_key
from taskcred.domain.permissions import Principal
from taskcred.domain.secret import Secret
from taskcred.domain.services import LONGEST_OVERLAP, OVERLAP, ServiceView
from taskcred.errors import (
    ConflictError,
    InvalidRequestError,
    InvalidTokenError,
    NotFoundError,
    RecordNotFoundError,
    TaskcredError,
)
from taskcred.services.context import Context
from taskcred.services.service_door import By, enter, for_change, record, seen
from taskcred.services.service_entry import let_in
from taskcred.services.sessions import Visit
from taskcred.store import changes
from taskcred.store import services as store

_WEBHOOK_BYTES: Final = 32  # Standard Webhooks: 24 to 64


@dataclass(frozen=True, slots=True)
class NewSecret:
    """The service as it is now, and the secret, shown this once."""

    service: ServiceView
    secret: Secret


def draw_secret() -> Secret:
    """A fresh client secret."""
    return new_key(SERVICE_SECRET_PREFIX)


def draw_webhook_secret() -> Secret:
    """A fresh signing secret, as Standard Webhooks writes it."""
    return Secret("whsec_" + base64.b64encode(secrets.token_bytes(_WEBHOOK_BYTES)).decode())


def webhook_path(service_id: str) -> str:
    """Where the vault has the service's signing secret."""
    return f"services/{service_id}/webhook"


def add(connection: sa.Connection, service_id: str, secret: Secret, now: datetime) -> str:
    """A client secret, by its digest; its id."""
    secret_id = str(uuid.uuid4())
    store.add_secret(
        connection,
        secret_id=secret_id,
        service_id=service_id,
        digest=secret.digest(),
        last_four=secret.last_four,
        created_at=now,
    )
    return secret_id


def rotate(ctx: Context, by: By, service_id: str, *, overlap: timedelta = OVERLAP) -> NewSecret:
    """A new client secret. Earlier ones go on for `overlap`, or end with this where it is none."""
    _verify_overlap(overlap)
    actor = enter(ctx, by, service_id)
    now = ctx.clock.now()
    secret = draw_secret()
    with ctx.store.write() as connection:
        for_change(connection, by, service_id)
        if overlap == timedelta(0):
            for old in store.valid_secrets(connection, service_id, now):
                ctx.revocations.append("service_secret", old.id, "", "")
            changes.append(connection, "service", service_id, now)
        store.phase_out_secrets(connection, service_id, now + overlap)
        secret_id = add(connection, service_id, secret, now)
        store.change(connection, service_id)
        seconds = int(overlap.total_seconds())
        record(ctx, connection, actor, "service:rotate_secret", service_id, secret=secret_id, overlap=seconds)
        return NewSecret(seen(ctx, connection, service_id), secret)


def end_one(ctx: Context, by: By, service_id: str, secret_id: str) -> ServiceView:
    """End a secret that was replaced before its overlap is over. Raises ConflictError (`secret_current`) for
    the newest: it is replaced, not ended."""
    actor = enter(ctx, by, service_id)
    now = ctx.clock.now()
    with ctx.store.write() as connection:
        for_change(connection, by, service_id)
        secret = next(
            (each for each in store.valid_secrets(connection, service_id, now) if each.id == secret_id), None
        )
        if secret is None:
            raise NotFoundError(
                "There is no such secret, or it has ended.", hint="Read the service to see those it has."
            )
        if secret.ends_at is None:
            raise ConflictError(
                "This is the service's present secret.",
                hint="Rotate it with an overlap of 0: the old one ends at once.",
                code="secret_current",
            )
        ctx.revocations.append("service_secret", secret_id, "", "")
        store.end_secret(connection, secret_id, now)
        store.change(connection, service_id)
        changes.append(connection, "service", service_id, now)
        record(ctx, connection, actor, "service:end_secret", service_id, secret=secret_id)
        return seen(ctx, connection, service_id)


def rotate_webhook(ctx: Context, by: By, service_id: str, *, overlap: timedelta = OVERLAP) -> NewSecret:
    """A new signing secret. For `overlap` webhooks carry a signature by the one before too, so that the
    service misses none while it learns the new one.

    The event is committed before the vault is asked, and taken back by a second one where it refuses: a
    secret that changed without an event there is not.
    """
    _verify_overlap(overlap)
    actor = enter(ctx, by, service_id)
    fresh, path = draw_webhook_secret(), webhook_path(service_id)
    seconds = int(overlap.total_seconds())
    with ctx.store.write() as connection:
        for_change(connection, by, service_id)
        ends_at = ctx.clock.now() + overlap if overlap else None
        store.change(connection, service_id, old_webhook_secret_ends_at=ends_at)
        record(ctx, connection, actor, "service:rotate_webhook_secret", service_id, overlap=seconds)
        service = seen(ctx, connection, service_id)
    try:
        before = _in_vault(ctx, service_id)[:1] if overlap else []
        # Both lie in one record, the new one first.
        ctx.vault.store(path, Secret("\n".join(secret.reveal() for secret in (fresh, *before))))
    except TaskcredError as error:
        action, why = "service:rotate_webhook_secret", error.error_code
        with ctx.store.write() as connection:
            record(ctx, connection, actor, action, service_id, "given_up", why=why)
        raise
    return NewSecret(service, fresh)


def signing_secrets(ctx: Context, service_id: str) -> list[Secret]:
    """What webhooks of the service are signed with, the newest first: none where it has none, two while one
    is being replaced."""
    with ctx.store.read() as connection:
        row = store.find(connection, service_id)
    ends_at = None if row is None else row.old_webhook_secret_ends_at
    kept = _in_vault(ctx, service_id)
    return kept if ends_at is not None and ends_at > ctx.clock.now() else kept[:1]


def _in_vault(ctx: Context, service_id: str) -> list[Secret]:
    try:
        # To part them: they are lines of one record.
        return [Secret(line) for line in ctx.vault.open(webhook_path(service_id)).reveal().split()]
    except RecordNotFoundError:
        return []


def _verify_overlap(overlap: timedelta) -> None:
    if not timedelta(0) <= overlap <= LONGEST_OVERLAP:
        raise InvalidRequestError(
            f"Secrets overlap for at most {LONGEST_OVERLAP.days} days.",
            hint="24 hours are enough to put the new one in place everywhere; 0 ends the old one now.",
            field="overlap_seconds",
        )


def authenticate(ctx: Context, client_id: str, secret: Secret, visit: Visit) -> Principal:
    """Who presents this client id and secret. Raises InvalidTokenError (`invalid_client`), ForbiddenError
    (`service_disabled`)."""
    now = ctx.clock.now()
    digest = secret.digest()
    with ctx.store.read() as connection:
        row = store.find(connection, client_id)
        found = None
        for known in store.valid_secrets(connection, client_id, now) if row is not None else ():
            if hmac.compare_digest(known.digest, digest):
                found = known
    if row is None or found is None:
        raise InvalidTokenError(
            "Client id or client secret is wrong, or the secret has ended.",
            hint="Ask an administrator of the service for a new one: `taskcred admin service rotate-secret`.",
            code="invalid_client",
        )
    return let_in(
        ctx, row, visit, found.last_used_at, partial(store.note_secret_use, secret_id=found.id, now=now)
    )
