"""Passwords: argon2id, few at a time, and a back-off for whoever guesses.

A try is counted before the password is looked at and the count is taken back when it was right, so any
number of guesses sent at once are counted like guesses sent one after the other. Known and unknown
addresses behave alike.
"""

from __future__ import annotations

import hashlib
import ipaddress
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

import sqlalchemy as sa
from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from taskcred.domain.secret import Secret
from taskcred.errors import InvalidRequestError, RateLimitedError, UnavailableError
from taskcred.iam import tables
from taskcred.iam.database import Database
from taskcred.ports import Clock

MIN_LENGTH: Final = 12
MAX_LENGTH: Final = 256
# OWASP's parameters for argon2id: 19 MiB, two passes, one lane.
_HASHER: Final = PasswordHasher(time_cost=2, memory_cost=19 * 1024, parallelism=1)
_AT_ONCE: Final = 2  # each takes 19 MiB and some 20 ms of a core
_WAIT_SECONDS: Final = 10

_FREE_TRIES_PERSON: Final = 5
_FREE_TRIES_ADDRESS: Final = 50  # an office may share one
_LONGEST_PAUSE_ADDRESS: Final = timedelta(minutes=1)
_FIRST_PAUSE: Final = timedelta(seconds=15)
_LONGEST_PAUSE: Final = timedelta(minutes=15)
FORGET_AFTER: Final = timedelta(hours=1)


class Passwords:
    """Hashes and checks passwords for one process."""

    def __init__(self) -> None:
        self._permits: Final = threading.Semaphore(_AT_ONCE)
        self._decoy: str | None = None

    def hash(self, password: Secret) -> str:
        """The argon2id hash. Raises InvalidRequestError where the password is too short or too long."""
        # The text is needed to measure and to hash it.
        text = password.reveal()
        if not MIN_LENGTH <= len(text) <= MAX_LENGTH or not text.strip():
            raise InvalidRequestError(
                f"The password must have {MIN_LENGTH} to {MAX_LENGTH} characters.",
                hint="A few words that do not belong together make a good password.",
                code="weak_password",
                field="password",
            )
        with self._permit():
            return _HASHER.hash(text.encode("utf-8", "surrogatepass"))

    def is_right(self, password: Secret, password_hash: str | None) -> bool:
        """Whether this is the password of the hash. Takes as long where there is no hash."""
        if self._decoy is None:
            self._decoy = _HASHER.hash(b"nobody's password")
        # The text is needed to compare it. Nothing longer than we would have taken is worth the hashing.
        text = password.reveal()[: MAX_LENGTH + 1].encode("utf-8", "surrogatepass")
        with self._permit():
            try:
                return _HASHER.verify(password_hash or self._decoy, text) and password_hash is not None
            except (VerificationError, InvalidHashError):
                return False

    @contextmanager
    def _permit(self) -> Iterator[None]:
        if not self._permits.acquire(timeout=_WAIT_SECONDS):
            raise UnavailableError(
                "Too many people are signing in at this moment.", hint="Try again in a few seconds."
            )
        try:
            yield
        finally:
            self._permits.release()


@dataclass(frozen=True, slots=True)
class Subject:
    """What failures are counted by: a digest, how many failures are free, and the longest pause."""

    digest: bytes
    free: int
    longest: timedelta

    def pause_after(self, failures: int) -> timedelta:
        """How long to refuse tries after this many failures in a row: none for the first ones, then
        15 s, doubling up to the longest."""
        if failures < self.free:
            return timedelta(0)
        return min(_FIRST_PAUSE * (1 << min(failures - self.free, 16)), self.longest)


class Throttle:
    """Counts failed passwords by e-mail address and by network address."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database: Final = database
        self._clock: Final = clock

    def begin(self, email: str, address: str) -> None:
        """Count a try for both. Raises RateLimitedError where either must wait; then nothing is counted."""
        now = self._clock.now()
        with self._database.write() as connection:
            wait = max(_blocked_for(connection, subject, now) for subject in subjects_of(email, address))
            if wait > timedelta(0):
                raise RateLimitedError(
                    "Too many wrong passwords.", retry_after=max(1, -(-wait // timedelta(seconds=1)))
                )
            for subject in subjects_of(email, address):
                _count(connection, subject, now)

    def succeeded(self, email: str, address: str) -> None:
        """The password was right: forget the person's failures, and take this try off the address."""
        t = tables.password_tries
        person, *places = subjects_of(email, address)
        with self._database.write() as connection:
            connection.execute(sa.delete(t).where(t.c.subject == person.digest))
            for place in places:
                connection.execute(
                    sa.update(t)
                    .where(t.c.subject == place.digest, t.c.failures > 0)
                    .values(failures=t.c.failures - 1, blocked_until=self._clock.now())
                )


def subjects_of(email: str, address: str) -> list[Subject]:
    """The person, and the place the try came from; not a loopback address, which is that of a proxy in
    front of us and so of everybody."""
    raw_email = b"email:" + email.encode("utf-8", "surrogatepass")
    subjects = [Subject(hashlib.sha256(raw_email).digest(), _FREE_TRIES_PERSON, _LONGEST_PAUSE)]
    if address and not _is_loopback(address):
        place = hashlib.sha256(b"address:" + address.encode()).digest()
        subjects.append(Subject(place, _FREE_TRIES_ADDRESS, _LONGEST_PAUSE_ADDRESS))
    return subjects


def _is_loopback(address: str) -> bool:
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:  # a Unix socket: somebody in front of us, too
        return True


def _blocked_for(connection: sa.Connection, subject: Subject, now: datetime) -> timedelta:
    t = tables.password_tries
    until = connection.execute(sa.select(t.c.blocked_until).where(t.c.subject == subject.digest)).scalar()
    return until - now if until else timedelta(0)


def _count(connection: sa.Connection, subject: Subject, now: datetime) -> None:
    t = tables.password_tries
    here = t.c.subject == subject.digest
    row = connection.execute(sa.select(t.c.failures, t.c.last_at).where(here)).first()
    failures = 1 if row is None or now - row.last_at > FORGET_AFTER else row.failures + 1
    values = {"failures": failures, "last_at": now, "blocked_until": now + subject.pause_after(failures)}
    if row is None:
        connection.execute(sa.insert(t).values(subject=subject.digest, **values))
    else:
        connection.execute(sa.update(t).where(here).values(**values))
