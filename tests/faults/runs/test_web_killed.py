"""A real server and a service whose engine begins attempts; kill -9 of web before it hears the answer."""

from __future__ import annotations

import json
import socket
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from tests.support.server import Person, Server, SignedIn, eventually

CONFIG = """
[jobs]
isolation = "none"

[tasks.train]
kind = "external"
"""
GRANT = "urn:ibm:params:oauth:grant-type:apikey"


@dataclass
class Engine:
    """The service's side: its client credentials, and the owner it works for."""

    server: Server
    client_id: str
    secret: str
    owner: SignedIn

    def ask(self, path: str, **body: Any) -> httpx.Response:
        with self.server.client() as client:
            return client.post(path, json=body, auth=(self.client_id, self.secret))

    def start(self) -> str:
        answer = self.ask("/v1/runs", task="train", subject_token=self.owner.token)
        assert answer.status_code == 201, answer.text
        return str(answer.json()["id"])

    def begin(self, run: str, **body: Any) -> dict[str, Any]:
        answer = self.ask(f"/v1/runs/{run}/attempts", **body)
        assert answer.status_code == 201, answer.text
        return dict(answer.json())

    def exchange(self, key: str) -> httpx.Response:
        with self.server.client() as client:
            return client.post("/identity/token", data={"grant_type": GRANT, "apikey": key})

    @contextmanager
    def unheard(self, path: str, **body: Any) -> Iterator[None]:
        """A request whose answer nobody reads."""
        raw = json.dumps(body).encode()
        host = urlsplit(self.server.url)
        auth = httpx.BasicAuth(self.client_id, self.secret)
        request = next(auth.auth_flow(httpx.Request("POST", f"{self.server.url}{path}")))
        head = (
            f"POST {path} HTTP/1.1\r\nHost: {host.netloc}\r\nContent-Type: application/json\r\n"
            f"Authorization: {request.headers['Authorization']}\r\nContent-Length: {len(raw)}\r\n\r\n"
        )
        with socket.create_connection((host.hostname or "", host.port or 0)) as connection:
            connection.sendall(head.encode() + raw)
            yield


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    server = Server(tmp_path_factory.mktemp("server"), CONFIG)
    server.start()
    try:
        person: Person = server.create_person("ada@example.test")
        owner = server.sign_in(person)
        made = owner.request("POST", "/v1/task_credentials", json={"name": "Key", "generate": True})
        assert made.status_code == 201, made.text
        at_home = ("--data-dir", str(server.data_dir), "--config", str(server.directory / "taskcred.toml"))
        create = ("admin", "service", "create", "engine", "--tasks", "train", "--json")
        registered = json.loads(server.command(*create, *at_home))
        yield Engine(server, registered["client_id"], registered["client_secret"], owner)
    finally:
        server.stop()


def _attempts(data_dir: Path, run: str) -> list[str | None]:
    with sqlite3.connect(f"file:{data_dir / 'records.db'}?mode=ro", uri=True) as records:
        rows = records.execute("SELECT outcome FROM attempts WHERE run_id = ? ORDER BY number", [run])
        return [row[0] for row in rows]


@pytest.mark.only_on("sqlite")  # a whole server, and it reads the file; PostgreSQL has one of its own
@pytest.mark.slow
@pytest.mark.promise("dead-with-the-run")
def test_web_is_killed_between_the_commit_of_a_begin_and_its_answer(engine: Engine) -> None:
    server, run = engine.server, engine.start()
    web = server.role("web")
    with engine.unheard(f"/v1/runs/{run}/attempts"):
        eventually(lambda: _attempts(server.data_dir, run), "the attempt is committed")
        server.kill("web")
    eventually(lambda: server.role("web") not in {None, web}, "another web process")
    begun = eventually(lambda: _begin_again(engine, run), "the executor asks again")
    assert begun["number"] == 2
    assert _attempts(server.data_dir, run) == ["lost", None]
    assert engine.exchange(begun["stand_in_key"]).status_code == 200
    ended = engine.ask(f"/v1/runs/{run}/attempts/{begun['attempt_id']}/end", outcome="succeeded")
    assert ended.json()["state"] == "succeeded"
    assert engine.exchange(begun["stand_in_key"]).status_code == 400


def _begin_again(engine: Engine, run: str) -> dict[str, Any] | None:
    try:
        return engine.begin(run)
    except httpx.TransportError:
        return None  # web is on its way


@pytest.mark.only_on("sqlite")  # the same server
@pytest.mark.slow
def test_a_key_is_bound_to_the_address_that_the_server_sees(engine: Engine) -> None:
    run = engine.start()
    for addresses, status in ((["127.0.0.0/8", "::1/128"], 200), (["10.0.0.0/8"], 400)):
        begun = engine.begin(run, addresses=addresses)
        for _ in range(2):
            assert engine.exchange(begun["stand_in_key"]).status_code == status
    events = engine.owner.request("GET", "/v1/audit").json()["items"]
    refused = [event for event in events if event["outcome"] == "refused" and event["run_id"] == run]
    assert [(event["action"], event["details"]["why"]) for event in refused] == [
        ("token:issue", "other_network")
    ]
