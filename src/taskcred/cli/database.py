"""`db`: the database of the records and of the engine's queue."""

from __future__ import annotations

import typer

from taskcred.cli import local, output
from taskcred.cli.options import ConfigFile, DataDir, Json

app = typer.Typer(help="The records' database.")


@app.callback()
def _db() -> None:
    """The records' database: SQLite, or PostgreSQL where database.url says so."""


@app.command()
def migrate(data_dir: DataDir = None, config: ConfigFile = None, as_json: Json = False) -> None:
    """Bring the tables to this release, as a start does: for an upgrade in steps. Safe to repeat."""
    from taskcred.jobs.queue import migrate_engine
    from taskcred.store import migrate as records
    from taskcred.wiring.common import has_records, open_records
    from taskcred.wiring.prepare import lay

    settings = local.settings(config, data_dir)
    if not has_records(settings):
        lay(settings)  # the keys that every process shares have to be in the vault before there are records
    engine = open_records(settings)
    try:
        records.upgrade(engine)
        migrate_engine(engine)
        schema = records.newest()
    finally:
        engine.dispose()
    if as_json:
        output.data({"schema": schema})
        return
    output.line(f"The records have schema {schema}, this release's.")
