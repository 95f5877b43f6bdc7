"""A grant and its end on a real server: the job is ended, its key is dead, the service is told."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.receiver import Receiver, receive
from tests.support.server import Server, SignedIn, eventually

API_KEY = "urn:ibm:params:oauth:grant-type:apikey"


def _config(receiver: Receiver) -> str:
    return f"""
[services]
webhook_allow = ["127.0.0.1:{receiver.port}"]

[jobs]
isolation = "none"
kill_grace = 1

[tasks.hold]
kind = "command"
argv = ["/bin/sh", "-c", "echo $IBMCLOUD_API_KEY > $0.new; mv $0.new $0; echo $$ > $0.pid; exec sleep 600", "{{file}}"]
parameters = {{ type = "object", required = ["file"], properties = {{ file = {{ type = "string" }} }} }}
"""


def _register(server: Server, receiver: Receiver) -> dict[str, Any]:
    made: dict[str, Any] = json.loads(
        server.command(
            *("admin", "service", "create", "books", "--data-dir", str(server.data_dir), "--json"),
            *("--config", str(server.directory / "taskcred.toml")),
            *("--tasks", "hold", "--executors", "worker", "--webhook-url", receiver.url),
        )
    )
    receiver.secret = made["webhook_secret"]
    return made


def _owner(server: Server) -> SignedIn:
    person = server.create_person("ada@example.com", api_key=True)
    me = server.sign_in(person)
    body = {"name": "mine", "type": "iam_api_key", "secret": {"api_key": person.api_key}}
    assert me.request("POST", "/v1/task_credentials", json=body).status_code == 201
    return me


def _exchange(server: Server, key: str) -> int:
    with server.client() as client:
        answer = client.post("/identity/token", data={"grant_type": API_KEY, "apikey": key})
    return answer.status_code


@pytest.mark.promise("at-once")
@pytest.mark.promise("only-what-the-user-started")
def test_its_end_takes_the_running_job_with_it(start_server: Callable[..., Server], tmp_path: Path) -> None:
    with receive() as receiver:
        server = start_server(config=_config(receiver))
        made, me = _register(server, receiver), _owner(server)
        service = httpx.Client(base_url=server.url, auth=(made["client_id"], made["client_secret"]))
        given = me.request(
            "POST", "/v1/grants", json={"service_id": made["client_id"], "tasks": ["hold"]}
        ).json()
        held = tmp_path / "key"
        start = {"task": "hold", "parameters": {"file": str(held)}, "grant_id": given["id"]}
        run = service.post("/v1/runs", json=start).json()
        eventually(lambda: Path(f"{held}.pid").exists(), "the job runs")
        key, pid = held.read_text().strip(), int(Path(f"{held}.pid").read_text())
        assert _exchange(server, key) == 200

        me.request("POST", f"/v1/grants/{given['id']}/end")

        assert _exchange(server, key) == 400
        refused = service.post("/v1/runs", json=start)
        assert (refused.status_code, refused.json()["code"]) == (403, "grant_ended")
        assert service.get(f"/v1/runs/{run['id']}").json()["state"] == "cancelled"
        eventually(lambda: not _is_alive(pid), "the job has ended")
        eventually(lambda: "grant.ended" in receiver.types(), "the service is told")
        assert receiver.types() == ["grant.given", "attempt.ended", "run.ended", "grant.ended"]
        polled = service.get("/v1/events").json()["items"]
        assert [each["webhook_id"] for each in polled] == [webhook_id for webhook_id, _ in receiver.told]
        service.close()


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
