"""A fresh PostgreSQL database for each test: these change what a database is, or kill who works on it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from taskcred.services.context import Context
from taskcred.testing import make_context
from tests.support.postgresql import PostgreSQL


@pytest.fixture
def url(postgresql: PostgreSQL, monkeypatch: pytest.MonkeyPatch) -> str:
    """Of a migrated database; `make_context` here, and in processes that the test starts, works on it."""
    fresh = postgresql.create()
    monkeypatch.setenv("TASKCRED_DATABASE__URL", fresh)
    return fresh


@pytest.fixture
def ctx(url: str, tmp_path: Path) -> Iterator[Context]:
    made = make_context(tmp_path)
    assert made.store.engine.url.database in url
    yield made
    made.store.engine.dispose()
