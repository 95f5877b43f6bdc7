"""The keeper's housekeeping forgets what nobody can need any more, wherever it lies."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa

from taskcred.clock import SystemClock
from taskcred.config import Server, Settings
from taskcred.data_dir import DataDir
from taskcred.store import tables as t
from taskcred.store.engine import sqlite_engine
from taskcred.wiring.keeper import build_keeper
from taskcred.wiring.prepare import prepare

Row = Callable[[datetime], sa.Insert]


def _session(at: datetime) -> sa.Insert:
    return t.sessions.insert().values(
        digest=str(at).encode(), account_id="a", iam_id="i", auth_time=at, created_at=at, last_seen_at=at,
        token_expires_at=at, sealed_token=b"sealed",
    )  # fmt: skip


def _answer(at: datetime) -> sa.Insert:
    return t.idempotency.insert().values(
        account_id="a", iam_id="i", route="r", key=str(at), request_digest=b"", created_at=at
    )


def _change(at: datetime) -> sa.Insert:
    return t.changes.insert().values(kind="attempt", ref="attempt", at=at)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(data_dir=tmp_path / "data", server=Server(public_url="http://localhost"))


def test_what_is_old_goes_and_what_is_young_stays(settings: Settings) -> None:
    prepare(settings)
    now = SystemClock().now()
    rows: tuple[Row, ...] = (_session, _answer, _change)
    engine = sqlite_engine(DataDir(settings.data_dir).records)
    with engine.begin() as connection:
        for row in rows:
            connection.execute(row(now))
            connection.execute(row(now - timedelta(days=2)))
    keeper = build_keeper(settings)
    (housekeeping,) = [duty for duty in keeper.duties if duty.name == "housekeeping"]
    assert housekeeping.work() == 0
    with engine.begin() as connection:
        for table in (t.sessions, t.idempotency, t.changes):
            (left,) = connection.execute(sa.select(table)).mappings()
            assert now in left.values(), table.name
    engine.dispose()
