"""`task`: what can be run."""

from __future__ import annotations

import typer

from taskcred.cli import output
from taskcred.cli.options import Json, Url

app = typer.Typer(help="The kinds of work an administrator has put into the catalogue.")


@app.command("list")
def list_(url: Url = None, as_json: Json = False) -> None:
    """List the tasks, with their parameters."""
    from taskcred.cli.client import connect

    with connect(url) as server:
        tasks = server.items("/v1/tasks")
    if as_json:
        output.data(tasks)
        return
    output.table(
        ["TASK", "TITLE", "KIND", "PARAMETERS"],
        [
            [task["name"], task["title"], task["kind"], ", ".join(task["parameters"].get("properties", {}))]
            for task in tasks
        ],
        empty="The catalogue is empty. An administrator adds tasks to taskcred.toml.",
    )
