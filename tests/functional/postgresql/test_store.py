"""The records on PostgreSQL: its errors in our words, its writers one after another."""

from __future__ import annotations

import signal
import threading
from datetime import timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa

from taskcred import backup
from taskcred.config import DatabaseSettings, Settings
from taskcred.errors import ConfigurationError, InvalidRequestError, StoreBusyError
from taskcred.services.context import Context
from taskcred.store import changes, migrate
from taskcred.store import tables as t
from taskcred.store.engine import Store
from taskcred.store.epoch import Epoch
from taskcred.store.postgresql import postgresql_engine
from taskcred.testing import START
from tests.support.postgresql import PostgreSQL


@pytest.mark.parametrize(
    ("change", "statement"),
    [
        ("ALTER TABLE runs RENAME COLUMN reference TO other", sa.select(t.runs)),
        ("ALTER TABLE workers RENAME COLUMN name TO other", t.workers.insert().values(id="a", name="b")),
        ("DROP TABLE leases", sa.select(t.leases)),
    ],
)
def test_an_outdated_shape_is_called_so(ctx: Context, change: str, statement: sa.Executable) -> None:
    with ctx.store.write() as connection:
        connection.exec_driver_sql(change)
    with pytest.raises(StoreBusyError) as caught, ctx.store.write() as connection:
        connection.execute(statement)
    assert caught.value.error_code == "store_outdated"


def test_a_value_that_does_not_fit_is_the_callers_mistake(ctx: Context) -> None:
    for name in ("x" * 65, "a\x00b"):
        with pytest.raises(InvalidRequestError), ctx.store.write() as connection:
            connection.execute(t.leases.insert().values(name=name, holder="h", until=START))


def test_who_may_not_is_told_whom_to_ask(ctx: Context) -> None:
    # A role that may do nothing, for the rest of the transaction.
    with pytest.raises(StoreBusyError, match="role"), ctx.store.write() as connection:  # noqa: PT012
        connection.exec_driver_sql("SET LOCAL ROLE pg_monitor")
        connection.execute(sa.select(t.leases))


def test_a_reader_sees_one_state_and_waits_for_nobody(ctx: Context) -> None:
    with ctx.store.read() as reader:
        assert changes.newest(reader) == 0
        with ctx.store.write() as writer:
            changes.append(writer, "worker", "one", START)
            assert changes.newest(reader) == 0
        assert changes.newest(reader) == 0
    with ctx.store.read() as reader:
        assert changes.newest(reader) == 1


def test_writers_wait_for_one_another_and_shared_ones_do_not(ctx: Context) -> None:
    order: list[str] = []

    def write(name: str, shared: bool) -> None:
        with ctx.store.write(shared=shared):
            order.append(name)

    with ctx.store.write(shared=True):
        beside = threading.Thread(target=write, args=("beside", True))
        beside.start()
        beside.join(30)
        alone = threading.Thread(target=write, args=("alone", False))
        alone.start()
        alone.join(0.2)
        order.append("first")
    alone.join(30)
    assert order == ["beside", "first", "alone"]


def test_a_shared_writer_appends_nothing_that_is_read_in_order(ctx: Context) -> None:
    with pytest.raises(RuntimeError), ctx.store.write(shared=True) as connection:
        changes.append(connection, "worker", "one", START)


def test_a_writer_that_stands_still_is_ended_before_the_others_patience(ctx: Context) -> None:
    names = ("idle_in_transaction_session_timeout", "lock_timeout", "statement_timeout")
    with ctx.store.read() as connection:
        setting = sa.func.current_setting(sa.bindparam("name")).op("::")(sa.text("interval"))
        idle, lock, statement = (
            connection.execute(sa.select(setting), {"name": name}).scalar_one() for name in names
        )
    assert timedelta(0) < idle < lock < statement


def test_who_waits_too_long_for_the_others_is_told_so(ctx: Context) -> None:
    waiting = ctx.store.engine.execution_options()
    sa.event.listen(
        waiting,
        "begin",
        lambda connection: connection.exec_driver_sql("SET LOCAL lock_timeout = '50ms'"),
        insert=True,
    )
    with ctx.store.write():
        failed: list[Exception] = []

        def write() -> None:
            try:
                with Store(waiting, ctx.store.epoch).write():
                    pass
            except StoreBusyError as error:
                failed.append(error)

        other = threading.Thread(target=write)
        other.start()
        other.join(30)
    assert len(failed) == 1


@pytest.mark.usefixtures("postgresql")  # for the skip where it is not installed
def test_a_restart_of_the_database_costs_requests_only_while_it_is_away(tmp_path: Path) -> None:
    cluster = PostgreSQL()
    try:
        engine = postgresql_engine(cluster.create())
        store = Store(engine, Epoch(tmp_path / "epoch"))
        with store.write() as connection:
            changes.append(connection, "worker", "one", START)
        cluster.stop(signal.SIGINT)
        with pytest.raises(StoreBusyError), store.write():
            pass
        cluster.start()
        with store.read() as connection:
            assert changes.newest(connection) == 1
        engine.dispose()
    finally:
        cluster.remove()


def test_a_database_that_cannot_hold_every_text_is_refused(postgresql: PostgreSQL) -> None:
    engine = postgresql_engine(postgresql.create(encoding="SQL_ASCII"))
    with pytest.raises(ConfigurationError, match="SQL_ASCII"):
        migrate.upgrade(engine)
    engine.dispose()


def test_the_password_comes_from_its_file(tmp_path: Path) -> None:
    password = tmp_path / "password"
    password.write_text("correct horse\n")
    engine = postgresql_engine("postgresql://ann@db.example.test/records", password)
    assert engine.url.password == "correct horse"
    assert "correct" not in repr(engine)
    with pytest.raises(ConfigurationError, match="password_file"):
        postgresql_engine("postgresql://ann@db.example.test/records", tmp_path / "none")


def test_backups_of_files_refuse_records_that_are_elsewhere(tmp_path: Path) -> None:
    settings = Settings(
        data_dir=tmp_path / "data", database=DatabaseSettings(url="postgresql://ann@db.example.test/records")
    )
    for refused in (backup.backup, backup.restore):
        with pytest.raises(ConfigurationError, match="PostgreSQL") as caught:
            refused(settings, tmp_path / "copy")
        assert caught.value.error_code == "records_elsewhere"
    assert list(tmp_path.iterdir()) == []
