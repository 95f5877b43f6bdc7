"""One server for the client's tests, a person with an API key, and a proxy that counts."""

from __future__ import annotations

import secrets
from collections.abc import Iterator

import pytest

from tests.support.proxy import Proxy
from tests.support.server import Person, Server


@pytest.fixture(scope="package")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """What tests would share is per person, and each has a person of its own."""
    server = Server(tmp_path_factory.mktemp("client"))
    server.start()
    yield server
    server.stop()


@pytest.fixture
def person(server: Server) -> Person:
    name = secrets.token_hex(6)
    return server.create_person(f"{name}@example.com", account=name, api_key=True)


@pytest.fixture
def proxy(server: Server) -> Iterator[Proxy]:
    proxy = Proxy(server.url)
    yield proxy
    proxy.close()
