"""Bringing the records to the newest schema. Replayed migrations equal `tables.metadata` (a test says so)."""

from __future__ import annotations

import sqlalchemy as sa


def upgrade(engine: sa.Engine, script_location: str = "taskcred:store/migrations") -> None:
    """Apply the migrations that are missing, in one transaction; nothing happens where none is."""
    from alembic import command  # here, for only who prepares a start needs its 10 MiB and 0.2 s
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", script_location)
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
