"""Fixtures that every kind of test may use."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.chromium import browser
from tests.support.server import Server

__all__ = ["browser", "start_server"]


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
