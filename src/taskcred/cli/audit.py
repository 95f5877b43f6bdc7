"""`audit`: what happened to what is yours."""

from __future__ import annotations

from typing import Final

from taskcred.cli import output
from taskcred.cli.acting import OwnersTyper
from taskcred.cli.options import Json, Limit, Url

app = OwnersTyper(help="The audit trail of what is yours.")

PATH: Final = "/v1/audit"


@app.command("list")
def list_(limit: Limit = 50, url: Url = None, as_json: Json = False) -> None:
    """List the events that concern you, newest first."""
    from taskcred.cli.client import connect

    with connect(url) as server:
        events = server.items(PATH, limit)
    if as_json:
        output.data(events)
        return
    output.table(
        ["AT", "WHO", "WHAT", "OUTCOME", "TARGET", "RUN", "FROM"],
        [
            [
                output.when(each["at"]),
                each["actor"],
                each["action"],
                each["outcome"].replace("_", " "),
                f"{each['target_type']} {each['target_id']}",
                each["run_id"],
                each["address"],
            ]
            for each in events
        ],
        empty="Nothing has happened yet.",
    )
