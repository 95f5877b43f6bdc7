"""`vault`, `backup` and `restore`: what an operator does to the data directory."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from taskcred.cli import local, output
from taskcred.cli.options import ConfigFile, DataDir, Json, Yes

if TYPE_CHECKING:
    from taskcred.services.context import Context

vault_app = typer.Typer(help="The vault.")


@vault_app.callback()
def _vault() -> None:
    """The vault: where key material lives."""


@vault_app.command()
def rewrap(
    data_dir: DataDir = None,
    config: ConfigFile = None,
    new_key_file: Annotated[
        Path | None,
        typer.Option(
            "--new-key-file",
            metavar="FILE",
            help="The new master key; default: a fresh one, where the present one is taskcred's own file.",
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Move all records to a new master key while serving. Run it again to go on after a stop."""
    from taskcred.data_dir import DataDir as Files
    from taskcred.errors import ConfigurationError
    from taskcred.vaults import rewrap as vault
    from taskcred.vaults.master_key import MasterKeyFile

    settings = local.settings(config, data_dir)
    if settings.vault.kind != "embedded":
        raise ConfigurationError(
            "Only the embedded vault has a master key of ours.",
            hint="OpenBao and HashiCorp Vault look after theirs: `bao operator rotate`.",
        )
    present = MasterKeyFile.locate(settings.data_dir, settings.vault.master_key_file, os.environ)
    with local.records(settings) as ctx:
        # Before and after: what cannot be recorded does not begin.
        _record_rewrap(ctx, stage="begun")
        with _progress("Records moved", quiet=as_json) as advance:
            done = vault.rewrap(Files(settings.data_dir).vault, present, new_key_file, advance)
        stage = "done" if done.is_finished else "moved"
        _record_rewrap(ctx, stage=stage, records=done.records, master_key=done.master_key_id)
    if as_json:
        output.data(
            {
                "records": done.records,
                "resumed": done.is_resumed,
                "finished": done.is_finished,
                "master_key_id": done.master_key_id,
            }
        )
        return
    output.line(f"{done.records} records are under the master key {done.master_key_id} now.")
    if not done.is_finished:
        output.line(f"Next: put the new key into {present.path}, then run `taskcred vault rewrap` once more.")


def _record_rewrap(ctx: Context, **details: object) -> None:
    from taskcred.store import audit

    with ctx.store.write() as connection:
        event = audit.Event("vault:rewrap", "success", audit.OPERATOR, "", "", "vault", "", details=details)
        audit.append(connection, event, ctx.clock.now())


def backup(
    target: Annotated[
        Path,
        typer.Argument(
            metavar="TARGET", help="A new directory, or a tar archive where the name ends in .tar."
        ),
    ],
    data_dir: DataDir = None,
    config: ConfigFile = None,
    as_json: Json = False,
) -> None:
    """Write a backup while serving. It holds no master key: keep that elsewhere."""
    from taskcred import backup as storage

    made = storage.backup(local.settings(config, data_dir), target)
    if as_json:
        output.data({"target": made.target, "bytes": made.bytes, "master_key_ids": made.master_key_ids})
        return
    output.line(f"Wrote {target}: {made}.")


def restore(
    source: Annotated[Path, typer.Argument(metavar="SOURCE", help="A backup.")],
    data_dir: DataDir = None,
    config: ConfigFile = None,
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """Restore a backup into an empty data directory. What was ended since stays ended."""
    from taskcred import backup as storage

    settings = local.settings(config, data_dir)
    if not yes:
        typer.confirm(f"Restore {source} into {settings.data_dir}?", abort=True, err=True)
    restored = storage.restore(settings, source)
    if as_json:
        output.data(
            {
                "data_dir": settings.data_dir,
                "created_at": restored.created_at,
                "master_key_ids": restored.master_key_ids,
                "replayed": asdict(restored.replayed),
            }
        )
        return
    output.line(f"Restored into {settings.data_dir}: {restored}.")


def add_to(app: typer.Typer) -> None:
    """Hang the commands into the tree."""
    app.command()(backup)
    app.command()(restore)


@contextmanager
def _progress(words: str, *, quiet: bool) -> Iterator[Callable[[int, int], None]]:
    """A bar on standard error, where that is a terminal; `advance(done, total)` moves it."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=quiet or not console.is_terminal) as progress:
        bar = progress.add_task(words, total=None)

        def advance(done: int, total: int) -> None:
            progress.update(bar, completed=done, total=total)

        yield advance
