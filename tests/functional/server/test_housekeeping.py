"""The keeper's housekeeping forgets what nobody can need any more, wherever it lies."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa

from taskcred.clock import SystemClock
from taskcred.config import RetrySettings, Server, Settings, TaskSettings
from taskcred.data_dir import DataDir
from taskcred.store import tables as t
from taskcred.store.engine import sqlite_engine
from taskcred.testing import FrozenClock
from taskcred.wiring import common
from taskcred.wiring.keeper import build_keeper
from taskcred.wiring.prepare import prepare
from taskcred.wiring.trusted import open_trusted

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


@pytest.mark.promise("giving-up-is-visible")
def test_a_run_whose_worker_fell_silent_ends(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    prepare(settings)
    clock = FrozenClock()
    monkeypatch.setattr(common, "SystemClock", lambda: clock)
    task = TaskSettings(kind="command", argv=("true",), retry=RetrySettings(on_lost=False))
    settings = settings.model_copy(update={"tasks": {"work": task}})
    keeper = build_keeper(settings, open_trusted(settings))
    engine = sqlite_engine(DataDir(settings.data_dir).records)
    owner = {"account_id": "a", "iam_id": "i"}
    with engine.begin() as connection:
        connection.execute(t.task_credentials.insert().values(
            id="c", name="mine", scope={}, state="usable", created_at=clock.now(), created_by="i",
            updated_at=clock.now(), **owner,
        ))  # fmt: skip
        connection.execute(t.runs.insert().values(
            id="r", task="work", parameters={}, state="running", started_by="i", created_at=clock.now(),
            dispatch_no=1, attempts_made=1, **owner,
        ))  # fmt: skip
        connection.execute(t.attempts.insert().values(
            id="t", run_id="r", number=1, credential_id="c", executor="worker:embedded",
            standin_digest=b"digest", standin_last_four="abcd", started_at=clock.now(), heartbeat_at=clock.now(),
        ))  # fmt: skip
    (reaper,) = [duty for duty in keeper.duties if duty.name == "reaper"]
    assert reaper.work() == 0
    clock.advance(timedelta(seconds=61))
    assert reaper.work() == 1
    with engine.begin() as connection:
        run = connection.execute(sa.select(t.runs)).one()
        attempt = connection.execute(sa.select(t.attempts)).one()
    assert (run.state, run.reason) == ("failed", "The worker running it stopped unexpectedly.")
    assert attempt.outcome == "lost"
    engine.dispose()


def test_what_is_old_goes_and_what_is_young_stays(settings: Settings) -> None:
    prepare(settings)
    now = SystemClock().now()
    rows: tuple[Row, ...] = (_session, _answer, _change)
    engine = sqlite_engine(DataDir(settings.data_dir).records)
    with engine.begin() as connection:
        for row in rows:
            connection.execute(row(now))
            connection.execute(row(now - timedelta(days=2)))
    keeper = build_keeper(settings, open_trusted(settings))
    (housekeeping,) = [duty for duty in keeper.duties if duty.name == "housekeeping"]
    assert housekeeping.work() == 0
    with engine.begin() as connection:
        for table in (t.sessions, t.idempotency, t.changes):
            (left,) = connection.execute(sa.select(table)).mappings()
            assert now in left.values(), table.name
    engine.dispose()
