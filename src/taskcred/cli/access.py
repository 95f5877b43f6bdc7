"""`access`: what your running jobs hold right now."""

from __future__ import annotations

from typing import Annotated, Final

import typer

from taskcred.cli import output
from taskcred.cli.acting import OwnersTyper
from taskcred.cli.options import Json, Url

app = OwnersTyper(help="Your live stand-in keys and access tokens.")

PATH: Final = "/v1/access"


@app.command("list")
def list_(url: Url = None, as_json: Json = False) -> None:
    """List the running attempts and what they were handed."""
    from taskcred.cli.client import connect

    with connect(url) as server:
        live = server.items(PATH)
    if as_json:
        output.data(live)
        return
    output.table(
        ["ATTEMPT", "RUN", "TASK", "STAND-IN KEY", "SINCE", "TOKEN UNTIL"],
        [
            [
                each["attempt_id"],
                each["run_id"],
                each["task"],
                f"…{each['standin_last_four']}",
                output.ago(each["started_at"]),
                output.when(max((token["expires_at"] for token in each["tokens"]), default=None)),
            ]
            for each in live
        ],
        empty="No job of yours holds anything now.",
    )


@app.command()
def end(
    attempt: Annotated[str, typer.Argument(metavar="ATTEMPT-ID", help="From `taskcred access list`.")],
    url: Url = None,
    as_json: Json = False,
) -> None:
    """End a running attempt's access: its stand-in key is refused from now on."""
    from taskcred.cli.client import connect

    with connect(url) as server:
        server.delete(f"{PATH}/{attempt}")
    if as_json:
        output.data({"attempt_id": attempt, "ended": True})
        return
    output.line("Its stand-in key is refused from now on.")
