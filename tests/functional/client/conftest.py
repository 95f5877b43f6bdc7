"""One server for the client's tests, a service, owners with and without a credential, and a proxy that counts."""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pytest

from taskcred.client import Client
from tests.support.proxy import Proxy
from tests.support.server import Person, Server, SignedIn

T = TypeVar("T")
CONFIG = """
[tasks.train]
kind = "external"
sdk_services = ["iam_identity"]
parameters = {type = "object", properties = {epochs = {type = "integer"}}, additionalProperties = false}

[tasks.wait]
kind = "command"
argv = ["/bin/sleep", "600"]
"""
CALLBACK = "https://notebooks.example.com/back"


def in_new_loop(work: Coroutine[Any, Any, T]) -> T:
    """What `work` answers, from an event loop in a thread of its own: the browser tests' library leaves one
    running in the main thread for the whole session."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, work).result()


@dataclass(frozen=True)
class Service:
    """A registered service: what the operator's command gave it."""

    client_id: str
    file: Path


@dataclass
class Owner:
    """A person who signed in."""

    signed_in: SignedIn
    grant_id: str

    @property
    def token(self) -> str:
        return self.signed_in.token

    def give_key(self) -> None:
        """Make a task credential."""
        body = {"name": "mine", "generate": True}
        assert self.signed_in.request("POST", "/v1/task_credentials", json=body).status_code == 201

    def request(self, method: str, path: str, **options: Any) -> Any:
        """The JSON answer to a request of theirs, which must be granted."""
        answer = self.signed_in.request(method, path, **options)
        assert answer.is_success, answer.text
        return answer.json()


@pytest.fixture(scope="package")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """What tests would share is per person, and each has a person of its own."""
    server = Server(tmp_path_factory.mktemp("client"), config=CONFIG)
    server.start()
    yield server
    server.stop()


def new_person(server: Server) -> Person:
    name = secrets.token_hex(6)
    return server.create_person(f"{name}@example.com", account=name, api_key=True)


@pytest.fixture(scope="package")
def person(server: Server) -> Person:
    """Somebody with an API key."""
    return new_person(server)


@pytest.fixture
def proxy(server: Server) -> Iterator[Proxy]:
    proxy = Proxy(server.url)
    yield proxy
    proxy.close()


@pytest.fixture(scope="package")
def service(server: Server) -> Service:
    """A service that may start `train`, `exec` and `wait`."""
    file = server.directory / "service.json"
    made = json.loads(
        server.command(
            *("admin", "service", "create", "notebooks", "--tasks", "train,exec,wait", "--json"),
            *("--executors", "service,worker", "--callback-url", CALLBACK, "--file", str(file)),
            *("--starts-per-minute", "1000"),
            *("--data-dir", str(server.data_dir), "--config", str(server.directory / "taskcred.toml")),
        )
    )
    return Service(made["client_id"], file)


@pytest.fixture
def newcomer(server: Server, service: Service) -> Owner:
    """An owner without a task credential, who gave the service a grant."""
    return with_grant(server.sign_in(new_person(server)), service)


@pytest.fixture(scope="package")
def signed_in(server: Server, person: Person) -> SignedIn:
    """The person, signed in, with a usable task credential."""
    signed_in = server.sign_in(person)
    Owner(signed_in, "").give_key()
    return signed_in


@pytest.fixture
def owner(signed_in: SignedIn, service: Service) -> Owner:
    """They, and a grant of this test's own."""
    return with_grant(signed_in, service)


def with_grant(signed_in: SignedIn, service: Service) -> Owner:
    body = {"service_id": service.client_id, "tasks": ["train", "exec", "wait"]}
    given = signed_in.request("POST", "/v1/grants", json=body)
    assert given.status_code == 201, given.text
    return Owner(signed_in, given.json()["id"])


@pytest.fixture
def client_of(service: Service) -> Iterator[Callable[[str], Client]]:
    """`client_of(url)`: the service's client, by way of that address."""
    told = json.loads(service.file.read_text())
    made: list[Client] = []

    def client(url: str) -> Client:
        made.append(Client(url, client_id=told["client_id"], client_secret=told["client_secret"]))
        return made[-1]

    yield client
    for each in made:
        each.close()


@pytest.fixture
def client(client_of: Callable[[str], Client], server: Server) -> Client:
    """The service's client."""
    return client_of(server.url)
