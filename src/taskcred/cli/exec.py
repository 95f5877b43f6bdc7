"""`exec`: a command on this machine as a run of its own, with a stand-in key in place of an API key."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from taskcred.cli import output
from taskcred.cli.exits import CommandEnded, ExitCode
from taskcred.cli.options import Parameters, Url
from taskcred.errors import ConflictError, InvalidRequestError, TaskcredError

if TYPE_CHECKING:
    from taskcred.cli.child import Child
    from taskcred.client import Attempt, Client, Run

_TASK: Final = "exec"
# How a service proves who it is: not for what it runs.
_OURS: Final = (
    "TASKCRED_SERVICE_FILE",
    "TASKCRED_CLIENT_ID",
    "TASKCRED_CLIENT_SECRET_FILE",
    "TASKCRED_WORKLOAD_TOKEN_FILE",
)


def exec_(
    command: Annotated[
        list[str], typer.Argument(metavar="COMMAND", help="The command and its arguments, best after --.")
    ],
    task: Annotated[
        str, typer.Option("--task", metavar="TASK", help="The task, of kind external, that this is a run of.")
    ] = _TASK,
    given: Parameters = None,
    grant: Annotated[
        str | None,
        typer.Option("--grant", metavar="ID", help="Run as a service, under this grant of the owner."),
    ] = None,
    service_file: Annotated[
        Path | None,
        typer.Option(
            "--service-file",
            metavar="FILE",
            help="The service's URL, client id and secret; default: TASKCRED_SERVICE_FILE.",
        ),
    ] = None,
    sdk_service: Annotated[
        list[str] | None,
        typer.Option(
            "--sdk-service",
            metavar="NAME",
            help="A service of IBM's SDKs that the command uses, such as iam_identity; repeat for more.",
        ),
    ] = None,
    bind_address: Annotated[
        list[str] | None,
        typer.Option(
            "--bind-address",
            metavar="NETWORK",
            help="Where the stand-in key may be used from, as the server sees it; repeat for more.",
        ),
    ] = None,
    reference: Annotated[
        str, typer.Option("--reference", metavar="TEXT", help="What people read at the run.")
    ] = "",
    url: Url = None,
) -> None:
    """Run a command here as a run of yours. Where it looks for an API key it finds a stand-in key, which dies with it."""
    if service_file is not None and grant is None:
        raise InvalidRequestError("A service runs nothing without a grant.", hint="Name it with --grant.")
    from taskcred.cli.child import Interrupted, interruptible

    try:
        _verify_program(command[0])
        with interruptible():
            client = _client(url, service_file, grant)
            attempt = _begun(client, task, _parameters(task, command, given), grant, reference, bind_address)
            status = _run(client, attempt, command, sdk_service or [])
    except TaskcredError as error:
        output.problem(error, as_json=False)
        raise CommandEnded(ExitCode.NOT_STARTED) from None
    except Interrupted as signalled:
        raise CommandEnded(128 + signalled.number) from None
    raise CommandEnded(status)


def _verify_program(program: str) -> None:
    """Before a run is started for it."""
    if shutil.which(program) is not None:
        return
    is_there = Path(program).exists() if os.sep in program else False
    output.note(f"taskcred: {program}: {'cannot be executed' if is_there else 'there is no such command'}.")
    raise CommandEnded(ExitCode.NOT_EXECUTABLE if is_there else ExitCode.NO_COMMAND)


def _client(url: str | None, service_file: Path | None, grant: str | None) -> Client:
    """As the service that the file or the environment names, where there is a grant; else as the person who
    signed in."""
    from taskcred.client import Client
    from taskcred.client.settings import read_service_file

    if service_file is not None:
        told = read_service_file(service_file)
        return Client(url or told["url"], client_id=told["client_id"], client_secret=told["client_secret"])
    if grant is not None:
        return Client(url)
    from taskcred.cli.client import signed_in_token
    from taskcred.cli.where import find

    server = find(url)
    return Client(server.url, access_token=signed_in_token(server), ca_file=server.ca_file)


def _parameters(task: str, command: list[str], given: list[str] | None) -> dict[str, Any]:
    from taskcred.cli import parameters

    values = parameters.read(given or [], {})
    return {"command": command, **values} if task == _TASK else values


def _begun(
    client: Client,
    task: str,
    values: Mapping[str, Any],
    grant: str | None,
    reference: str,
    addresses: list[str] | None,
) -> Attempt:
    """An attempt of a new run, once its owner has what it needs. Whatever keeps us from it cancels the run."""
    from taskcred.client.errors import WaitingForCredential

    run = client.start_run(task, values, grant_id=grant, reference=reference)
    try:
        while True:
            if run.is_waiting:
                _say_waiting(run, is_service=grant is not None)
                run = client.wait(run.id)
                _verify_not_ended(run)
                output.note("taskcred: answered, going on.")
            try:
                return client.begin_attempt(run.id, addresses or ())
            except WaitingForCredential:  # the credential went between start and begin
                run = client.run(run.id)
    except BaseException:
        _cancel(client, run.id)
        raise


def _verify_not_ended(run: Run) -> None:
    if run.is_final:
        raise ConflictError(
            f"The run {run.state}. {run.reason}".rstrip(), hint="Start it again if it is still wanted."
        )


def _say_waiting(run: Run, *, is_service: bool) -> None:
    whose = "its owner has" if is_service else "you have"
    output.note(f"taskcred: it waits: {whose} no usable task credential. Answer at")
    output.note(f"  {run.prompt_url}")


def _run(client: Client, attempt: Attempt, command: list[str], services: list[str]) -> int:
    """The exit status of the command. However it ends, the attempt ends with it."""
    from taskcred.cli.child import Child, Interrupted

    inherited = {name: value for name, value in os.environ.items() if name not in _OURS}
    with contextlib.ExitStack() as running:
        try:
            child = running.enter_context(Child(command, inherited | attempt.environment(services)))
        except OSError as error:
            output.note(f"taskcred: {command[0]}: {error.strerror or 'it cannot be started'}.")
            _end(client, attempt, "failed", "The command could not be started.", None)
            return ExitCode.NOT_EXECUTABLE
        except Interrupted:  # in the moment before it was started
            _end(client, attempt, "cancelled", "Ended before it began.", None)
            raise
        status = child.wait(_Watch(attempt).must_end)
        if attempt.cancel_requested:
            _end(client, attempt, "cancelled", "Ended as asked for.", status)
        elif status == 0:
            _end(client, attempt, "succeeded", "", status)
        else:
            _end(client, attempt, "failed", _words(child, status), status)
        return status


class _Watch:
    """Says once what goes on with the attempt, and whether the command must end."""

    def __init__(self, attempt: Attempt) -> None:
        self._attempt: Final = attempt
        self._said = ""

    def must_end(self) -> bool:
        if self._attempt.cancel_requested or self._attempt.ended:
            why = "it was cancelled" if self._attempt.cancel_requested else "its run was taken away"
            self._say(f"{why}; ending the command.")
            return True
        problem = self._attempt.problem
        if problem is not None:
            self._say(f"the server does not hear from us: {problem.message} {problem.hint}")
        elif self._said:
            self._say("the server hears from us again.")
            self._said = ""
        return False

    def _say(self, words: str) -> None:
        if words != self._said:
            output.note(f"taskcred: {words}")
            self._said = words


def _words(child: Child, status: int) -> str:
    if child.forwarded is not None:
        return f"Ended by {signal.Signals(child.forwarded).name}."
    if status > 128:
        with contextlib.suppress(ValueError):
            return f"The command was ended by {signal.Signals(status - 128).name}."
    return f"The command ended with status {status}."


def _end(client: Client, attempt: Attempt, outcome: Any, reason: str, status: int | None) -> None:
    """Say how it ended. The command's own status is what counts then: a failure to say is only told."""
    try:
        attempt.end(outcome, reason, status)
    except TaskcredError as error:
        output.problem(error, as_json=False)
        if attempt.ended:
            _cancel(client, attempt.run.id)  # nobody else will carry it out


def _cancel(client: Client, run_id: str) -> None:
    with contextlib.suppress(TaskcredError):
        client.cancel_run(run_id)


def add_to(app: typer.Typer) -> None:
    """Hang the command into the tree."""
    # What follows the command's name is the command's, whatever it looks like.
    app.command("exec", context_settings={"allow_interspersed_args": False})(exec_)
