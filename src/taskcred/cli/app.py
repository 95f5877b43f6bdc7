"""The commands' tree, and what becomes of an error that reaches its top."""

from __future__ import annotations

import traceback
import uuid
from datetime import UTC, datetime
from typing import Annotated

import typer

from taskcred import __version__
from taskcred.cli import (
    access,
    admin,
    audit,
    configuration,
    iam,
    keys,
    output,
    prompts,
    runs,
    schedules,
    server,
    sign_in,
    state,
    storage,
    tasks,
)
from taskcred.cli.exits import ExitCode, exit_code
from taskcred.errors import TaskcredError


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"taskcred {__version__}")
        raise typer.Exit


def _root(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Task credentials: work you started goes on authenticating after you have gone home."""


def build() -> typer.Typer:
    """The whole tree of commands."""
    app = typer.Typer(
        name="taskcred",
        no_args_is_help=True,
        rich_markup_mode=None,  # drawing the help in panels would take longer than everything else
        pretty_exceptions_enable=False,  # `run` says what an error means; a traceback is --debug's
        context_settings={"help_option_names": ["-h", "--help"]},
        epilog="docs/cli.md describes every command and the exit codes.",
    )
    app.callback()(_root)
    for module in (server, sign_in, configuration, storage):
        module.add_to(app)
    for name, group in (
        ("key", keys.app),
        ("run", runs.app),
        ("schedule", schedules.app),
        ("task", tasks.app),
        ("prompt", prompts.app),
        ("access", access.app),
        ("audit", audit.app),
        ("iam", iam.app),
        ("admin", admin.app),
        ("config", configuration.app),
        ("vault", storage.vault_app),
    ):
        app.add_typer(group, name=name, no_args_is_help=True)
    return app


def run(arguments: list[str]) -> int:
    """Run one command line; the exit code."""
    debug, as_json = "--debug" in arguments, "--json" in arguments
    try:
        build()(arguments, prog_name="taskcred")
    except SystemExit as ended:  # how Typer ends, also after it has said what is wrong with a flag
        # Its own 1 is a "no", or Ctrl-C or the end of input, at a question; ours means something else.
        return ExitCode.INTERRUPTED if ended.code == 1 else int(ended.code or 0)
    except TaskcredError as error:
        if debug:
            traceback.print_exc()
        output.problem(error, as_json=as_json)
        return exit_code(error)
    except Exception as error:  # noqa: BLE001 - the outermost edge: whatever comes here is a bug of ours
        if debug:
            traceback.print_exc()
        output.problem(_bug(error), as_json=as_json)
        return ExitCode.BUG
    return ExitCode.OK


def _bug(error: Exception) -> TaskcredError:
    """Keep the traceback in a file of the user's own and say where; its text is not shown, since it may
    quote what somebody typed."""
    number = uuid.uuid4().hex[:8]
    log = state.error_log()
    text = "".join(traceback.format_exception(error))
    try:
        state.append_private(log, f"{datetime.now(UTC).isoformat()} {number}\n{text}\n")
    except OSError:
        hint = "Run the command again with --debug to see where it happened."
    else:
        hint = f"The traceback is in {log} under that id; --debug shows it at once."
    return TaskcredError(
        f"taskcred has a bug: {type(error).__name__} in error {number}.", hint=hint, code="internal"
    )
