"""Page sessions: begun by an interactive sign-in, idle for 30 minutes at most, ended after 12 hours.

The browser holds a random id; the records hold its digest, who signed in and when, and the access token
and refresh token, sealed. The id changes whenever the session's authority does (sign-in, another
account), so an id planted beforehand is worth nothing.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

import sqlalchemy as sa

from taskcred.domain.permissions import Authentication, Principal
from taskcred.domain.secret import Secret
from taskcred.errors import (
    ForbiddenError,
    InvalidTokenError,
    KeyRefusedError,
    ProviderRefusedError,
    UnavailableError,
)
from taskcred.ports import SignIn
from taskcred.services import acting
from taskcred.services.authorize import actor_of
from taskcred.services.context import Context
from taskcred.store import audit, leases
from taskcred.store import sessions as rows

# Writing "seen" at each request would make every page view a write.
_TOUCH_EVERY: Final = timedelta(minutes=1)
# A token is replaced this long before it ends; until then the other requests of the session go on with it.
_REFRESH_BEFORE: Final = timedelta(minutes=5)
_REFRESH_LEASE: Final = timedelta(seconds=15)


@dataclass(frozen=True, slots=True)
class Visit:
    """Where a request came from, for audit events."""

    request_id: str = ""
    address: str = ""


def begin(ctx: Context, sign_in: SignIn, visit: Visit, *, replaces: Secret | None = None) -> Secret:
    """A new session for who signed in; its id, which only the browser may hold. Ends the session
    `replaces` in the same transaction.

    Where that one is the same person's and not over, the new one goes on in its account and for its service
    id: a new proof of identity, which a form may ask for on the way, changes nothing else. Raises
    ForbiddenError (act_for_refused) where they may not act for it any more; both sessions have ended then.
    """
    now = ctx.clock.now()
    session_id = Secret(secrets.token_urlsafe(32))
    before = _same_persons(ctx, sign_in, replaces, now)
    if before is not None:
        sign_in = _in_account(ctx, sign_in, before.account_id)
    row = _row(ctx, session_id.digest(), sign_in, created_at=now, now=now)
    with ctx.store.write() as connection:
        if replaces is not None:
            rows.delete(connection, replaces.digest())
        rows.add(connection, row)
        rows.remember_owner(connection, row.iam_id, row.email, row.name, now)
        _record(connection, "session:begin", _principal(row, None, visit), now)
    if before is not None and before.acting_iam_id:
        return _act_on(ctx, session_id, before.iam_id, visit)
    return session_id


def _same_persons(
    ctx: Context, sign_in: SignIn, replaces: Secret | None, now: datetime
) -> rows.SessionRow | None:
    if replaces is None:
        return None
    with ctx.store.read() as connection:
        row = rows.find(connection, replaces.digest())
    if row is None or _is_over(ctx, row, now):
        return None
    return row if (row.acting_iam_id or row.iam_id) == sign_in.access.iam_id else None


def _in_account(ctx: Context, sign_in: SignIn, account_id: str) -> SignIn:
    if sign_in.access.account_id == account_id or sign_in.refresh_token is None:
        return sign_in
    try:
        switched = ctx.provider.refresh_sign_in(sign_in.refresh_token, account_id=account_id)
    except ProviderRefusedError:  # no member of it any more
        return sign_in
    return replace(switched, auth_time=sign_in.auth_time)


def _act_on(ctx: Context, session_id: Secret, iam_id: str, visit: Visit) -> Secret:
    try:
        return act_for(ctx, session_id, iam_id, visit)
    except ForbiddenError:
        end(ctx, session_id, visit)
        raise acting.refused(f"{ctx.public_url}/sign-in") from None


def find(ctx: Context, session_id: Secret, visit: Visit) -> Principal | None:
    """Who holds this session; None where it is unknown, idle for too long, too old, or ended because the
    identity provider no longer knows the sign-in. Replaces an access token that is about to end.

    Raises ForbiddenError (act_for_refused) where it acts for a service id and may not any more: it has
    ended then, so that no form meant for the service id is taken for the person."""
    now = ctx.clock.now()
    digest = session_id.digest()
    with ctx.store.read() as connection:
        row = rows.find(connection, digest)
    if row is None or _is_over(ctx, row, now):
        return None
    # For a token that lives shorter: in the last fifth of what was left of it when last seen.
    if row.token_expires_at - now < min(_REFRESH_BEFORE, (row.token_expires_at - row.last_seen_at) / 5):
        refreshed = _refresh(ctx, row, visit)
        if refreshed is None:
            return None
        row = refreshed
    if now - row.last_seen_at >= _TOUCH_EVERY:
        with ctx.store.write(shared=True) as connection:
            rows.touch(connection, digest, now)
    principal = _principal(row, ctx.sealer.open(row.sealed_token, _context(digest, "access")), visit)
    return _still_acting(ctx, row, principal) if row.acting_iam_id else principal


def _still_acting(ctx: Context, row: rows.SessionRow, principal: Principal) -> Principal:
    found = acting.find(ctx, principal, row.iam_id)
    if found is not None:
        return replace(principal, owner_name=found.name)
    with ctx.store.write() as connection:
        rows.delete(connection, row.digest)
        _record(connection, "session:end", principal, ctx.clock.now(), why="act_for_refused")
    raise acting.refused(f"{ctx.public_url}/sign-in")


def end(ctx: Context, session_id: Secret, visit: Visit) -> None:
    """Sign out. Nothing happens where the session has ended already."""
    now = ctx.clock.now()
    with ctx.store.write() as connection:
        row = rows.find(connection, session_id.digest())
        if row is not None:
            rows.delete(connection, row.digest)
            _record(connection, "session:end", _principal(row, None, visit), now)


def switch_account(ctx: Context, session_id: Secret, account_id: str, visit: Visit) -> Secret:
    """The same sign-in for another account of the person: a new session in the old one's place, with its
    age and its time of proof. Raises ProviderRefusedError where the person is no member, InvalidTokenError
    where there is no session."""
    now = ctx.clock.now()
    old = session_id.digest()
    with ctx.store.read() as connection:
        row = rows.find(connection, old)
    if row is None or _is_over(ctx, row, now) or row.sealed_refresh_token is None:
        raise InvalidTokenError("You are not signed in.", hint="Sign in again.")
    refresh_token = ctx.sealer.open(row.sealed_refresh_token, _context(old, "refresh"))
    sign_in = ctx.provider.refresh_sign_in(refresh_token, account_id=account_id)
    new_id = Secret(secrets.token_urlsafe(32))
    fresh = replace(
        _row(ctx, new_id.digest(), sign_in, created_at=row.created_at, now=now), auth_time=row.auth_time
    )
    with ctx.store.write() as connection:
        if not rows.delete(connection, old):
            # Ended while the provider was asked: signed out stays signed out.
            raise InvalidTokenError("You are not signed in.", hint="Sign in again.")
        rows.add(connection, fresh)
        _record(connection, "session:switch_account", _principal(fresh, None, visit), now)
    return new_id


def act_for(ctx: Context, session_id: Secret, iam_id: str, visit: Visit) -> Secret:
    """Go on for this service id: a new session in the old one's place, with its age and its time of proof.
    Going back is switching to the account. Raises ForbiddenError (act_for_refused), and InvalidTokenError
    where there is no session."""
    now = ctx.clock.now()
    old = session_id.digest()
    with ctx.store.read() as connection:
        row = rows.find(connection, old)
    if row is None or _is_over(ctx, row, now):
        raise InvalidTokenError("You are not signed in.", hint="Sign in again.")
    token = ctx.sealer.open(row.sealed_token, _context(old, "access"))
    person = replace(_principal(row, token, visit), iam_id=row.acting_iam_id or row.iam_id, acting_iam_id="")
    chosen = acting.act_for(ctx, person, iam_id)
    new_id = Secret(secrets.token_urlsafe(32))
    digest = new_id.digest()
    refresh: bytes | None = None
    if row.sealed_refresh_token is not None:
        opened = ctx.sealer.open(row.sealed_refresh_token, _context(old, "refresh"))
        refresh = ctx.sealer.seal(opened, _context(digest, "refresh"))
    fresh = replace(
        row,
        digest=digest,
        iam_id=chosen.iam_id,
        acting_iam_id=chosen.acting_iam_id,
        last_seen_at=now,
        sealed_token=ctx.sealer.seal(token, _context(digest, "access")),
        sealed_refresh_token=refresh,
    )
    with ctx.store.write() as connection:
        if not rows.delete(connection, old):
            # Ended while the provider was asked: signed out stays signed out.
            raise InvalidTokenError("You are not signed in.", hint="Sign in again.")
        rows.add(connection, fresh)
        _record(connection, "session:act_for", chosen, now)
    return new_id


def sweep(ctx: Context) -> int:
    """Forget sessions that are over; how many there were. The keeper's."""
    now = ctx.clock.now()
    policy = ctx.policy.sessions
    with ctx.store.write() as connection:
        rows.forget_leases(connection, now)
        return rows.delete_expired(connection, now - policy.idle, now - policy.longest)


def _is_over(ctx: Context, row: rows.SessionRow, now: datetime) -> bool:
    policy = ctx.policy.sessions
    return now - row.last_seen_at > policy.idle or now - row.created_at > policy.longest


def _refresh(ctx: Context, row: rows.SessionRow, visit: Visit) -> rows.SessionRow | None:
    """The session with a new access token. A refresh token may be good for one use, so one process asks at
    a time and the others go on with the old access token."""
    now = ctx.clock.now()
    lease, holder = rows.refresh_lease(row.digest), secrets.token_hex(8)
    if row.sealed_refresh_token is None:
        return row if row.token_expires_at > now else None
    with ctx.store.write() as connection:
        if not leases.take(connection, lease, holder, now, _REFRESH_LEASE):
            return row
        current = rows.find(connection, row.digest)
    if (
        current is None
        or current.sealed_refresh_token is None
        or current.token_expires_at != row.token_expires_at
    ):
        _release(ctx, lease, holder)
        return current
    refresh_token = ctx.sealer.open(current.sealed_refresh_token, _context(row.digest, "refresh"))
    try:
        sign_in = ctx.provider.refresh_sign_in(refresh_token)
    except UnavailableError:
        # The session outlives the provider's absence; what needs its token says that the provider is away.
        _release(ctx, lease, holder)
        return row
    except (InvalidTokenError, KeyRefusedError, ProviderRefusedError):
        with ctx.store.write() as connection:
            rows.delete(connection, row.digest)
            leases.release(connection, lease, holder)
            _record(connection, "session:end", _principal(row, None, visit), now, why="refused_by_provider")
        return None
    fresh = replace(
        _row(ctx, row.digest, sign_in, created_at=row.created_at, now=now),
        auth_time=row.auth_time,
        iam_id=row.iam_id,  # the token is the person's, also where they act for a service id
        acting_iam_id=row.acting_iam_id,
    )
    with ctx.store.write() as connection:
        rows.replace_tokens(
            connection, row.digest, fresh.sealed_token, fresh.sealed_refresh_token, fresh.token_expires_at
        )
        rows.touch(connection, row.digest, now)
        leases.release(connection, lease, holder)
    return fresh


def _release(ctx: Context, lease: str, holder: str) -> None:
    with ctx.store.write() as connection:
        leases.release(connection, lease, holder)


def _row(
    ctx: Context, digest: bytes, sign_in: SignIn, *, created_at: datetime, now: datetime
) -> rows.SessionRow:
    access = sign_in.access
    refresh = sign_in.refresh_token
    return rows.SessionRow(
        digest=digest,
        account_id=access.account_id,
        iam_id=access.iam_id,
        name=str(access.claims.get("name") or "")[:256],
        email=str(access.claims.get("email") or "")[:320],
        auth_time=sign_in.auth_time,
        created_at=created_at,
        last_seen_at=now,
        token_expires_at=access.expires_at,
        sealed_token=ctx.sealer.seal(access.token, _context(digest, "access")),
        sealed_refresh_token=None
        if refresh is None
        else ctx.sealer.seal(refresh, _context(digest, "refresh")),
    )


def _context(digest: bytes, what: str) -> str:
    return f"sessions/{digest.hex()}/{what}"


def _principal(row: rows.SessionRow, token: Secret | None, visit: Visit) -> Principal:
    return Principal(
        row.iam_id,
        row.account_id,
        Authentication.SESSION,
        auth_time=row.auth_time,
        email=row.email,
        name=row.name,
        token=token,
        request_id=visit.request_id,
        address=visit.address,
        acting_iam_id=row.acting_iam_id,
    )


def _record(connection: sa.Connection, action: str, who: Principal, now: datetime, **details: str) -> None:
    event = audit.Event(
        action, "success", actor_of(who), who.account_id, who.iam_id, "session", "", details=details
    )
    audit.append(connection, event, now)
