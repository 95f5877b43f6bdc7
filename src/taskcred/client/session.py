"""An access token that is always fresh, for any number of threads, tasks and forks, with one request for all."""

from __future__ import annotations

import asyncio
import copy
import os
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from taskcred.client import forking, operations, protocol
from taskcred.client.drivers import Connection, SyncDriver
from taskcred.client.settings import server_url
from taskcred.domain.secret import Secret
from taskcred.errors import ConfigurationError, KeyRefusedError, TaskcredError

if TYPE_CHECKING:
    import httpx
    import requests
    from ibm_cloud_sdk_core.authenticators import Authenticator

_REFRESH_AT: Final = 0.8  # of a token's life
_MARGIN: Final = 5.0  # seconds, at most: a call made with the token must still find it good when it arrives
_QUIET: Final = 5.0  # seconds without another try, after one that failed while there is a good token


@dataclass(frozen=True, slots=True)
class _Held:
    """A token and, by the client's own clock, when to ask for the next, when to wait for it, and its end."""

    token: Secret = field(repr=False)
    refresh_at: float
    wait_at: float
    ends_at: float


class TaskSession:
    """Tokens for one key, a job's stand-in key as a rule.

    `token()` costs a comparison while the token is in the first four fifths of its life. After that one
    thread of our own fetches the next, while callers go on with the one there is; only when that has ended
    do they wait. Failures that pass are repeated as the server asks. A key that is refused stays refused:
    KeyRefusedError, at once and for good.
    """

    def __init__(
        self,
        url: str,
        api_key: str | Secret,
        *,
        ca_file: str | os.PathLike[str] | None = None,
        timeout: float = 10.0,
    ) -> None:
        self.url: Final = server_url(url)
        self._key: Final = api_key if isinstance(api_key, Secret) else Secret(api_key)
        self._driver: Final = SyncDriver(Connection(self.url, str(ca_file) if ca_file else None, timeout))
        self._lock = threading.Lock()
        self._held: _Held | None = None
        self._refused: KeyRefusedError | None = None
        self._flight: Future[_Held] | None = None  # the one request under way
        self._quiet_until = 0.0
        self._when_refused: Callable[[], None] | None = None
        forking.follow(self)

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> TaskSession:
        """What a job finds: IBMCLOUD_API_KEY, which is its stand-in key, and TASKCRED_URL."""
        found = os.environ if environment is None else environment
        key = found.get("IBMCLOUD_API_KEY")
        if not key:
            raise ConfigurationError(
                "There is no key in IBMCLOUD_API_KEY.",
                hint="Inside a job it is set. Elsewhere: `taskcred exec -- COMMAND`, or set it yourself.",
            )
        return cls(server_url(found.get("TASKCRED_URL")), key, ca_file=found.get("TASKCRED_CA_FILE"))

    def token(self) -> str:
        """An access token that is good now. Raises KeyRefusedError, or UnavailableError where the server
        was away for longer than the last token lived."""
        held = self._held
        if held is None or protocol.now() >= held.refresh_at:
            ready = self._join()
            if isinstance(ready, Future):
                try:
                    ready = ready.result()
                except TaskcredError as error:
                    ready = self._last_hope(error)
            held = ready
        return held.token.reveal()  # whom the caller shows it to needs the text

    async def token_async(self) -> str:
        """The same for an event loop; it and all threads share one token and one request."""
        held = self._held
        if held is None or protocol.now() >= held.refresh_at:
            ready = self._join()
            if isinstance(ready, Future):
                try:
                    ready = await asyncio.wrap_future(ready)
                except TaskcredError as error:
                    ready = self._last_hope(error)
            held = ready
        return held.token.reveal()  # as above

    def httpx_auth(self) -> httpx.Auth:
        """For `httpx.Client(auth=…)` and `httpx.AsyncClient(auth=…)`."""
        from taskcred.client.adapters import httpx_auth

        return httpx_auth(self)

    def requests_auth(self) -> requests.auth.AuthBase:
        """For `requests.get(…, auth=…)`. Needs the package requests."""
        from taskcred.client.adapters import requests_auth

        return requests_auth(self)

    def ibm_authenticator(self) -> Authenticator:
        """For services of IBM's Python SDKs. Needs the package ibm-cloud-sdk-core."""
        from taskcred.client.adapters import ibm_authenticator

        return ibm_authenticator(self)

    def when_refused(self, tell: Callable[[], None]) -> None:
        """Call `tell`, from a thread of the session, once the key is refused."""
        self._when_refused = tell

    def close(self) -> None:
        """Close the connections; a later call opens new ones."""
        self._driver.close()

    def after_fork(self) -> None:
        """In the child: the token is as good here, a request under way is not ours."""
        self._lock = threading.Lock()
        self._flight = None

    def __repr__(self) -> str:
        return f"TaskSession({self.url!r})"

    def _join(self) -> _Held | Future[_Held]:
        """What there is to go on with; else the request under way, to wait for. Begins it where it is due."""
        with self._lock:
            if self._refused is not None:
                raise copy.copy(self._refused)  # each caller's own: an exception collects tracebacks
            held, now = self._held, protocol.now()
            is_good = held is not None and now < held.wait_at
            if held is not None and (now < held.refresh_at or (is_good and now < self._quiet_until)):
                return held
            flight = self._flight
            is_ours = flight is None
            if flight is None:
                flight = self._flight = Future()
                flight.set_running_or_notify_cancel()  # one who is cancelled must not cancel it for all
        if is_ours:
            try:
                threading.Thread(
                    target=self._fly, args=(flight, held), name="taskcred-token", daemon=True
                ).start()
            except RuntimeError:  # the interpreter is ending, and starts no threads any more
                self._fly(flight, held)
        return held if held is not None and is_good else flight

    def _fly(self, flight: Future[_Held], held: _Held | None) -> None:
        """Fetch a token for all who wait. While the old one is good there is time to try again and again."""
        spare = 0.0 if held is None else max(0.0, held.ends_at - protocol.now())
        try:
            token, seconds = self._driver.run(operations.exchange(self._key, protocol.PATIENCE + spare))
        except BaseException as error:  # noqa: BLE001 - it is theirs who wait
            with self._lock:
                self._flight, self._quiet_until = None, protocol.now() + _QUIET
                if isinstance(error, KeyRefusedError):
                    self._refused, self._held = error, None
            if isinstance(error, KeyRefusedError) and self._when_refused is not None:
                self._when_refused()
            flight.set_exception(error)
        else:
            now = protocol.now()
            margin = min(_MARGIN, 0.05 * seconds)
            fresh = _Held(token, now + _REFRESH_AT * seconds, now + seconds - margin, now + seconds)
            with self._lock:
                self._flight, self._held = None, fresh
            flight.set_result(fresh)

    def _last_hope(self, error: TaskcredError) -> _Held:
        """The token in its last seconds, where no other could be had; else `error`."""
        held = self._held
        if held is None or protocol.now() >= held.ends_at:
            raise copy.copy(error)
        return held
