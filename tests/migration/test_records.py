"""Replayed migrations equal the tables."""

from __future__ import annotations

from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from taskcred.store import migrate
from taskcred.store.engine import sqlite_engine
from taskcred.store.postgresql import postgresql_engine
from taskcred.store.service_tables import services


@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
def test_replayed_migrations_equal_the_tables(
    database: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    if database == "sqlite":
        engine = sqlite_engine(tmp_path / "records.db")
    else:
        engine = postgresql_engine(request.getfixturevalue("postgresql").create(encoding="UTF8"))
    migrate.upgrade(engine)
    migrate.upgrade(engine)  # a second time changes nothing
    with engine.connect() as connection:
        differences = compare_metadata(MigrationContext.configure(connection), services.metadata)
        conditions = {
            index["name"]: index["dialect_options"].get(f"{database}_where")
            for table in sa.inspect(connection).get_table_names()
            for index in sa.inspect(connection).get_indexes(table)
            if "dialect_options" in index
        }
    engine.dispose()
    assert differences == []
    # What compare_metadata does not look at: an index without its condition would refuse what it must not.
    assert {name for name, condition in conditions.items() if condition is not None} == _partial()


def _partial() -> set[str | None]:
    return {
        index.name
        for table in services.metadata.tables.values()
        for index in table.indexes
        if index.dialect_options["sqlite"]["where"] is not None
    }
