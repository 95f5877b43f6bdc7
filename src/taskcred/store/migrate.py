"""Bringing the records to the newest schema. Replayed migrations equal `tables.metadata` (a test says so)."""

from __future__ import annotations

from importlib import resources

import sqlalchemy as sa


def upgrade(engine: sa.Engine, script_location: str = "taskcred:store/migrations") -> None:
    """Apply the migrations that are missing, in one transaction; nothing happens where none is."""
    if _is_current(engine, script_location):
        return
    from alembic import command  # here, for only who has something to migrate needs its 10 MiB and 0.2 s
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", script_location)
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "head")


def _is_current(engine: sa.Engine, script_location: str) -> bool:
    """Whether the newest migration was applied: their files are named after their revisions, 0001 and on."""
    package, _, folder = script_location.partition(":")
    versions = resources.files(package).joinpath(folder, "versions")
    newest = max(file.name[:4] for file in versions.iterdir() if file.name.endswith(".py"))
    with engine.begin() as connection:
        if not sa.inspect(connection).has_table("alembic_version"):
            return False
        return connection.exec_driver_sql("select version_num from alembic_version").scalar() == newest
