"""A whole `taskcred serve` with its records and its queue in PostgreSQL."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.support.postgresql import PostgreSQL
from tests.support.server import Server, SignedIn, eventually

TASKS = """
[tasks.work]
kind = "command"
argv = ["sh", "-c", "echo begun; sleep $1; echo done", "work", "{seconds}"]
parameters = { type = "object", properties = { seconds = { type = "string", maxLength = 4 } }, required = ["seconds"], additionalProperties = false }
retry = { max_attempts = 3, delay = "0s" }
"""


@pytest.fixture
def server(postgresql: PostgreSQL, start_server: Callable[..., Server]) -> Server:
    # Empty: the first start lays the tables.
    url = postgresql.create(encoding="UTF8")
    return start_server(config=f'[database]\nurl = "{url}"\nconnections = 8\n{TASKS}')


def _at_home(server: Server) -> tuple[str, ...]:
    return ("--data-dir", str(server.data_dir), "--config", str(server.directory / "taskcred.toml"))


def _start(me: SignedIn, seconds: str) -> str:
    run = me.request("POST", "/v1/runs", json={"task": "work", "parameters": {"seconds": seconds}})
    assert run.status_code == 201, run.text
    return str(run.json()["id"])


def _run(me: SignedIn, run_id: str) -> dict[str, Any]:
    return dict(me.request("GET", f"/v1/runs/{run_id}").json())


def _has_ended(me: SignedIn, run_id: str) -> dict[str, Any] | None:
    run = _run(me, run_id)
    return run if run["state"] in {"succeeded", "failed"} else None


@pytest.mark.slow
@pytest.mark.promise("last-good-key")
def test_the_main_job(server: Server) -> None:
    me = server.sign_in(server.create_person("ada@example.test"))
    parked = _start(me, "0")
    assert _run(me, parked)["state"] == "waiting_for_credential"
    made = me.request("POST", "/v1/task_credentials", json={"name": "Key", "generate": True})
    assert made.status_code == 201, made.text
    path = f"/v1/task_credentials/{made.json()['id']}"
    assert eventually(lambda: _has_ended(me, parked), "the run ends")["state"] == "succeeded"
    assert me.request("GET", f"/v1/runs/{parked}/output").json()["text"] == "begun\ndone\n"

    rotated = me.request("POST", f"{path}/rotate", json={"generate": True, "drain": "now"})
    assert rotated.status_code in {200, 202}, rotated.text
    # kill -9 with a job under way: the job ends with its worker, and its run is tried again.
    run_id = _start(me, "3")
    eventually(lambda: _run(me, run_id)["state"] == "running", "the job runs")
    server.kill("worker")
    server.kill("keeper")
    ended = eventually(lambda: _has_ended(me, run_id), "the run is tried again", 90)
    assert (ended["state"], ended["attempts_made"]) == ("succeeded", 2)

    assert me.request("DELETE", path).status_code == 204
    assert me.request("GET", "/v1/task_credentials").json()["credentials"] == []
    assert not (server.data_dir / "records.db").exists()

    checks = json.loads(server.command("doctor", "--json", *_at_home(server), check=False))
    assert {each["check"]: each["state"] for each in checks}["records"] == "ok"
    assert json.loads(server.command("db", "migrate", "--json", *_at_home(server)))["schema"] >= "0003"
