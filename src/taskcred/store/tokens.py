"""Queries about access tokens: the sealed cache, and what was handed to runs."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import sqlalchemy as sa

from taskcred.domain.credentials import CredentialState
from taskcred.store import tables as t

_a: Final = t.access_tokens.c
_h: Final = t.attempt_tokens.c


@dataclass(frozen=True, slots=True)
class Cached:
    """A row of the cache. `sealed` and what follows it are None until a first exchange."""

    credential_id: str
    key_id: str | None
    sealed: bytes | None
    digest: bytes | None
    issued_at: datetime | None
    expires_at: datetime | None
    refresh_at: datetime | None
    lease_holder: str | None
    lease_until: datetime | None
    failures: int
    retry_at: datetime | None


def cached(connection: sa.Connection, credential_id: str) -> Cached | None:
    """The credential's row of the cache."""
    found = connection.execute(sa.select(t.access_tokens).where(_a.credential_id == credential_id))
    row = found.mappings().one_or_none()
    return None if row is None else Cached(**row)


def forget_cached(connection: sa.Connection) -> None:
    """Empty the cache; each credential's next run exchanges anew."""
    connection.execute(t.access_tokens.delete())


def take_lease(
    connection: sa.Connection, credential_id: str, holder: str, now: datetime, until: datetime
) -> bool:
    """Become the one that exchanges for this credential until `until`; False where another is."""
    if cached(connection, credential_id) is None:
        connection.execute(
            t.access_tokens.insert().values(
                credential_id=credential_id, lease_holder=holder, lease_until=until
            )
        )
        return True
    taken = connection.execute(
        t.access_tokens.update()
        .where(
            _a.credential_id == credential_id,
            sa.or_(_a.lease_until.is_(None), _a.lease_until <= now),
        )
        .values(lease_holder=holder, lease_until=until)
    )
    return bool(taken.rowcount)


def put(
    connection: sa.Connection,
    *,
    credential_id: str,
    key_id: str,
    sealed: bytes,
    digest: bytes,
    issued_at: datetime,
    expires_at: datetime,
    refresh_at: datetime,
) -> None:
    """Make this the credential's cached token, and know it as a run's token until it expires.

    Whoever held the lease has lost it; earlier failures are forgotten.
    """
    connection.execute(t.access_tokens.delete().where(_a.credential_id == credential_id))
    connection.execute(
        t.access_tokens.insert().values(
            credential_id=credential_id,
            key_id=key_id,
            sealed=sealed,
            digest=digest,
            issued_at=issued_at,
            expires_at=expires_at,
            refresh_at=refresh_at,
        )
    )
    connection.execute(
        t.run_tokens.insert().values(digest=digest, credential_id=credential_id, expires_at=expires_at)
    )


def failed(
    connection: sa.Connection, credential_id: str, holder: str, failures: int, retry_at: datetime
) -> None:
    """Give the lease back without a token; nobody asks again before `retry_at`."""
    connection.execute(
        t.access_tokens.update()
        .where(_a.credential_id == credential_id, _a.lease_holder == holder)
        .values(lease_holder=None, lease_until=None, failures=failures, retry_at=retry_at)
    )


def release(connection: sa.Connection, credential_id: str, holder: str) -> None:
    """Give the lease back: what was exchanged is of no use any more."""
    connection.execute(
        t.access_tokens.update()
        .where(_a.credential_id == credential_id, _a.lease_holder == holder)
        .values(lease_holder=None, lease_until=None)
    )


def drop(connection: sa.Connection, credential_id: str) -> None:
    """Forget the credential's cached token."""
    connection.execute(t.access_tokens.delete().where(_a.credential_id == credential_id))


def due_for_refresh(connection: sa.Connection, now: datetime, limit: int) -> list[str]:
    """Usable credentials with a live attempt whose token is old, or gone; soonest to expire first."""
    # From the few live attempts to their rows of the cache, not through all that were ever cached.
    live = sa.select(t.attempts.c.credential_id).where(t.attempts.c.outcome.is_(None))
    rows = connection.execute(
        sa.select(_a.credential_id)
        .join(t.task_credentials, t.task_credentials.c.id == _a.credential_id)
        .where(
            _a.credential_id.in_(live),
            _a.refresh_at <= now,
            sa.or_(_a.retry_at.is_(None), _a.retry_at <= now),
            sa.or_(_a.lease_until.is_(None), _a.lease_until <= now),
            t.task_credentials.c.state == CredentialState.USABLE,
        )
        .order_by(_a.expires_at)
        .limit(limit)
    )
    return list(rows.scalars())


def is_run_token(connection: sa.Connection, digest: bytes) -> bool:
    """Whether a token with this digest was made for runs and may still be alive."""
    c = t.run_tokens.c
    return connection.execute(sa.select(c.digest).where(c.digest == digest)).first() is not None


def latest_expiry(connection: sa.Connection, credential_id: str) -> datetime | None:
    """When the last of the credential's tokens expires."""
    c = t.run_tokens.c
    query = sa.select(sa.func.max(c.expires_at)).where(c.credential_id == credential_id)
    expires_at: datetime | None = connection.execute(query).scalar_one()
    return expires_at


def has_expired(connection: sa.Connection, before: datetime) -> bool:
    """Whether there are digests of tokens that expired before `before`."""
    c = t.run_tokens.c
    return connection.execute(sa.select(c.digest).where(c.expires_at < before).limit(1)).first() is not None


def forget_expired(connection: sa.Connection, before: datetime) -> None:
    """Forget digests of tokens that expired before `before`."""
    connection.execute(t.run_tokens.delete().where(t.run_tokens.c.expires_at < before))


@dataclass(frozen=True, slots=True)
class Holder:
    """The attempt a stand-in key belongs to, with what decides whether it gets a token."""

    attempt_id: str
    run_id: str
    credential_id: str
    account_id: str
    iam_id: str
    is_live: bool
    credential_state: CredentialState
    addresses: tuple[str, ...] | None  # networks the key works from; None: from anywhere

    @property
    def may_have_tokens(self) -> bool:
        """Its attempt is live and its credential usable."""
        return self.is_live and self.credential_state is CredentialState.USABLE


def holder_of(connection: sa.Connection, standin_digest: bytes, *, for_change: bool = False) -> Holder | None:
    """Whose stand-in key has this digest. `for_change` locks the attempt's row until the transaction ends."""
    a, r, c = t.attempts.c, t.runs.c, t.task_credentials.c
    query: sa.Select[Any] = (
        sa.select(a.id, a.run_id, a.credential_id, r.account_id, r.iam_id, a.outcome, a.addresses, c.state)
        .join(t.runs, r.id == a.run_id)
        .join(t.task_credentials, c.id == a.credential_id)
        .where(a.standin_digest == standin_digest)
    )
    if for_change:
        query = query.with_for_update(of=t.attempts, key_share=True)
    row = connection.execute(query).one_or_none()
    if row is None:
        return None
    return Holder(
        row.id,
        row.run_id,
        row.credential_id,
        row.account_id,
        row.iam_id,
        row.outcome is None,
        CredentialState(row.state),
        None if row.addresses is None else tuple(row.addresses),
    )


def has_handed_out(connection: sa.Connection, attempt_id: str, token_digest: bytes) -> bool:
    """Whether this attempt has received this token before, from any process."""
    query = sa.select(_h.uses).where(_h.attempt_id == attempt_id, _h.token_digest == token_digest)
    return connection.execute(query).first() is not None


def hand_out(
    connection: sa.Connection,
    attempt_id: str,
    token_digest: bytes,
    key_id: str,
    expires_at: datetime,
    now: datetime,
) -> None:
    """Record that this attempt receives this token for the first time; that use is counted later, like
    every other."""
    connection.execute(
        t.attempt_tokens.insert().values(
            attempt_id=attempt_id,
            token_digest=token_digest,
            key_id=key_id,
            first_at=now,
            last_at=now,
            uses=0,
            expires_at=expires_at,
        )
    )


def count_uses(connection: sa.Connection, uses: list[dict[str, Any]]) -> None:
    """Add to the counts: each item has attempt, digest, n, at."""
    connection.execute(
        t.attempt_tokens.update()
        .where(_h.attempt_id == sa.bindparam("attempt"), _h.token_digest == sa.bindparam("digest_"))
        .values(uses=_h.uses + sa.bindparam("n"), last_at=sa.bindparam("at")),
        uses,
    )


def touch_keys(connection: sa.Connection, used: list[dict[str, Any]]) -> None:
    """Note when keys' tokens were last used: each item has key, at."""
    c = t.keys.c
    connection.execute(
        t.keys.update().where(c.id == sa.bindparam("key")).values(last_used_at=sa.bindparam("at")), used
    )
