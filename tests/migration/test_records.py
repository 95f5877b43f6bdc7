"""Replayed migrations equal the tables."""

from __future__ import annotations

from pathlib import Path

from alembic.autogenerate import compare_metadata
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
