"""Replayed migrations equal the tables."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext

from taskcred.store import migrate
from taskcred.store.engine import sqlite_engine
from taskcred.store.service_tables import services


def test_replayed_migrations_equal_the_tables(tmp_path: Path) -> None:
    engine = sqlite_engine(tmp_path / "records.db")
    migrate.upgrade(engine)
    migrate.upgrade(engine)  # a second time changes nothing
    with engine.connect() as connection:
        differences = compare_metadata(MigrationContext.configure(connection), services.metadata)
    engine.dispose()
    assert differences == []


def test_runs_of_an_older_schema_lead_nowhere(tmp_path: Path) -> None:
    engine = sqlite_engine(tmp_path / "records.db")
    older = Config()
    older.set_main_option("script_location", "taskcred:store/migrations")
    with engine.begin() as connection:
        older.attributes["connection"] = connection
        command.upgrade(older, "0002")
        connection.exec_driver_sql(
            "INSERT INTO runs (id, account_id, iam_id, task, parameters, state, started_by, created_at) "
            "VALUES ('r', 'a', 'i', 'train', '{}', 'waiting_for_credential', 'i', 1)"
        )
    migrate.upgrade(engine)
    with engine.connect() as connection:
        kept = connection.exec_driver_sql("SELECT id, state, return_to FROM runs").all()
    engine.dispose()
    assert kept == [("r", "waiting_for_credential", "")]
