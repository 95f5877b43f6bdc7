"""The engine's two doors: enqueueing within our own transactions, and forgetting what is over."""

from __future__ import annotations

import json
import stat
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa

from taskcred.jobs.queue import DbosQueue, migrate_engine
from taskcred.store import migrate
from taskcred.store.engine import sqlite_engine

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[sa.Engine]:
    engine = sqlite_engine(tmp_path / "records.db")
    migrate.upgrade(engine)
    migrate_engine(engine)
    yield engine
    engine.dispose()


def rows(engine: sa.Engine) -> list[sa.Row[tuple[object, ...]]]:
    query = "select workflow_uuid, status, queue_name, queue_partition_key from workflow_status order by 1"
    with engine.connect() as connection:
        return list(connection.exec_driver_sql(query))


def test_the_engine_migrates_twice_without_harm(engine: sa.Engine, tmp_path: Path) -> None:
    migrate_engine(engine)
    assert rows(engine) == []
    assert stat.S_IMODE((tmp_path / "records.db").stat().st_mode) == 0o600


def test_a_dispatch_is_in_line_exactly_when_its_transaction_commits(engine: sa.Engine) -> None:
    queue = DbosQueue(engine)
    with engine.connect() as connection:
        transaction = connection.begin()
        queue.enqueue(connection, "run-1", 1, "owner")
        transaction.rollback()
    assert rows(engine) == []
    with engine.begin() as connection:
        queue.enqueue(connection, "run-1", 1, "owner")
    assert rows(engine) == [("run-1.1", "ENQUEUED", "runs", "owner")]


def test_the_same_dispatch_is_in_line_once(engine: sa.Engine) -> None:
    queue = DbosQueue(engine)
    for _ in range(2):
        with engine.begin() as connection:
            queue.enqueue(connection, "run-1", 1, "owner")
    with engine.begin() as connection:
        queue.enqueue(connection, "run-1", 2, "owner", timedelta(seconds=10))
    assert [(row.workflow_uuid, row.status) for row in rows(engine)] == [
        ("run-1.1", "ENQUEUED"),
        ("run-1.2", "DELAYED"),
    ]


def test_what_was_put_back_is_another_row_of_the_same_dispatch(engine: sa.Engine) -> None:
    queue = DbosQueue(engine)
    with engine.begin() as connection:
        queue.enqueue(connection, "run-1", 1, "owner")
        queue.put_back(connection, "run-1", 1, "owner", "again", timedelta(0))
    assert [row.workflow_uuid for row in rows(engine)] == ["run-1.1", "run-1.1.again"]


@pytest.mark.promise("key-stays-home")
def test_the_engine_keeps_references_as_json_and_nothing_that_runs_code(engine: sa.Engine) -> None:
    with engine.begin() as connection:
        DbosQueue(engine).enqueue(connection, "run-1", 1, "owner")
    with engine.connect() as connection:
        found = connection.exec_driver_sql("select serialization from workflow_status").scalar_one()
        stored = connection.exec_driver_sql("select inputs from workflow_input").scalar_one()
    assert found == "portable_json"
    assert json.loads(stored)["positionalArgs"] == ["run-1", 1, "owner"]


def test_only_what_ended_long_ago_is_forgotten(engine: sa.Engine) -> None:
    queue = DbosQueue(engine)
    with engine.begin() as connection:
        for number in range(1, 5):
            queue.enqueue(connection, "run", number, "owner")
        for number, status, ago in ((1, "SUCCESS", 2), (2, "ERROR", 2), (3, "SUCCESS", 0)):
            at = int((NOW - timedelta(days=ago)).timestamp() * 1000)
            connection.exec_driver_sql(
                "update workflow_status set status=?, completed_at=? where workflow_uuid=?",
                (status, at, f"run.{number}"),
            )
    assert queue.forget_finished(NOW - timedelta(days=1)) == 2
    assert [row.workflow_uuid for row in rows(engine)] == ["run.3", "run.4"]
    with engine.connect() as connection:
        assert connection.exec_driver_sql("select count(*) from workflow_input").scalar_one() == 2
