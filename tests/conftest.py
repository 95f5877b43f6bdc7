"""Fixtures that every kind of test may use."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.chromium import browser
from tests.support.server import Server

if TYPE_CHECKING:
    from tests.support.openbao import OpenBao

__all__ = ["browser", "openbao", "sealable_openbao", "start_server"]


@pytest.fixture(scope="session")
def openbao(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenBao]:
    """A vault in memory, for all tests: each makes a mount of its own."""
    from tests.support.openbao import dev_server  # loads hvac, which few tests need

    with dev_server(tmp_path_factory.mktemp("openbao")) as running:
        yield running


@pytest.fixture(scope="session")
def sealable_openbao(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenBao]:
    """A vault on disk, for tests that seal it; each leaves it unsealed."""
    from tests.support.openbao import raft_server

    with raft_server(tmp_path_factory.mktemp("openbao-raft")) as running:
        yield running


@pytest.fixture
def start_server(tmp_path: Path) -> Iterator[Callable[..., Server]]:
    """Start a real server: `start_server(config=..., arguments=...)`; all are stopped at the end."""
    started: list[Server] = []

    def start(**options: object) -> Server:
        server = Server(tmp_path / f"server{len(started)}", **options)  # type: ignore[arg-type]  # passed through
        started.append(server)
        server.start()
        return server

    yield start
    for server in started:
        server.stop()
