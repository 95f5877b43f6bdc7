"""`make demo`: the whole main job on embedded defaults, on free loopback ports, in a temporary directory.

An owner without a credential schedules a task that really works: a job that calls IAM with IBM's own SDK
four times a second. The run parks, its owner answers the prompt, it starts. While it runs, its owner's key
is rotated twice and web and keeper are replaced. Not one call of the job may fail.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # the hands that the tests use to start and hit a real server

from rich.console import Console  # noqa: E402 - after the path is set
from rich.table import Table  # noqa: E402 - after the path is set

from tests.support.server import Person, Server, SignedIn, eventually  # noqa: E402 - after the path is set

JOB_SECONDS = 26
TOKEN_SECONDS = 15

console = Console(highlight=False)


def configuration(directory: Path) -> str:
    """A catalogue with one task, and access tokens so short that the job needs several."""
    job = directory / "job"
    job.mkdir()
    shutil.copy(ROOT / "examples" / "inventory.py", job)
    return f"""
[iam]
token_ttl = {TOKEN_SECONDS}

[jobs]
readable = [{json.dumps(str(job))}]

[tasks.inventory]
kind = "command"
title = "List my API keys for a while"
argv = [{json.dumps(sys.executable)}, {json.dumps(str(job / "inventory.py"))}, "{{seconds}}"]
sdk_services = ["iam_identity"]

[tasks.inventory.parameters]
type = "object"
properties = {{ seconds = {{ type = "integer", minimum = 1, maximum = 600 }} }}
required = ["seconds"]
additionalProperties = false
"""


def say(text: str) -> None:
    """A line of the story, with the time."""
    console.print(f"[dim]{datetime.now(UTC):%H:%M:%S}[/dim]  {text}")


def answer(me: SignedIn, method: str, path: str, expected: int, **options: Any) -> Any:
    """The JSON of a request that must be answered with `expected`."""
    response = me.request(method, path, **options)
    if response.status_code != expected:
        raise SystemExit(f"{method} {path}: {response.status_code} instead of {expected}\n{response.text}")
    return response.json()


def park_a_run(me: SignedIn) -> tuple[str, str]:
    """Schedule the task for every minute, wait for its first run, pause the schedule: (run id, prompt id)."""
    schedule = answer(
        me,
        "POST",
        "/v1/schedules",
        201,
        json={
            "name": "Inventory",
            "task": "inventory",
            "parameters": {"seconds": JOB_SECONDS},
            "cron": "* * * * *",
            "timezone": "UTC",
        },
    )
    due = datetime.fromisoformat(schedule["next_at"])
    say(f"{me.person.email} schedules a task, without having a credential; it is due at {due:%H:%M:%S}")

    def parked() -> Any:
        runs = answer(me, "GET", "/v1/runs", 200)["items"]
        return next((run for run in runs if run["state"] == "waiting_for_credential"), None)

    run = eventually(parked, "the scheduled run parks", within=75)
    answer(me, "POST", f"/v1/schedules/{schedule['id']}/pause", 200)
    say(
        f"the run is there and [bold]waits for a credential[/bold]; its owner was asked ({run['prompt_id'][:8]}…)"
    )
    return run["id"], run["prompt_id"]


def replace_web_and_keeper(server: Server) -> None:
    """SIGHUP, and wait until both are other processes."""
    before = {server.role("web"), server.role("keeper"), None}
    server.hang_up()
    eventually(
        lambda: before.isdisjoint({server.role("web"), server.role("keeper")}), "web and keeper are replaced"
    )


def main() -> None:
    """Play the story and print its summary; exit 1 where a call of the job failed or the key was found."""
    directory = Path(tempfile.mkdtemp(prefix="taskcred-demo-"))
    server = Server(directory, config=configuration(directory))
    try:
        play(server)
    except BaseException:
        console.print(f"[red]The demo did not finish. The server's log: {server.log}[/red]")
        server.stop()
        raise
    server.stop()
    shutil.rmtree(directory)
    console.print("\nNow start the pages yourself: [bold]make serve[/bold]")


def play(server: Server) -> None:
    """The story."""
    owner: Person = server.create_person("ada@example.com")
    server.start()
    say(f"taskcred serves at {server.url}: web, keeper and worker; SQLite, embedded vault, local IAM")
    me = server.sign_in(owner)
    run_id, prompt_id = park_a_run(me)

    answered = time.monotonic()
    answer(me, "POST", f"/v1/prompts/{prompt_id}/answer", 200, json={"generate": True})

    def run_is(*states: str) -> Any:
        run = answer(me, "GET", f"/v1/runs/{run_id}", 200)
        return run if run["state"] in states else None

    eventually(lambda: run_is("running", "succeeded", "failed"), "the run starts", within=20)
    waited = time.monotonic() - answered
    say(f"she answers with a generated key; the job starts [bold]{waited:.2f} s[/bold] later")

    credential = answer(me, "GET", "/v1/task_credentials", 200)["credentials"][0]["id"]
    for number in (1, 2):
        time.sleep(5)
        answer(me, "POST", f"/v1/task_credentials/{credential}/rotate", 200, json={"generate": True})
        say(f"the key is rotated ({number} of 2) under the running job")
        if number == 1:
            replace_web_and_keeper(server)
            say("web and keeper are replaced (SIGHUP) under the running job")

    run = eventually(lambda: run_is("succeeded", "failed", "cancelled"), "the job ends", within=90)
    output = answer(me, "GET", f"/v1/runs/{run_id}/output", 200)["text"]
    report = json.loads(output.strip().splitlines()[-1])
    attempts = answer(me, "GET", f"/v1/runs/{run_id}/access", 200)["items"]
    tokens = [token for attempt in attempts for token in attempt["tokens"]]
    keys = answer(me, "GET", f"/v1/task_credentials/{credential}/keys", 200)["items"]

    table = Table(title="\nWhat the job saw", show_header=False, title_justify="left")
    table.add_row("run", f"{run['state']}, exit status {run['exit_code']}, {len(attempts)} attempt")
    table.add_row("calls made with IBM's SDK", str(report["calls"]))
    table.add_row("calls failed", f"[bold]{report['failed']}[/bold]")
    table.add_row("access tokens used", f"{len(tokens)} (each lives {TOKEN_SECONDS} s)")
    table.add_row(
        "keys it ran on, one after the other", f"{len({token['key_id'] for token in tokens})} of {len(keys)}"
    )
    table.add_row("from the answer to the start", f"{waited:.2f} s")
    table.add_row("how the job was isolated", run["isolation"])
    table.add_row(
        "the user's key in the job's reach", "found" if report["user_key_found"] else "[bold]not found[/bold]"
    )
    console.print(table)
    if run["state"] != "succeeded" or report["failed"] or report["user_key_found"]:
        console.print(output)
        raise SystemExit(1)


if __name__ == "__main__":
    main()
