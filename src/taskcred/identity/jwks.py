"""The provider's published keys (JWKS, RFC 7517), kept and fetched again with restraint.

A token under a key id we do not know makes us look again, but not more often than every few seconds:
else anybody could make us flood the provider with invented key ids. Keys we hold serve on while the provider
is away.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Any, Final

from joserfc.errors import JoseError
from joserfc.jwk import Key, KeySet

from taskcred.errors import UpstreamUnavailableError
from taskcred.ports import Clock

_LOOK_AGAIN: Final = 10.0  # seconds between two fetches for unknown key ids
_FIRST_AGAIN: Final = 1.0  # seconds between two fetches while we hold no keys at all
_MAX_AGE: Final = 900.0  # seconds; a key the provider withdrew is forgotten after this
_PATIENCE: Final = 1.0  # seconds a thread waits for another one's fetch


class PublishedKeys:
    """The keys by id. `fetch` asks the provider and raises UpstreamUnavailableError."""

    def __init__(self, fetch: Callable[[], Mapping[str, Any]], clock: Clock) -> None:
        self._fetch: Final = fetch
        self._clock: Final = clock
        self._fetching: Final = threading.Lock()
        self._keys: dict[str, Key] = {}
        self._tried_at = float("-inf")
        self._fetched_at = float("-inf")

    def find(self, key_id: str) -> Key | None:
        """The key with this id; None where the provider publishes none.

        Raises UpstreamUnavailableError where we hold no keys at all and the provider is away.
        """
        key = self._keys.get(key_id)
        if key is not None and not self._is_old():
            return key
        # A key that is merely old serves on while another thread fetches; for lack of one it is worth a
        # short wait. A hung provider must not collect our threads here.
        if self._fetching.acquire(timeout=0 if key is not None else _PATIENCE):
            try:
                self._look_again(key_id)
            finally:
                self._fetching.release()
        if not self._keys:
            raise UpstreamUnavailableError(
                "The identity provider has not shown its keys yet.", hint="Try again in a moment."
            )
        return self._keys.get(key_id)

    def refresh(self) -> None:
        """Fetch now; for health. Raises UpstreamUnavailableError."""
        try:
            keys = KeySet.import_key_set({"keys": list(self._fetch()["keys"])})
        except (JoseError, KeyError, TypeError, ValueError, AttributeError):
            raise UpstreamUnavailableError(
                "The identity provider's published keys cannot be read.", hint="Look at its /identity/keys."
            ) from None
        self._keys = {key.kid: key for key in keys if key.kid is not None}
        self._fetched_at = self._clock.monotonic()

    def _is_old(self) -> bool:
        return self._clock.monotonic() - self._fetched_at >= _MAX_AGE

    def _look_again(self, key_id: str) -> None:
        now = self._clock.monotonic()
        if key_id in self._keys and not self._is_old():
            return  # another thread fetched while we waited
        if now - self._tried_at < (_LOOK_AGAIN if self._keys else _FIRST_AGAIN):
            return
        self._tried_at = now
        try:
            self.refresh()
        except UpstreamUnavailableError:
            if not self._keys:
                raise
