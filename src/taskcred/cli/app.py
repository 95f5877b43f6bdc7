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
    agent,
    audit,
    configuration,
    database,
    grants,
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
from taskcred.cli import exec as execution
from taskcred.cli.exits import CommandEnded, ExitCode, exit_code
from taskcred.errors import ConfigurationError, TaskcredError


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
    for module in (server, sign_in, configuration, storage, execution, agent):
        module.add_to(app)
    for name, group in (
        ("key", keys.app),
        ("run", runs.app),
        ("schedule", schedules.app),
        ("task", tasks.app),
        ("prompt", prompts.app),
        ("grant", grants.app),
        ("access", access.app),
        ("audit", audit.app),
        ("iam", iam.app),
        ("admin", admin.app),
        ("config", configuration.app),
        ("vault", storage.vault_app),
        ("db", database.app),
    ):
        app.add_typer(group, name=name, no_args_is_help=True)
    return app


def run(arguments: list[str]) -> int:
    """Run one command line; the exit code."""
    # What follows "--" is another program's.
    ours = arguments[: arguments.index("--")] if "--" in arguments else arguments
    debug, as_json = "--debug" in ours, "--json" in ours
    try:
        build()(arguments, prog_name="taskcred")
    except CommandEnded as ended:
        return int(ended.code or 0)
    except SystemExit as ended:  # how Typer ends, also after it has said what is wrong with a flag
        # Its own 1 is a "no", or Ctrl-C or the end of input, at a question; ours means something else.
        return ExitCode.INTERRUPTED if ended.code == 1 else int(ended.code or 0)
    except TaskcredError as error:
        if debug:
            traceback.print_exc()
        output.problem(error, as_json=as_json)
        return exit_code(error)
    except ModuleNotFoundError as error:
        if debug:
            traceback.print_exc()
        problem = _not_installed(error)
        output.problem(problem, as_json=as_json)
        return exit_code(problem)
    except Exception as error:  # noqa: BLE001 - the outermost edge: whatever comes here is a bug of ours
        if debug:
            traceback.print_exc()
        output.problem(_bug(error), as_json=as_json)
        return ExitCode.BUG
    return ExitCode.OK


def _not_installed(error: ModuleNotFoundError) -> TaskcredError:
    """What a person needs is always installed; the rest is the server's."""
    if error.name is None or error.name.partition(".")[0] == "taskcred":
        return _bug(error)
    return ConfigurationError(
        f"This command is the server's, which is not installed here: there is no package {error.name}.",
        hint="pip install 'taskcred[server]'",
        code="server_not_installed",
    )


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
