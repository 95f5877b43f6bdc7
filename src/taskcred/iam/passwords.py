"""Passwords: argon2id, few at a time. Known and unknown addresses behave alike."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from taskcred.domain.secret import Secret
from taskcred.errors import InvalidRequestError, UnavailableError

MIN_LENGTH: Final = 12
MAX_LENGTH: Final = 256
# OWASP's parameters for argon2id: 19 MiB, two passes, one lane.
_HASHER: Final = PasswordHasher(time_cost=2, memory_cost=19 * 1024, parallelism=1)
_AT_ONCE: Final = 2  # each takes 19 MiB and some 20 ms of a core
_WAIT_SECONDS: Final = 10


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
