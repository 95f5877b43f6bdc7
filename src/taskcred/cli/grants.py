"""`grant`: which services may start work as you, and until when."""

from __future__ import annotations

from typing import Annotated, Any, Final

import typer

from taskcred.cli import output
from taskcred.cli.acting import OwnersTyper
from taskcred.cli.options import Json, Limit, Url, Yes
from taskcred.domain.grants import DEFAULT_DAYS, LONGEST_DAYS

app = OwnersTyper(help="Grants: services that may start work as you until a date.")

PATH: Final = "/v1/grants"
_Grant = Annotated[str, typer.Argument(metavar="GRANT-ID", help="From `taskcred grant list`.")]
_ENDS: Final = {
    "owner": "withdrawn by you",
    "replaced": "replaced by a newer grant",
    "service_ended": "the service was removed",
    "operator": "ended by an operator",
}


@app.command("list")
def list_(limit: Limit = 50, url: Url = None, as_json: Json = False) -> None:
    """List the grants you gave, newest first."""
    from taskcred.cli.client import connect

    with connect(url) as server:
        grants = server.items(PATH, limit)
    if as_json:
        output.data(grants)
        return
    output.table(
        ["GRANT", "SERVICE", "TASKS", "STATE", "UNTIL", "LAST USED"],
        [
            [
                each["id"],
                each["service_name"],
                ", ".join(each["tasks"]),
                each["state"],
                output.ago(each["expires_at"]),
                output.ago(each["last_used_at"], never="Never"),
            ]
            for each in grants
        ],
        empty="You have given no grants.",
    )


@app.command()
def show(grant: _Grant, url: Url = None, as_json: Json = False) -> None:
    """Show a grant."""
    from taskcred.cli.client import connect

    with connect(url) as server:
        found = server.get(f"{PATH}/{grant}")
    _say(found, as_json=as_json)


@app.command()
def give(
    service: Annotated[str, typer.Option("--service", metavar="CLIENT-ID", help="The service's client id.")],
    tasks: Annotated[
        list[str], typer.Option("--task", metavar="TASK", help="A task it may start; repeat for more.")
    ],
    days: Annotated[
        int, typer.Option("--days", min=1, max=LONGEST_DAYS, help="How many days the grant lasts.")
    ] = DEFAULT_DAYS,
    yes: Yes = False,
    url: Url = None,
    as_json: Json = False,
) -> None:
    """Let a service start tasks as you. Replaces the grant you gave it before."""
    from taskcred.cli.client import connect

    if not yes:
        typer.confirm(
            f"Let the service {service} start {', '.join(tasks)} as you, at any time in the next {days} days?",
            abort=True,
            err=True,
        )
    with connect(url) as server:
        given = server.post(PATH, {"service_id": service, "tasks": tasks, "days": days})
    _say(given, as_json=as_json)


@app.command()
def end(grant: _Grant, yes: Yes = False, url: Url = None, as_json: Json = False) -> None:
    """End a grant at once; what runs under it is ended too."""
    from taskcred.cli.client import connect

    with connect(url) as server:
        found = server.get(f"{PATH}/{grant}")
        if not yes:
            typer.confirm(
                f"End the grant of {found['service_title']}, and what it runs as you now?",
                abort=True,
                err=True,
            )
        ended = server.post(f"{PATH}/{grant}/end")
    _say(ended, as_json=as_json)


def _say(grant: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        output.data(grant)
        return
    why = _ENDS.get(grant["end_reason"], "")
    output.facts(
        [
            ("Grant", grant["id"]),
            ("Service", f"{grant['service_title']} ({grant['service_id']})"),
            ("Tasks", ", ".join(grant["tasks"])),
            ("State", f"{grant['state']}, {why}" if why else grant["state"]),
            ("Given", output.when(grant["created_at"])),
            ("Until", output.when(grant["expires_at"])),
            ("Last used", output.when(grant["last_used_at"], never="Never")),
        ]
    )
