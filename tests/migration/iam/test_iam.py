"""Replayed migrations of iam.db equal its tables."""

from __future__ import annotations

from pathlib import Path

from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from taskcred.iam.database import Database
from taskcred.iam.tables import metadata
from taskcred.store.engine import sqlite_engine


def test_replayed_migrations_equal_the_tables(tmp_path: Path) -> None:
    database = Database(tmp_path / "iam.db")
    database.migrate()
    database.migrate()  # a second time changes nothing
    database.close()
    engine = sqlite_engine(tmp_path / "iam.db")
    with engine.connect() as connection:
        differences = compare_metadata(MigrationContext.configure(connection), metadata)
    engine.dispose()
    assert differences == []
