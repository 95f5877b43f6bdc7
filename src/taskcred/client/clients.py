"""The two clients: the same operations, blocking and in an event loop."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Generic, Self, TypeVar
from urllib.parse import urlencode

from taskcred.client import operations
from taskcred.client.attempt import AsyncAttempt, Attempt
from taskcred.client.drivers import AsyncDriver, Connection, SyncDriver
from taskcred.client.models import Begun, Event, Grant, Output, Run
from taskcred.client.settings import Settings, Token, settings
from taskcred.domain.secret import Secret
from taskcred.errors import ConfigurationError

D = TypeVar("D")
_Path = str | os.PathLike[str]


class _Configured(ABC, Generic[D]):
    """What both clients are made of, and what needs no request."""

    def __init__(
        self,
        url: str | None = None,
        *,
        client_id: str | None = None,
        client_secret: str | Secret | None = None,
        access_token: Token | None = None,
        workload_token_file: _Path | None = None,
        ca_file: _Path | None = None,
        timeout: float = 10.0,
    ) -> None:
        """Who the program is comes from one of `client_id` and `client_secret`, `access_token` (a person's
        own; a function is asked before each request) and `workload_token_file`; else from the environment:
        TASKCRED_SERVICE_FILE, or TASKCRED_CLIENT_ID with TASKCRED_CLIENT_SECRET_FILE, or
        TASKCRED_WORKLOAD_TOKEN_FILE. `url` is TASKCRED_URL, `ca_file` TASKCRED_CA_FILE; `timeout` is in
        seconds, for one request. Raises ConfigurationError."""
        self._settings: Settings = settings(
            url,
            client_id=client_id,
            client_secret=client_secret,
            access_token=access_token,
            workload_token_file=workload_token_file,
            ca_file=ca_file,
            timeout=timeout,
            environment=os.environ,
        )
        self._driver: D = self._drives(self._settings.connection)

    @abstractmethod
    def _drives(self, connection: Connection) -> D:
        """What runs the operations."""

    @property
    def url(self) -> str:
        """The server's, without a slash at its end."""
        return self._settings.connection.url

    @property
    def client_id(self) -> str | None:
        """The service's id, where it is known here."""
        return self._settings.client_id

    def consent_url(
        self, *, tasks: Sequence[str], days: int = 90, return_to: str = "", state: str = ""
    ) -> str:
        """The page where a user gives this service a grant. It sends them to `return_to` (one of the
        service's callback URLs, exactly) with `grant_id` and `state`, or with `error`."""
        if self.client_id is None:
            raise ConfigurationError(
                "The client id of this service is not known here.", hint="Give client_id to the client."
            )
        query = {"service": self.client_id, "tasks": ",".join(tasks), "days": str(days)}
        query |= {"return_to": return_to} if return_to else {}
        query |= {"state": state} if state else {}
        return f"{self.url}/grants/new?{urlencode(query)}"

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.url!r}, client_id={self.client_id!r})"


class Client(_Configured[SyncDriver]):
    """The server's interface for services, and for programs of owners. Any number of threads may use one
    client; a fork goes on with it over connections of its own."""

    def _drives(self, connection: Connection) -> SyncDriver:
        return SyncDriver(connection)

    def start_run(
        self,
        task: str,
        parameters: Mapping[str, Any] | None = None,
        *,
        subject_token: str | Secret | None = None,
        grant_id: str | None = None,
        reference: str = "",
        return_to: str = "",
        idempotency_key: str | None = None,
    ) -> Run:
        """Start a run. A service shows either the owner's interactive access token or a grant; an owner
        neither. `reference` is the service's own name for it. Where `prompt_url` is set the run waits for
        its owner to answer there, who is then led to `return_to` (one of the service's callback URLs, exactly)
        with `run_id`. A repetition with the same `idempotency_key` gets the same run."""
        return self._driver.run(
            operations.start_run(
                task,
                parameters,
                subject_token=subject_token,
                grant_id=grant_id,
                reference=reference,
                return_to=return_to,
                idempotency_key=idempotency_key,
            )
        )

    def run(self, run_id: str) -> Run:
        """The run as it is now."""
        return self._driver.run(operations.get_run(run_id))

    def wait(
        self, run_id: str, until: Collection[str] = operations.UNTIL, timeout: float | None = None
    ) -> Run:
        """The run once its state is one of `until`; by default once it does not wait for a credential. ENDED
        waits for its end.
        Raises WaitTimeoutError after `timeout` seconds."""
        return self._driver.run(operations.wait(run_id, until, timeout))

    def runs(self, state: str | None = None, limit: int = 100) -> list[Run]:
        """The latest runs that this service started, newest first, `limit` of them at most; only those in
        `state` where one is given. For an owner, their own."""
        return self._driver.run(operations.runs(state, limit))

    def output(self, run_id: str, after: int = 0, attempt: int | None = None) -> Output:
        """What the run has printed until now: its latest attempt, unless another is named. To read on later,
        name the `attempt` and, as `after`, the `next_after` of what you have."""
        return self._driver.run(operations.output(run_id, after, attempt))

    def cancel_run(self, run_id: str) -> Run:
        """End the run; whoever executes it is asked to."""
        return self._driver.run(operations.cancel_run(run_id))

    def begin_attempt(self, run_id: str, addresses: Sequence[str] = ()) -> Attempt:
        """Begin to execute the run: its stand-in key, usable only from the networks `addresses` where there
        are any, and a thread that beats for it. Raises WaitingForCredential while the run is parked."""
        run, begun = self._driver.run(operations.begin_attempt(run_id, addresses))
        return Attempt(run, begun, self._driver)

    def go_on(self, kept: Mapping[str, Any]) -> Attempt:
        """The attempt that an earlier process began and `Attempt.kept` told of, under the same stand-in key.
        Whether it still lives shows at the next heartbeat."""
        return Attempt(self.run(kept["run_id"]), Begun.of(kept), self._driver)

    def events(self, after: int | None = None, limit: int = 100) -> list[Event]:
        """What happened to this service's runs and grants after the event with the id `after`, oldest first;
        at most `limit` (200), of the last 30 days."""
        return self._driver.run(operations.events(after, limit))

    def grants(self) -> list[Grant]:
        """The grants given to this service; for an owner, their own."""
        return self._driver.run(operations.grants())

    def grant(self, grant_id: str) -> Grant:
        """One grant. Raises NotFoundError where there is none that the caller may see."""
        return self._driver.run(operations.grant(grant_id))

    def close(self) -> None:
        """Close the connections; a later call opens new ones."""
        self._driver.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class AsyncClient(_Configured[AsyncDriver]):
    """`Client` for an event loop: the same operations, awaited."""

    def _drives(self, connection: Connection) -> AsyncDriver:
        return AsyncDriver(connection)

    async def start_run(
        self,
        task: str,
        parameters: Mapping[str, Any] | None = None,
        *,
        subject_token: str | Secret | None = None,
        grant_id: str | None = None,
        reference: str = "",
        return_to: str = "",
        idempotency_key: str | None = None,
    ) -> Run:
        """As `Client.start_run`."""
        return await self._driver.run(
            operations.start_run(
                task,
                parameters,
                subject_token=subject_token,
                grant_id=grant_id,
                reference=reference,
                return_to=return_to,
                idempotency_key=idempotency_key,
            )
        )

    async def run(self, run_id: str) -> Run:
        """As `Client.run`."""
        return await self._driver.run(operations.get_run(run_id))

    async def wait(
        self, run_id: str, until: Collection[str] = operations.UNTIL, timeout: float | None = None
    ) -> Run:
        """As `Client.wait`."""
        return await self._driver.run(operations.wait(run_id, until, timeout))

    async def runs(self, state: str | None = None, limit: int = 100) -> list[Run]:
        """As `Client.runs`."""
        return await self._driver.run(operations.runs(state, limit))

    async def output(self, run_id: str, after: int = 0, attempt: int | None = None) -> Output:
        """As `Client.output`."""
        return await self._driver.run(operations.output(run_id, after, attempt))

    async def cancel_run(self, run_id: str) -> Run:
        """As `Client.cancel_run`."""
        return await self._driver.run(operations.cancel_run(run_id))

    async def begin_attempt(self, run_id: str, addresses: Sequence[str] = ()) -> AsyncAttempt:
        """As `Client.begin_attempt`."""
        run, begun = await self._driver.run(operations.begin_attempt(run_id, addresses))
        return AsyncAttempt(run, begun, self._driver)

    async def go_on(self, kept: Mapping[str, Any]) -> AsyncAttempt:
        """As `Client.go_on`."""
        return AsyncAttempt(await self.run(kept["run_id"]), Begun.of(kept), self._driver)

    async def events(self, after: int | None = None, limit: int = 100) -> list[Event]:
        """As `Client.events`."""
        return await self._driver.run(operations.events(after, limit))

    async def grants(self) -> list[Grant]:
        """As `Client.grants`."""
        return await self._driver.run(operations.grants())

    async def grant(self, grant_id: str) -> Grant:
        """As `Client.grant`."""
        return await self._driver.run(operations.grant(grant_id))

    async def close(self) -> None:
        """Close the connections of this event loop."""
        await self._driver.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()
