"""Sign-ins of people: the browser's session, authorization codes, refresh tokens.

Each is a random value kept by its digest. What was made from a sign-in carries its id and ends with it.

Refresh tokens are not rotated: two callers that refresh at once would each end the other's grant, and
each token dies with its sign-in (12 hours by default) in any case.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
import uuid
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

import sqlalchemy as sa

from taskcred.domain.secret import Secret
from taskcred.errors import InvalidRequestError
from taskcred.iam import tables
from taskcred.iam.database import Database, remember
from taskcred.iam.errors import REFRESH_TOKEN_INVALID
from taskcred.iam.tokens import GRANT_CODE
from taskcred.ports import Clock

CODE_TTL: Final = timedelta(seconds=60)

_c, _r, _s = tables.authorization_codes, tables.refresh_tokens, tables.sign_ins


@dataclass(frozen=True, slots=True)
class SignIn:
    """A person who proved who they are at `auth_time`, in one browser."""

    id: str
    iam_id: str
    auth_time: datetime


@dataclass(frozen=True, slots=True)
class CodeRequest:
    """What an authorization code is bound to."""

    client_id: str
    redirect_uri: str
    code_challenge: str
    scope: str
    nonce: str


@dataclass(frozen=True, slots=True)
class Grant:
    """What a code or a refresh token stands for. `grant_type` says how the person proved who they are."""

    sign_in_id: str
    client_id: str
    iam_id: str
    account_id: str
    scope: str
    auth_time: datetime
    grant_type: str
    nonce: str = ""


def new_value() -> Secret:
    """256 random bits, fit for URLs and cookies."""
    return Secret(secrets.token_urlsafe(32))


class SignIns:
    """Sign-ins and what is made from them."""

    def __init__(self, database: Database, clock: Clock, *, ttl: timedelta) -> None:
        self._database: Final = database
        self._clock: Final = clock
        self._ttl: Final = ttl

    def begin(self, iam_id: str, *, how: str, instead_of: Secret | None = None) -> tuple[SignIn, Secret]:
        """A person proved who they are (`how`: password, link): the sign-in and its cookie's value.

        `instead_of` is what the browser held before: the same person's sign-in goes on under the new
        value, so that signing out ends all of it; another person's ends.
        """
        now = self._clock.now()
        value = new_value()
        fresh = {"digest": value.digest(), "auth_time": now, "expires_at": now + self._ttl}
        with self._database.write() as connection:
            before = _row(connection, instead_of) if instead_of else None
            if before is not None and before.iam_id == iam_id:
                sign_in = SignIn(before.id, iam_id, now)
                connection.execute(sa.update(_s).where(_s.c.id == before.id).values(**fresh))
            else:
                if before is not None:
                    _end(connection, _s.c.id == before.id)
                sign_in = SignIn(str(uuid.uuid4()), iam_id, now)
                connection.execute(sa.insert(_s).values(id=sign_in.id, iam_id=iam_id, **fresh))
            remember(
                connection,
                at=now,
                action="user:sign_in",
                target=iam_id,
                iam_id=iam_id,
                account_id="",
                params={"how": how},
            )
        return sign_in, value

    def find(self, value: Secret) -> SignIn | None:
        """The sign-in a cookie stands for, while it lasts."""
        with self._database.read() as connection:
            row = connection.execute(
                sa.select(_s.c.id, _s.c.iam_id, _s.c.auth_time).where(
                    _s.c.digest == value.digest(), _s.c.expires_at > self._clock.now()
                )
            ).first()
        return SignIn(*row) if row else None

    def end(self, value: Secret) -> None:
        """Sign out: the session, its codes and refresh tokens end. Nothing happens where there is none."""
        with self._database.write() as connection:
            sign_in = _row(connection, value)
            if sign_in is None:
                return
            _end(connection, _s.c.id == sign_in.id)
            remember(
                connection,
                at=self._clock.now(),
                action="user:sign_out",
                target=sign_in.iam_id,
                iam_id=sign_in.iam_id,
                account_id="",
            )

    def new_code(self, sign_in: SignIn, account_id: str, request: CodeRequest) -> Secret:
        """An authorization code, good once and for a minute (RFC 6749, 4.1.2)."""
        code = new_value()
        with self._database.write() as connection:
            connection.execute(
                sa.insert(_c).values(
                    digest=code.digest(),
                    sign_in_id=sign_in.id,
                    client_id=request.client_id,
                    redirect_uri=request.redirect_uri,
                    code_challenge=request.code_challenge,
                    nonce=request.nonce,
                    scope=request.scope,
                    iam_id=sign_in.iam_id,
                    account_id=account_id,
                    auth_time=sign_in.auth_time,
                    expires_at=self._clock.now() + CODE_TTL,
                )
            )
        return code

    def redeem(
        self, code: Secret, *, client_id: str, redirect_uri: str, code_verifier: str
    ) -> tuple[Grant, Secret]:
        """The grant behind a code, and a refresh token. Raises InvalidRequestError, one answer for
        every way a code can be wrong. A code presented twice ends what the first one got (RFC 6749, 4.1.2)."""
        now = self._clock.now()
        refused = InvalidRequestError(
            "The authorization code is not valid, or no longer.",
            hint="Sign in again; a code is good once, for a minute, for the client that asked for it.",
            code="invalid_grant",
        )
        with self._database.write() as connection:
            row = connection.execute(sa.select(_c).where(_c.c.digest == code.digest())).first()
            replayed = row is not None and row.used_at is not None
            if replayed:
                end_refresh_tokens(connection, code.digest())
            elif row is not None:
                connection.execute(sa.update(_c).where(_c.c.digest == row.digest).values(used_at=now))
            if (
                row is None
                or replayed
                or row.expires_at <= now
                or row.client_id != client_id
                or row.redirect_uri != redirect_uri
                or not _answers(row.code_challenge, code_verifier)
            ):
                granted = None
            else:
                grant = grant_of_row(row, GRANT_CODE, row.nonce)
                granted = grant, keep_refresh_token(connection, grant, row.digest, self._ttl)
        # Raised after the commit: a code that was tried with a wrong verifier stays used up.
        if granted is None:
            raise refused
        return granted

    def grant_of(self, refresh_token: Secret, client_id: str) -> Grant:
        """What a refresh token of this client stands for. Raises InvalidRequestError."""
        with self._database.read() as connection:
            row = connection.execute(
                sa.select(_r).where(
                    _r.c.digest == refresh_token.digest(),
                    _r.c.client_id == client_id,
                    _r.c.expires_at > self._clock.now(),
                )
            ).first()
        if row is None:
            raise InvalidRequestError(
                "The refresh token is not valid, or no longer.",
                hint="Sign in again.",
                code="invalid_grant",
                bxnim=REFRESH_TOKEN_INVALID,
            )
        return grant_of_row(row, row.grant_type)


def _row(connection: sa.Connection, value: Secret) -> sa.Row[str, str] | None:
    return connection.execute(sa.select(_s.c.id, _s.c.iam_id).where(_s.c.digest == value.digest())).first()


def grant_of_row(row: sa.Row[Any], grant_type: str, nonce: str = "") -> Grant:
    """What the row of a code or a refresh token stands for."""
    return Grant(
        row.sign_in_id,
        row.client_id,
        row.iam_id,
        row.account_id,
        row.scope,
        row.auth_time,
        grant_type,
        nonce,
    )


def keep_refresh_token(connection: sa.Connection, grant: Grant, code_digest: bytes, ttl: timedelta) -> Secret:
    """A refresh token for the grant that the code with this digest was good for."""
    refresh_token = new_value()
    connection.execute(
        sa.insert(_r).values(
            digest=refresh_token.digest(),
            sign_in_id=grant.sign_in_id,
            code_digest=code_digest,
            grant_type=grant.grant_type,
            client_id=grant.client_id,
            scope=grant.scope,
            iam_id=grant.iam_id,
            account_id=grant.account_id,
            auth_time=grant.auth_time,
            expires_at=grant.auth_time + ttl,
        )
    )
    return refresh_token


def end_refresh_tokens(connection: sa.Connection, code_digest: bytes) -> None:
    """A code was presented twice: what the first one got ends (RFC 6749, 4.1.2)."""
    connection.execute(sa.delete(_r).where(_r.c.code_digest == code_digest))


def _answers(code_challenge: str, code_verifier: str) -> bool:
    """RFC 7636, 4.6, method S256."""
    digest = hashlib.sha256(code_verifier.encode("utf-8", "surrogatepass")).digest()
    expected = base64.urlsafe_b64encode(digest).rstrip(b"=")
    return hmac.compare_digest(expected, code_challenge.encode())


def _end(connection: sa.Connection, which: sa.ColumnElement[bool]) -> None:
    ended = sa.select(_s.c.id).where(which).scalar_subquery()
    for table in (_c, _r, tables.device_codes):
        connection.execute(sa.delete(table).where(table.c.sign_in_id.in_(ended)))
    connection.execute(sa.delete(_s).where(which))


def end_all(connection: sa.Connection, iam_id: str) -> None:
    """End every sign-in of a person: their password changed."""
    _end(connection, _s.c.iam_id == iam_id)
