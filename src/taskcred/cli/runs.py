"""`run`: start work and follow it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Final

import typer

from taskcred.cli import output, parameters
from taskcred.cli.acting import OwnersTyper
from taskcred.cli.exits import ExitCode
from taskcred.cli.options import Json, Limit, Parameters, Url

app = OwnersTyper(help="Runs of tasks: start, follow, cancel.")

PATH: Final = "/v1/runs"
_Run = Annotated[str, typer.Argument(metavar="RUN-ID", help="The run.")]
_EXECUTORS: Final = {
    "worker": "a worker of taskcred",
    "service": "the service that started it",
    "owner": "you, on your own machine",
}
_WAITING: Final = "waiting_for_credential"


@app.command()
def start(
    task: Annotated[str, typer.Argument(metavar="TASK", help="The task, from `taskcred task list`.")],
    given: Parameters = None,
    watch_it: Annotated[bool, typer.Option("--watch", help="Follow the run to its end.")] = False,
    url: Url = None,
    as_json: Json = False,
) -> None:
    """Start a task now."""
    from taskcred.cli.client import connect
    from taskcred.cli.watching import follow

    with connect(url) as server:
        made = server.post(PATH, {"task": task, "parameters": parameters.of_task(server, task, given)})
        if watch_it:
            output.note(f"Run {made['id']}")
            _end(follow(server, made["id"], quiet=as_json), as_json=as_json)
            return
        prompt_url = made["prompt_url"]
    if as_json:
        output.data(made)
        return
    if made["state"] == _WAITING:
        output.note("It waits: you have no usable task credential in this account.")
        output.note(f"  What to do: `taskcred prompt answer --generate`, or answer at {prompt_url}")
    elif made["executor"] == "owner":
        output.note(
            "It is yours to carry out. `taskcred exec -- CMD` starts a run and carries it out at once."
        )
    else:
        output.note("Queued. `taskcred run watch` follows it.")
    output.line(made["id"])


@app.command("list")
def list_(
    state: Annotated[
        str | None,
        typer.Option(
            "--state",
            metavar="STATE",
            help="Only runs in this state: queued, waiting_for_credential, running, succeeded, failed, cancelled.",
        ),
    ] = None,
    limit: Limit = 50,
    url: Url = None,
    as_json: Json = False,
) -> None:
    """List your runs, newest first."""
    from taskcred.cli.client import connect

    with connect(url) as server:
        runs = server.items(PATH, limit, state=state)
    if as_json:
        output.data(runs)
        return
    output.table(
        ["RUN", "TASK", "FOR", "STATE", "PROGRESS", "CREATED", "ENDED", "REASON"],
        [
            [
                run["id"],
                run["task"],
                started_for(run),
                _state(run["state"]),
                progress_words(run),
                output.ago(run["created_at"]),
                output.ago(run["ended_at"]),
                run["reason"],
            ]
            for run in runs
        ],
        empty="No runs.",
    )


@app.command()
def show(run: _Run, url: Url = None, as_json: Json = False) -> None:
    """Show a run."""
    from taskcred.cli.client import connect

    with connect(url) as server:
        found = server.get(f"{PATH}/{run}")
    if as_json:
        output.data(found)
        return
    output.facts(
        [
            ("Run", found["id"]),
            ("Task", found["task"]),
            ("Carried out by", _EXECUTORS[found["executor"]]),
            ("Service", found["service_name"]),
            ("Reference", found["reference"]),
            ("Grant", found["grant_id"]),
            ("Acted for the owner", found["acting_iam_id"]),
            ("State", _state(found["state"])),
            ("Reason", found["reason"]),
            ("Progress", progress_words(found)),
            ("Attempts", found["attempts_made"]),
            ("Exit status", found["exit_code"]),
            ("Isolation", found["isolation"]),
            ("Created", output.when(found["created_at"])),
            ("Started", output.when(found["started_at"])),
            ("Ended", output.when(found["ended_at"])),
            ("Schedule", found["schedule_id"]),
            ("Prompt", found["prompt_url"]),
        ]
    )


@app.command()
def cancel(run: _Run, url: Url = None, as_json: Json = False) -> None:
    """Cancel a run; its processes are ended."""
    from taskcred.cli.client import connect

    with connect(url) as server:
        found = server.post(f"{PATH}/{run}/cancel")
    if as_json:
        output.data(found)
        return
    output.line(
        "Cancelled." if found["state"] == "cancelled" else "It will be cancelled: its job is being ended."
    )


@app.command("output")
def output_(
    run: _Run,
    attempt: Annotated[
        int | None, typer.Option("--attempt", help="Of which attempt; default: the latest.")
    ] = None,
    url: Url = None,
    as_json: Json = False,
) -> None:
    """Print what a run's job has written so far."""
    from taskcred.cli.client import connect
    from taskcred.cli.watching import all_output

    with connect(url) as server:
        text, truncated = all_output(server, run, attempt)
    if as_json:
        output.data({"text": text, "truncated": truncated})
        return
    typer.echo(output.printed(text), nl=False)
    if truncated:
        output.note("The output was longer than the task's limit; the rest was not kept.")


@app.command()
def watch(run: _Run, url: Url = None, as_json: Json = False) -> None:
    """Follow a run to its end: output, then its outcome. Exit status 9 where it failed or was cancelled."""
    from taskcred.cli.client import connect
    from taskcred.cli.watching import follow

    with connect(url) as server:
        ended = follow(server, run, quiet=as_json)
    _end(ended, as_json=as_json)


@app.command()
def access(run: _Run, url: Url = None, as_json: Json = False) -> None:
    """Show which attempt of a run got access tokens, and when."""
    from taskcred.cli.client import connect

    with connect(url) as server:
        attempts = server.items(f"{PATH}/{run}/access")
    if as_json:
        output.data(attempts)
        return
    rows = [
        [
            attempt["number"],
            attempt["outcome"] or "live",
            f"…{attempt['standin_last_four']}",
            token["key_id"],
            output.when(token["first_at"]),
            token["uses"],
            output.when(token["expires_at"]),
        ]
        for attempt in attempts
        for token in attempt["tokens"]
    ]
    output.table(
        ["ATTEMPT", "OUTCOME", "STAND-IN KEY", "KEY ID", "FIRST", "TIMES", "EXPIRES"],
        rows,
        empty="No access token was handed to this run.",
    )


def progress_words(run: Mapping[str, Any]) -> str:
    """A run's progress as a person reads it: "40/100 loading"."""
    counted = f"{run['progress_done']}/{run['progress_total']}" if run["progress_total"] else ""
    return f"{counted} {run['progress_text']}".strip()


def started_for(run: Mapping[str, Any]) -> str:
    """Which service started it, and what that calls it: "Notebooks: cell 1"; "yourself" for `taskcred exec`."""
    who = run["service_name"] or ("yourself" if run["executor"] == "owner" else "")
    return ": ".join(filter(None, (who, run["reference"])))


def _state(state: str) -> str:
    return state.replace("_", " ")


def _end(run: Mapping[str, Any], *, as_json: bool) -> None:
    if as_json:
        output.data(run)
    else:
        output.note(f"The run {run['state']}." + (f" {run['reason']}" if run["reason"] else ""))
    if run["state"] != "succeeded":
        raise typer.Exit(ExitCode.BAD_RESULT)
