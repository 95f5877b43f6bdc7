"""Bringing the records to the newest schema. Replayed migrations equal `tables.metadata` (a test says so)."""

from __future__ import annotations

from importlib import resources
from typing import Final

import sqlalchemy as sa

from taskcred.store import postgresql
from taskcred.store.engine import translated

RECORDS: Final = "taskcred:store/migrations"


def upgrade(engine: sa.Engine, script_location: str = RECORDS) -> None:
    """Apply the migrations that are missing, in one transaction; nothing happens where none is. Raises
    StoreBusyError where the database is away, ConfigurationError where it cannot hold the records."""
    with translated():
        if _is_current(engine, script_location):
            return
        if engine.dialect.name == "postgresql":
            postgresql.verify(engine)
        _apply(engine, script_location)


def _apply(engine: sa.Engine, script_location: str) -> None:
    from alembic import command  # here, for only who has something to migrate needs its 10 MiB and 0.2 s
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", script_location)
    # Alone, and by whoever comes first: of several processes at once the others find nothing left to do.
    with engine.connect() as connection, connection.execution_options(writes="alone").begin():
        if engine.dialect.name == "postgresql":
            postgresql.take_time(connection)
        config.attributes["connection"] = connection
        command.upgrade(config, "head")


def is_laid(engine: sa.Engine) -> bool:
    """Whether any migration was ever applied. Raises StoreBusyError where the database is away."""
    with translated(), engine.connect() as connection:
        return sa.inspect(connection).has_table("alembic_version")


def newest(script_location: str = RECORDS) -> str:
    """The revision of the newest migration: their files are named after their revisions, 0001 and on."""
    package, _, folder = script_location.partition(":")
    versions = resources.files(package).joinpath(folder, "versions")
    return max(file.name[:4] for file in versions.iterdir() if file.name.endswith(".py"))


def _is_current(engine: sa.Engine, script_location: str) -> bool:
    with engine.begin() as connection:
        if not sa.inspect(connection).has_table("alembic_version"):
            return False
        present = connection.exec_driver_sql("select version_num from alembic_version").scalar()
        return present == newest(script_location)
