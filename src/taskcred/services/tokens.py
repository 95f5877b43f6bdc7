"""Access tokens of credentials: exchanged once for everybody, sealed in the records, refreshed in time.

Single flight is a row lease with a deadline, so it holds across processes and hosts: whoever takes the
lease talks to the identity provider, the others wait for the row to change.
"""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

import sqlalchemy as sa

from taskcred.domain.credentials import CredentialState, KeyView
from taskcred.domain.secret import Secret
from taskcred.errors import (
    ConflictError,
    IntegrityError,
    KeyRefusedError,
    RecordNotFoundError,
    TaskcredError,
    UpstreamUnavailableError,
)
from taskcred.ports import AccessToken
from taskcred.services import material, usability
from taskcred.services.context import Context
from taskcred.store import credentials, tokens

_log: Final = logging.getLogger(__name__)

_POLL_SECONDS: Final = 0.03  # waiters look at the row this often
_LONGEST_BACK_OFF: Final = timedelta(seconds=30)
_WORTH_HAVING: Final = 0.1  # a token with less than this part of its life left is not given to a new run
_AT_ONCE: Final = 8  # exchanges under way at once while refreshing
_KEPT_AFTER_EXPIRY: Final = timedelta(minutes=5)  # clocks differ; a digest outlives its token by this


@dataclass(frozen=True, slots=True)
class Token:
    """A cached access token."""

    token: Secret
    digest: bytes
    key_id: str
    issued_at: datetime
    expires_at: datetime
    refresh_at: datetime

    @property
    def worth_until(self) -> datetime:
        """From here on so little of its life is left that an exchange comes first."""
        return self.expires_at - (self.expires_at - self.issued_at) * _WORTH_HAVING


def _seal_context(credential_id: str) -> str:
    return f"access_tokens/{credential_id}"


def put(ctx: Context, connection: sa.Connection, credential_id: str, key_id: str, token: AccessToken) -> None:
    """Cache a token just exchanged; in the same transaction it becomes known as a run's token."""
    life = token.expires_at - token.issued_at
    tokens.put(
        connection,
        credential_id=credential_id,
        key_id=key_id,
        sealed=ctx.sealer.seal(token.token, _seal_context(credential_id)),
        digest=token.token.digest(),
        issued_at=token.issued_at,
        expires_at=token.expires_at,
        refresh_at=token.issued_at + life * ctx.policy.tokens.refresh_after,
    )


def get(ctx: Context, connection: sa.Connection, credential_id: str) -> Token | None:
    """The cached token, where there is one that has not expired."""
    row = tokens.cached(connection, credential_id)
    if row is None or row.sealed is None:
        return None
    if not (row.digest and row.key_id and row.issued_at and row.expires_at and row.refresh_at):
        raise IntegrityError("A row of the token cache is incomplete.")
    if row.expires_at <= ctx.clock.now():
        return None
    return Token(
        ctx.sealer.open(row.sealed, _seal_context(credential_id)),
        row.digest,
        row.key_id,
        row.issued_at,
        row.expires_at,
        row.refresh_at,
    )


def ensure(ctx: Context, credential_id: str) -> None:
    """Return when a token worth having is in the cache, exchanging the key if need be.

    Raises ConflictError (code credential_unusable) where the credential is not usable, or the provider
    refuses its key: it is unusable from then on. Raises UnavailableError where vault or provider are away.
    """
    holder = uuid.uuid4().hex
    give_up_at = ctx.clock.monotonic() + ctx.policy.tokens.exchange_deadline.total_seconds()
    while not _is_ready(ctx, credential_id):
        key = _take_lease(ctx, credential_id, holder, unless=_has_token)
        if key is not None:
            _exchange(ctx, key, holder)
        elif ctx.clock.monotonic() >= give_up_at:
            raise UpstreamUnavailableError(
                "The identity provider has not answered in time.", hint="Try again in a few seconds."
            )
        else:
            time.sleep(_POLL_SECONDS)


def _is_ready(ctx: Context, credential_id: str) -> bool:
    with ctx.store.read() as connection:
        _usable_key(connection, credential_id)
        if _has_token(ctx, connection, credential_id):
            return True
        row = tokens.cached(connection, credential_id)
        if row is not None and row.retry_at is not None and row.retry_at > ctx.clock.now():
            raise UpstreamUnavailableError(
                "The last exchange of this credential's key failed a moment ago.",
                hint="It is tried again by itself in a few seconds.",
            )
        return False


def _has_token(ctx: Context, connection: sa.Connection, credential_id: str) -> bool:
    token = get(ctx, connection, credential_id)
    return token is not None and ctx.clock.now() < token.worth_until


def _usable_key(connection: sa.Connection, credential_id: str) -> KeyView:
    credential = credentials.find(connection, credential_id)
    if credential is None or credential.state is not CredentialState.USABLE or credential.active_key is None:
        state = credential.state if credential else CredentialState.ENDED
        raise ConflictError(
            f"The task credential is {state}.",
            hint="Its owner can replace its key; a lock is lifted by an administrator.",
            code="credential_unusable",
            state=str(state),
        )
    return credential.active_key


def _take_lease(
    ctx: Context,
    credential_id: str,
    holder: str,
    *,
    unless: Callable[[Context, sa.Connection, str], bool],
) -> KeyView | None:
    """The key to exchange, with the lease taken; None where somebody else is at it, or has just been."""
    with ctx.store.write() as connection:
        key = _usable_key(connection, credential_id)
        if unless(ctx, connection, credential_id):
            return None
        now = ctx.clock.now()
        until = now + ctx.policy.tokens.exchange_deadline
        taken = tokens.take_lease(connection, credential_id, holder, now, until)
        return key if taken else None


def _exchange(ctx: Context, key: KeyView, holder: str) -> None:
    try:
        token = ctx.provider.exchange(ctx.vault.open(material.path(key.credential_id, key.id)), for_run=True)
    except (KeyRefusedError, RecordNotFoundError):
        with ctx.store.write() as connection:
            if _still_counts(connection, key, holder):
                usability.key_refused(ctx, connection, key, ctx.clock.now())
        return  # whoever waits, and the caller, finds out from the record
    except TaskcredError:
        _note_failure(ctx, key.credential_id, holder)
        raise
    with ctx.store.write() as connection:
        if _still_counts(connection, key, holder):
            put(ctx, connection, key.credential_id, key.id, token)
            until = max(filter(None, (key.last_token_expires_at, token.expires_at)))
            credentials.change_key(connection, key.id, last_token_expires_at=until)
        else:
            tokens.release(connection, key.credential_id, holder)


def _still_counts(connection: sa.Connection, key: KeyView, holder: str) -> bool:
    """Whether the answer is still wanted: the lease is ours, and the key is the active one."""
    row = tokens.cached(connection, key.credential_id)
    active = credentials.active_key(connection, key.credential_id)
    return row is not None and row.lease_holder == holder and active is not None and active.id == key.id


def _note_failure(ctx: Context, credential_id: str, holder: str) -> None:
    with ctx.store.write() as connection:
        row = tokens.cached(connection, credential_id)
        if row is None or row.lease_holder != holder:
            return
        delay = min(timedelta(seconds=2 ** min(row.failures, 6)) / 2, _LONGEST_BACK_OFF)
        tokens.failed(connection, credential_id, holder, row.failures + 1, ctx.clock.now() + delay)


def refresh_due(ctx: Context, holder: str, limit: int = 50) -> int:
    """The keeper's part: new tokens for credentials with a live attempt before the old ones run out, and
    the digests of expired tokens forgotten. Returns how many exchanges were begun; one that fails backs
    off and is due again later."""
    with ctx.store.read() as connection:
        now = ctx.clock.now()
        due = tokens.due_for_refresh(connection, now, limit)
        is_untidy = tokens.has_expired(connection, now - _KEPT_AFTER_EXPIRY)
    if is_untidy:
        with ctx.store.write() as connection:
            tokens.forget_expired(connection, now - _KEPT_AFTER_EXPIRY)
    if due:
        with ThreadPoolExecutor(min(_AT_ONCE, len(due)), "refresh") as pool:
            list(pool.map(lambda credential_id: _refresh(ctx, credential_id, holder), due))
    return len(due)


def _is_young(ctx: Context, connection: sa.Connection, credential_id: str) -> bool:
    token = get(ctx, connection, credential_id)
    return token is not None and ctx.clock.now() < token.refresh_at


def _refresh(ctx: Context, credential_id: str, holder: str) -> None:
    try:
        # One holder for each refresh: two of one keeper must not take one another's lease for their own.
        lease = f"{holder}:{uuid.uuid4().hex[:8]}"
        key = _take_lease(ctx, credential_id, lease, unless=_is_young)
        if key is not None:
            _exchange(ctx, key, lease)
    except TaskcredError as error:
        # Recorded in the row: the next round knows when to try again.
        _log.warning("token refresh failed: %s", error.error_code, extra={"credential_id": credential_id})


def is_run_token(ctx: Context, digest: bytes) -> bool:
    """Whether the token with this SHA-256 digest was made for runs (dead-with-the-run)."""
    with ctx.store.read() as connection:
        return tokens.is_run_token(connection, digest)
