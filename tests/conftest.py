"""Fixtures that every kind of test may use."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from tests.support.chromium import browser
from tests.support.postgresql import PostgreSQL, programs
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


_HERE: Final = Path(__file__).parent
_ON_BOTH: Final = (  # what decides by the records, in this process: each test once on each database
    "functional/credentials",
    "functional/grants",
    "functional/runs",
    "functional/services",
    "faults/credentials",
    "faults/runs",
)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run the tests of these folders on SQLite and on PostgreSQL."""
    folder = Path(metafunc.module.__file__ or "").parent.relative_to(_HERE).as_posix()
    if folder not in _ON_BOTH:
        return
    only = metafunc.definition.get_closest_marker("only_on")
    databases = [only.args[0]] if only else ["sqlite", "postgresql"]
    metafunc.parametrize("records", databases, indirect=True)


@pytest.fixture(scope="session")
def postgresql() -> Iterator[PostgreSQL]:
    """A PostgreSQL cluster of this process's own."""
    if programs() is None:
        pytest.skip("PostgreSQL's programs are not installed: scripts/test-tools")
    cluster = PostgreSQL()
    yield cluster
    cluster.remove()


@pytest.fixture(scope="session")
def migrated(postgresql: PostgreSQL) -> str:
    """The URL of a database with our tables, for tests that change only what is in them."""
    return postgresql.create()


@pytest.fixture(autouse=True)
def records(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Where `make_context`, here and in processes a test starts, keeps the records: SQLite, or an empty
    database of PostgreSQL for tests that run on both."""
    if getattr(request, "param", "sqlite") == "sqlite":
        yield
        return
    cluster: PostgreSQL = request.getfixturevalue("postgresql")
    url: str = request.getfixturevalue("migrated")
    monkeypatch.setenv("TASKCRED_DATABASE__URL", url)
    yield
    cluster.empty(url)


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
