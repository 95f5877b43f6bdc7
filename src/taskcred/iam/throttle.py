"""A back-off for whoever guesses passwords, or the codes of programs that ask to sign in.

A try is counted before what was typed is looked at and the count is taken back when it was right, so any
number of guesses sent at once are counted like guesses sent one after the other.
"""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

import sqlalchemy as sa

from taskcred.errors import RateLimitedError
from taskcred.iam import tables
from taskcred.iam.database import Database
from taskcred.ports import Clock

FORGET_AFTER: Final = timedelta(hours=1)
_FIRST_PAUSE: Final = timedelta(seconds=15)

_FREE_PERSON: Final = 5
_LONGEST_PERSON: Final = timedelta(minutes=15)
_FREE_ADDRESS: Final = 50  # an office may share one
_LONGEST_ADDRESS: Final = timedelta(minutes=1)

_FREE_CODES_ADDRESS: Final = 10
_FREE_CODES: Final = 100
# All guesses together, for behind a proxy nobody has an address of their own: short, so that somebody who
# guesses cannot keep others from signing in. At a try in 5 s it takes 400 years to have tried all for ten live ones.
_LONGEST_CODES: Final = timedelta(seconds=5)

_t = tables.password_tries


@dataclass(frozen=True, slots=True)
class Subject:
    """What failures are counted by: a digest, how many failures are free, the longest pause, and whether
    one success forgets all failures (a person who remembered) or only its own try (a place)."""

    digest: bytes
    free: int
    longest: timedelta
    forgets: bool = False

    def pause_after(self, failures: int) -> timedelta:
        """How long to refuse tries after this many failures in a row: none for the first ones, then
        15 s, doubling up to the longest."""
        if failures < self.free:
            return timedelta(0)
        return min(_FIRST_PAUSE * (1 << min(failures - self.free, 16)), self.longest)


def of_password(email: str, address: str) -> list[Subject]:
    """The person, and the place the try came from."""
    raw_email = b"email:" + email.encode("utf-8", "surrogatepass")
    person = Subject(hashlib.sha256(raw_email).digest(), _FREE_PERSON, _LONGEST_PERSON, forgets=True)
    return [person, *_place("address", address, _FREE_ADDRESS, _LONGEST_ADDRESS)]


def of_user_code(address: str) -> list[Subject]:
    """Everybody's tries at codes together, and those from this place (RFC 8628, 5.1)."""
    everybody = Subject(hashlib.sha256(b"user codes").digest(), _FREE_CODES, _LONGEST_CODES)
    return [everybody, *_place("user code", address, _FREE_CODES_ADDRESS, _LONGEST_PERSON)]


def _place(what: str, address: str, free: int, longest: timedelta) -> list[Subject]:
    """Where a try came from; not a loopback address, which is that of a proxy in front of us and so of
    everybody."""
    if not address or is_loopback(address):
        return []
    return [Subject(hashlib.sha256(f"{what}:{address}".encode()).digest(), free, longest)]


def is_loopback(address: str) -> bool:
    """Whether this is no address of anybody outside."""
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:  # a Unix socket: somebody in front of us, too
        return True


class Throttle:
    """Counts failed tries by subject."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database: Final = database
        self._clock: Final = clock

    def begin(self, subjects: Sequence[Subject], refusal: str) -> None:
        """Count a try for all of them. Raises RateLimitedError, in the words of `refusal`, where one of
        them must wait; then nothing is counted."""
        now = self._clock.now()
        with self._database.write() as connection:
            wait = max(_blocked_for(connection, subject, now) for subject in subjects)
            if wait > timedelta(0):
                raise RateLimitedError(refusal, retry_after=max(1, -(-wait // timedelta(seconds=1))))
            for subject in subjects:
                _count(connection, subject, now)

    def succeeded(self, subjects: Sequence[Subject]) -> None:
        """What was typed was right: take the try back."""
        with self._database.write() as connection:
            for subject in subjects:
                here = _t.c.subject == subject.digest
                if subject.forgets:
                    connection.execute(sa.delete(_t).where(here))
                    continue
                connection.execute(
                    sa.update(_t)
                    .where(here, _t.c.failures > 0)
                    .values(failures=_t.c.failures - 1, blocked_until=self._clock.now())
                )


def _blocked_for(connection: sa.Connection, subject: Subject, now: datetime) -> timedelta:
    until = connection.execute(sa.select(_t.c.blocked_until).where(_t.c.subject == subject.digest)).scalar()
    return until - now if until else timedelta(0)


def _count(connection: sa.Connection, subject: Subject, now: datetime) -> None:
    here = _t.c.subject == subject.digest
    row = connection.execute(sa.select(_t.c.failures, _t.c.last_at).where(here)).first()
    failures = 1 if row is None or now - row.last_at > FORGET_AFTER else row.failures + 1
    values = {"failures": failures, "last_at": now, "blocked_until": now + subject.pause_after(failures)}
    if row is None:
        connection.execute(sa.insert(_t).values(subject=subject.digest, **values))
    else:
        connection.execute(sa.update(_t).where(here).values(**values))
