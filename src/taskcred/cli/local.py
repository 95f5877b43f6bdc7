"""Commands that work on this machine's data directory: its settings, and words about odd environments."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from taskcred.cli import output
from taskcred.roles.lifeline import LIFELINE_FD

if TYPE_CHECKING:
    from taskcred.config import Settings
    from taskcred.config_sources import Read
    from taskcred.services.context import Context


def settings(config_file: Path | None, data_dir: Path | None, **flags: dict[str, Any]) -> Settings:
    """The settings, flags included; those that were not given (None) count as not said."""
    return read(config_file, data_dir, **flags).settings


def read(config_file: Path | None, data_dir: Path | None, **flags: dict[str, Any]) -> Read:
    """As `settings`, with where each comes from. Says on standard error which TASKCRED_ variables mean
    nothing."""
    from taskcred import config_sources, logs
    from taskcred.config import LogSettings

    # Else whatever the parts log would land on standard output, among results. Roles set up their own.
    logs.configure(LogSettings(level="warning"), "cli")
    if LIFELINE_FD not in os.environ:  # `serve` has said it for the roles it starts
        for sentence in config_sources.unknown_variables():
            output.note(f"taskcred: {sentence}")
    said = {
        section: {key: value for key, value in values.items() if value is not None}
        for section, values in flags.items()
    }
    return config_sources.read(
        config_file, data_dir, {name: values for name, values in said.items() if values}
    )


@contextmanager
def records(settings: Settings) -> Iterator[Context]:
    """The records, without vault and identity provider: what an operator does
    to them needs neither, so it works while both are away. Raises ConfigurationError where there are none."""
    from taskcred.errors import ConfigurationError
    from taskcred.wiring.common import has_records
    from taskcred.wiring.worker import build_worker_context

    if not has_records(settings):
        where = "the database of database.url" if settings.database.url else settings.data_dir
        raise ConfigurationError(
            f"There are no records in {where}.",
            hint="Name the server's directory with --data-dir, or its settings with --config.",
        )
    ctx = build_worker_context(settings)
    try:
        yield ctx
    finally:
        ctx.store.engine.dispose()


@contextmanager
def records_and_vault(settings: Settings) -> Iterator[Context]:
    """The records as above, and the vault: what puts a secret there needs it. Lays both where there are none,
    so it works before the server's first start."""
    from taskcred.wiring.common import has_records
    from taskcred.wiring.prepare import lay
    from taskcred.wiring.trusted import open_vault

    if not has_records(settings):
        lay(settings)
    with closing(open_vault(settings)) as vault, records(settings) as ctx:
        yield replace(ctx, vault=vault)
