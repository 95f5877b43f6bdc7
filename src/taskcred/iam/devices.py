"""The device authorization grant (RFC 8628): a program without a browser asks, a person allows it elsewhere.

The program holds the device code, a value with full entropy, and asks with it until there is an answer.
The person types the user code, which is short, readable and good for ten minutes: knowing it lets one
sign in for the program that shows it, and nothing else.
"""

from __future__ import annotations

import re
import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

import sqlalchemy as sa

from taskcred.domain.secret import Secret
from taskcred.errors import InvalidRequestError, RateLimitedError
from taskcred.iam import tables
from taskcred.iam.database import Database
from taskcred.iam.signins import (
    Grant,
    SignIn,
    end_refresh_tokens,
    grant_of_row,
    keep_refresh_token,
    new_value,
)
from taskcred.iam.throttle import is_loopback
from taskcred.iam.tokens import GRANT_DEVICE
from taskcred.ports import Clock

CODE_TTL: Final = timedelta(minutes=10)
INTERVAL: Final = 5  # seconds between two questions, RFC 8628, 3.2
SLOWER: Final = 5  # seconds added for each question that came too early, RFC 8628, 3.5

# RFC 8628, 6.1: no vowels, so no words; no digits, so no look-alikes. 20^8 codes, 34 bits.
_LETTERS: Final = "BCDFGHJKLMNPQRSTVWXZ"
_CODE_LENGTH: Final = 8
_NOT_A_LETTER: Final = re.compile(r"[^A-Z]")

_MOST_PENDING: Final = 1000
_MOST_PENDING_ADDRESS: Final = 20

_d = tables.device_codes


@dataclass(frozen=True, slots=True)
class Begun:
    """What the program gets: both codes. The device code proves who asks."""

    device_code: Secret
    user_code: str


@dataclass(frozen=True, slots=True)
class Waiting:
    """A program that waits for a person: what they are shown before they decide. `account_id` is empty
    where none was asked for."""

    user_code: str
    client_id: str
    account_id: str
    address: str
    asked_at: datetime


def normal_user_code(typed: str) -> str | None:
    """The code in the form it is kept and shown in, `BCDF-GHJK`; None where the text cannot be one.
    Case, spaces and dashes do not matter."""
    letters = _NOT_A_LETTER.sub("", typed.upper()[:64])
    if len(letters) != _CODE_LENGTH or set(letters) - set(_LETTERS):
        return None
    return f"{letters[:4]}-{letters[4:]}"


class Devices:
    """Programs that ask for a sign-in, and the answers they get."""

    def __init__(self, database: Database, clock: Clock, *, sign_in_ttl: timedelta) -> None:
        self._database: Final = database
        self._clock: Final = clock
        self._sign_in_ttl: Final = sign_in_ttl

    def begin(self, *, client_id: str, scope: str, account_id: str, address: str) -> Begun:
        """A program asks. Raises RateLimitedError where too many wait already, here or from its address."""
        now = self._clock.now()
        device_code = new_value()
        with self._database.write() as connection:
            _refuse_crowd(connection, address, now)
            user_code = _draw(connection)
            connection.execute(
                sa.insert(_d).values(
                    digest=device_code.digest(),
                    user_code=user_code,
                    client_id=client_id,
                    scope=scope,
                    account_id=account_id,
                    address=address,
                    state="pending",
                    interval=INTERVAL,
                    created_at=now,
                    expires_at=now + CODE_TTL,
                )
            )
        return Begun(device_code, user_code)

    def find(self, user_code: str) -> Waiting | None:
        """Who waits under this code, in its normal form, for an answer; None where nobody does."""
        with self._database.read() as connection:
            row = connection.execute(
                sa.select(
                    _d.c.user_code, _d.c.client_id, _d.c.account_id, _d.c.address, _d.c.created_at
                ).where(*_open(user_code, self._clock.now()))
            ).first()
        return Waiting(*row) if row else None

    def allow(self, user_code: str, sign_in: SignIn, account_id: str) -> bool:
        """The person who just signed in allows it, for this account; False where nobody waits any more."""
        return self._answer(
            user_code,
            state="allowed",
            sign_in_id=sign_in.id,
            iam_id=sign_in.iam_id,
            auth_time=sign_in.auth_time,
            account_id=account_id,
        )

    def deny(self, user_code: str) -> bool:
        """Whoever saw the question says no; False where nobody waits any more."""
        return self._answer(user_code, state="denied")

    def _answer(self, user_code: str, **values: Any) -> bool:
        with self._database.write() as connection:
            changed = connection.execute(
                sa.update(_d).where(*_open(user_code, self._clock.now())).values(**values)
            )
        return changed.rowcount == 1

    def redeem(self, device_code: Secret, client_id: str) -> tuple[Grant, Secret]:
        """The grant, and a refresh token, once a person has allowed it: one time. Raises
        InvalidRequestError with the codes of RFC 8628, 3.5. A code presented again after that ends what
        the first one got, as an authorization code does."""
        now = self._clock.now()
        with self._database.write() as connection:
            row = connection.execute(
                sa.select(_d).where(_d.c.digest == device_code.digest(), _d.c.client_id == client_id)
            ).first()
            answer = _unknown() if row is None else self._redeem(connection, row, now)
        # Raised after the commit: what a question changes stays changed.
        if isinstance(answer, InvalidRequestError):
            raise answer
        return answer

    def _redeem(
        self, connection: sa.Connection, row: sa.Row[Any], now: datetime
    ) -> tuple[Grant, Secret] | InvalidRequestError:
        here = _d.c.digest == row.digest
        if row.state == "used":
            end_refresh_tokens(connection, row.digest)
            return _unknown()
        if row.state == "denied":
            return InvalidRequestError(
                "The sign-in was denied.", hint="Begin again if that was not meant.", code="access_denied"
            )
        if row.expires_at <= now:
            return InvalidRequestError(
                "Nobody signed in while the code was good.",
                hint="Begin again: a code is good for ten minutes.",
                code="expired_token",
            )
        if row.state == "pending":
            is_early = row.polled_at is not None and now - row.polled_at < timedelta(seconds=row.interval)
            interval = row.interval + SLOWER if is_early else row.interval
            connection.execute(sa.update(_d).where(here).values(polled_at=now, interval=interval))
            if is_early:
                return InvalidRequestError(
                    "You ask too often.",
                    hint=f"Wait {interval} seconds between two questions from now on.",
                    code="slow_down",
                )
            return InvalidRequestError(
                "Nobody has answered yet.",
                hint=f"Ask again in {interval} seconds.",
                code="authorization_pending",
            )
        grant = grant_of_row(row, GRANT_DEVICE)
        connection.execute(sa.update(_d).where(here).values(state="used"))
        return grant, keep_refresh_token(connection, grant, row.digest, self._sign_in_ttl)


def _open(user_code: str, now: datetime) -> tuple[sa.ColumnElement[bool], ...]:
    return _d.c.user_code == user_code, _d.c.state == "pending", _d.c.expires_at > now


def _draw(connection: sa.Connection) -> str:
    """A code that nobody has, or had today."""
    while True:
        letters = "".join(secrets.choice(_LETTERS) for _ in range(_CODE_LENGTH))
        user_code = f"{letters[:4]}-{letters[4:]}"
        if connection.execute(sa.select(_d.c.digest).where(_d.c.user_code == user_code)).first() is None:
            return user_code


def _refuse_crowd(connection: sa.Connection, address: str, now: datetime) -> None:
    waiting = sa.select(sa.func.count()).where(_d.c.state == "pending", _d.c.expires_at > now)
    is_crowded = (connection.scalar(waiting) or 0) >= _MOST_PENDING
    if not is_crowded and not is_loopback(address):
        is_crowded = (connection.scalar(waiting.where(_d.c.address == address)) or 0) >= _MOST_PENDING_ADDRESS
    if is_crowded:
        raise RateLimitedError("Too many sign-ins wait for an answer already.", retry_after=60)


def _unknown() -> InvalidRequestError:
    return InvalidRequestError(
        "The device code is not valid, or no longer.",
        hint="Begin again; a code is good once, for the client that asked for it.",
        code="invalid_grant",
    )
