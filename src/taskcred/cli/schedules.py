"""`schedule`: runs at times."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any, Final
from zoneinfo import ZoneInfo

import typer

from taskcred.cli import output, parameters
from taskcred.cli.acting import OwnersTyper
from taskcred.cli.options import Json, Limit, Parameters, Url, Yes

app = OwnersTyper(help="Schedules: a task that runs at times.")

PATH: Final = "/v1/schedules"
_Schedule = Annotated[str, typer.Argument(metavar="SCHEDULE-ID", help="The schedule.")]
_Cron = Annotated[
    str, typer.Option("--cron", metavar="EXPRESSION", help='Five fields, such as "30 2 * * *".')
]
_Zone = Annotated[
    str, typer.Option("--timezone", metavar="ZONE", help="An IANA time zone, such as Europe/Berlin.")
]
_Misfire = Annotated[
    str | None,
    typer.Option(
        "--misfire", metavar="run_once|skip", help="What to do about times missed while taskcred was down."
    ),
]


@app.command()
def create(
    task: Annotated[str, typer.Argument(metavar="TASK", help="The task, from `taskcred task list`.")],
    cron: _Cron,
    timezone: _Zone = "UTC",
    name: Annotated[
        str | None, typer.Option("--name", help="Your own name for it; default: the task's.")
    ] = None,
    given: Parameters = None,
    misfire: _Misfire = None,
    url: Url = None,
    as_json: Json = False,
) -> None:
    """Create a schedule."""
    from taskcred.cli.client import connect

    with connect(url) as server:
        body = {
            "name": name or task,
            "task": task,
            "parameters": parameters.of_task(server, task, given),
            "cron": cron,
            "timezone": timezone,
        }
        made = server.post(PATH, body | ({"misfire": misfire} if misfire else {}))
    _say(made, as_json=as_json)


@app.command("list")
def list_(limit: Limit = 50, url: Url = None, as_json: Json = False) -> None:
    """List your schedules."""
    from taskcred.cli.client import connect

    with connect(url) as server:
        schedules = server.items(PATH, limit)
    if as_json:
        output.data(schedules)
        return
    output.table(
        ["SCHEDULE", "NAME", "TASK", "CRON", "TIME ZONE", "NEXT", "LAST"],
        [
            [
                each["id"],
                each["name"],
                each["task"],
                each["cron"],
                each["timezone"],
                "paused" if each["paused"] else output.ago(each["next_at"], never="Never"),
                output.ago(each["last_at"], never="Never"),
            ]
            for each in schedules
        ],
        empty="No schedules.",
    )


@app.command()
def show(schedule: _Schedule, url: Url = None, as_json: Json = False) -> None:
    """Show a schedule and its next five times."""
    from taskcred.cli.client import connect

    with connect(url) as server:
        found = server.get(f"{PATH}/{schedule}")
    _say(found, as_json=as_json)


@app.command()
def edit(
    schedule: _Schedule,
    name: Annotated[str | None, typer.Option("--name", help="A new name.")] = None,
    cron: Annotated[str | None, typer.Option("--cron", metavar="EXPRESSION", help="New times.")] = None,
    timezone: Annotated[
        str | None, typer.Option("--timezone", metavar="ZONE", help="Another time zone.")
    ] = None,
    given: Parameters = None,
    misfire: _Misfire = None,
    url: Url = None,
    as_json: Json = False,
) -> None:
    """Change a schedule. Parameters that are given replace those of the same name."""
    from taskcred.cli.client import connect

    said = {"name": name, "cron": cron, "timezone": timezone, "misfire": misfire}
    changes: dict[str, Any] = {key: value for key, value in said.items() if value is not None}
    with connect(url) as server:
        found, etag = server.get_changed(f"{PATH}/{schedule}", "")
        if given:
            changes["parameters"] = found["parameters"] | parameters.of_task(server, found["task"], given)
        changed = server.patch(f"{PATH}/{schedule}", changes, etag)
    _say(changed, as_json=as_json)


@app.command()
def pause(schedule: _Schedule, url: Url = None, as_json: Json = False) -> None:
    """Pause a schedule: no runs until it is resumed."""
    _act(schedule, "pause", url, as_json=as_json)


@app.command()
def resume(schedule: _Schedule, url: Url = None, as_json: Json = False) -> None:
    """Resume a paused schedule from its next time on."""
    _act(schedule, "resume", url, as_json=as_json)


@app.command()
def delete(schedule: _Schedule, yes: Yes = False, url: Url = None, as_json: Json = False) -> None:
    """Delete a schedule. Its past runs stay."""
    from taskcred.cli.client import connect

    with connect(url) as server:
        found = server.get(f"{PATH}/{schedule}")
        if not yes:
            typer.confirm(f"Delete the schedule {found['name']!r} ({found['cron']})?", abort=True, err=True)
        server.delete(f"{PATH}/{schedule}")
    if as_json:
        output.data({"id": schedule, "deleted": True})
        return
    output.line(f"Deleted the schedule {found['name']!r}.")


@app.command()
def preview(cron: _Cron, timezone: _Zone = "UTC", as_json: Json = False) -> None:
    """Show the next five times of an expression. Needs no server."""
    from taskcred.services import cron as times

    now = datetime.now(UTC)
    times.verify_cron(cron, timezone, now)
    found = [at.isoformat() for at in times.next_times(cron, timezone, now, 5)]
    if as_json:
        output.data({"next_times": found})
        return
    for at in found:
        output.line(_time(at, timezone))


def _time(text: str | None, timezone: str) -> str:
    """An instant of a JSON answer as the schedule's zone shows it, and in UTC."""
    from taskcred.services import cron as times

    moment = output.instant(text)
    if moment is None or timezone == "UTC" or not times.is_zone(timezone):
        return output.when(text, never="Never")  # the server may know zones that are not known here
    return f"{moment.astimezone(ZoneInfo(timezone)):%Y-%m-%d %H:%M %Z} = {output.when(text)}"


def _act(schedule: str, verb: str, url: str | None, *, as_json: bool) -> None:
    from taskcred.cli.client import connect

    with connect(url) as server:
        found = server.post(f"{PATH}/{schedule}/{verb}")
    _say(found, as_json=as_json)


def _say(schedule: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        output.data(schedule)
        return
    output.facts(
        [
            ("Schedule", schedule["id"]),
            ("Name", schedule["name"]),
            ("Task", schedule["task"]),
            ("Parameters", schedule["parameters"]),
            ("Times", f"{schedule['cron']} ({schedule['timezone']})"),
            ("If missed", schedule["misfire"].replace("_", " ")),
            ("State", "paused" if schedule["paused"] else "on"),
            ("Last", _time(schedule["last_at"], schedule["timezone"])),
        ]
    )
    for time in schedule["next_times"]:
        output.line(f"  next  {_time(time, schedule['timezone'])}")
