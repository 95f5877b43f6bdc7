"""The two drivers of operations, blocking and in an event loop, both on httpx."""

from __future__ import annotations

import asyncio
import functools
import ssl
import threading
import time
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

import httpx

from taskcred import __version__
from taskcred.client import forking
from taskcred.client.protocol import NOTHING, Operation, Pause, Request, Response, Step
from taskcred.errors import ConfigurationError, TaskcredError, UnavailableError

T = TypeVar("T")


def _nobody() -> Mapping[str, str]:
    return {}


@dataclass(frozen=True, slots=True)
class Connection:
    """Where the server is and how to talk to it. `credentials` gives the headers that say who we are, anew
    for each request; `ca_file` adds to the public authorities; `timeout` is in seconds."""

    url: str
    ca_file: str | None = None
    timeout: float = 10.0
    credentials: Callable[[], Mapping[str, str]] = field(default=_nobody, repr=False)


class SyncDriver:
    """Runs operations in the calling thread. Any number of threads may use it; a fork gets connections of
    its own."""

    def __init__(self, connection: Connection) -> None:
        self.connection: Final = connection
        self._http: httpx.Client | None = None
        self._closing: weakref.finalize[..., SyncDriver] | None = None
        self._lock = threading.Lock()
        forking.follow(self)

    def run(self, operation: Operation[T]) -> T:
        """What the operation returns."""
        try:
            step = next(operation)
            while True:
                try:
                    answer = self._take(step)
                except TaskcredError as error:
                    step = operation.throw(error)
                else:
                    step = operation.send(answer)
        except StopIteration as end:
            value: T = end.value
            return value

    def close(self) -> None:
        """Close the connections; the next operation opens new ones."""
        with self._lock:
            self._http = None
            if self._closing is not None:
                self._closing()

    def after_fork(self) -> None:
        """In the child: leave the parent's connections and locks alone, whose other threads may hold them. They
        are kept, unused: not even closed."""
        self._lock = threading.Lock()
        if self._closing is not None:
            self._of_the_parent = self._closing.detach()
        self._http = None

    def _take(self, step: Step) -> Response:
        if isinstance(step, Pause):
            time.sleep(step.seconds)
            return NOTHING
        arguments = _arguments(self.connection, step)
        try:
            answer = self._client().request(**arguments)
        except httpx.RequestError as error:
            raise _no_answer(self.connection, error) from error
        return _response(answer)

    def _client(self) -> httpx.Client:
        http = self._http
        if http is None:
            with self._lock:
                http = self._http
                if http is None:
                    http = self._http = httpx.Client(**_options(self.connection))
                    self._closing = weakref.finalize(self, http.close)  # whoever forgets to
        return http


class AsyncDriver:
    """Runs operations in an event loop; each loop has connections of its own."""

    def __init__(self, connection: Connection) -> None:
        self.connection: Final = connection
        self._http: httpx.AsyncClient | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        forking.follow(self)

    async def run(self, operation: Operation[T]) -> T:
        """What the operation returns."""
        try:
            step = next(operation)
            while True:
                try:
                    answer = await self._take(step)
                except TaskcredError as error:
                    step = operation.throw(error)
                else:
                    step = operation.send(answer)
        except StopIteration as end:
            value: T = end.value
            return value

    async def close(self) -> None:
        """Close the connections of this loop; the next operation opens new ones."""
        http, loop, self._http, self._loop = self._http, self._loop, None, None
        if http is not None and loop is asyncio.get_running_loop():
            await http.aclose()

    def after_fork(self) -> None:
        """In the child: as SyncDriver does."""
        self._of_the_parent = self._http
        self._http = None

    async def _take(self, step: Step) -> Response:
        if isinstance(step, Pause):
            await asyncio.sleep(step.seconds)
            return NOTHING
        arguments = _arguments(self.connection, step)
        try:
            answer = await self._client().request(**arguments)
        except httpx.RequestError as error:
            raise _no_answer(self.connection, error) from error
        return _response(answer)

    def _client(self) -> httpx.AsyncClient:
        loop = asyncio.get_running_loop()
        if self._http is None or self._loop is not loop:
            self._http, self._loop = httpx.AsyncClient(**_options(self.connection)), loop
        return self._http


def _options(connection: Connection) -> dict[str, Any]:
    return {
        "base_url": connection.url,
        "verify": _trust(connection.ca_file),
        "headers": {"User-Agent": f"taskcred-client/{__version__}", "Accept": "application/json"},
        # Threads that wait for a connection of the pool have not waited for the server.
        "timeout": httpx.Timeout(connection.timeout, pool=None),
    }


@functools.lru_cache(maxsize=8)  # takes longer to make than a request; each attempt has a session
def _trust(ca_file: str | None) -> ssl.SSLContext:
    """The public authorities and those of `ca_file`, which may hold the server's own certificate."""
    if ca_file is None:
        return httpx.create_ssl_context()
    context = ssl.create_default_context()
    try:
        context.load_verify_locations(cafile=ca_file)
    except OSError as error:
        raise ConfigurationError(
            f"The certificates in {ca_file} cannot be read: {error.strerror or 'not a PEM file'}.",
            hint="Name the PEM file of the server's authority.",
        ) from error
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    return context


def _arguments(connection: Connection, request: Request) -> dict[str, Any]:
    """What httpx is told; credentials are asked for here, once for each request."""
    own = {} if request.anonymous else connection.credentials()
    arguments: dict[str, Any] = {
        "method": request.method,
        "url": request.path,
        "headers": {**request.headers, **own},
        "timeout": httpx.Timeout(
            max(connection.timeout, request.timeout), connect=connection.timeout, pool=None
        ),
    }
    if request.query:
        arguments["params"] = dict(request.query)
    if request.form is not None:
        arguments["data"] = dict(request.form)
    elif request.body is not None:
        arguments["json"] = request.body
    return arguments


def _response(answer: httpx.Response) -> Response:
    return Response(
        answer.status_code, {name.lower(): value for name, value in answer.headers.items()}, answer.content
    )


def _no_answer(connection: Connection, error: httpx.RequestError) -> TaskcredError:
    """httpx's exceptions name hosts and certificates; of what was sent, only what no header may hold, which
    `settings` has refused."""
    if "CERTIFICATE_VERIFY_FAILED" in str(error):
        return ConfigurationError(
            f"The certificate of {connection.url} is not trusted here.",
            hint="Name the PEM file of its authority: ca_file, or TASKCRED_CA_FILE, if you trust it.",
        )
    gone = UnavailableError(
        f"{connection.url} does not answer: {error or type(error).__name__}.",
        hint="Try again; the server's operator finds out more with `taskcred doctor`.",
    )
    gone.retry_after = None
    return gone
