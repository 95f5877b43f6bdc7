"""kill -9 of web, keeper, worker and supervisor at random moments under a mixed load.

Afterwards: no owner without their last good key, no key of ours at the provider or in the vault without a
record, no run lost or doubled. TASKCRED_TEST_KILLS says how many kills (20 here; 200 for a release), and
TASKCRED_TEST_SEED repeats a run's choices.
"""

from __future__ import annotations

import os
import random
import socket
import sqlite3
import threading
import time
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from tests.support.server import Person, Server, SignedIn, eventually

KILLS = int(os.environ.get("TASKCRED_TEST_KILLS", "20"))
SEED = int(os.environ.get("TASKCRED_TEST_SEED", str(random.SystemRandom().randrange(10**6))))

# A job that proves it is alone: it holds an abstract socket named after its run while it works.
JOB = """
import os, socket, sys, time
alone = socket.socket(socket.AF_UNIX)
try:
    alone.bind("\\0taskcred-test-" + os.environ["TASKCRED_RUN_ID"])
except OSError:
    print("DOUBLED")
    sys.exit(1)
time.sleep(0.4)
print("worked")
"""
CONFIG = f"""
[jobs]
per_owner = 2
kill_grace = 1

[tasks.work]
kind = "command"
argv = ["python3", "-c", '''{JOB}''']
"""


class Owner:
    """Does what owners do, at random, and remembers what it was told."""

    def __init__(self, server: Server, number: int, person: Person, me: SignedIn) -> None:
        self.server, self.person, self.me = server, person, me
        self.random = random.Random(SEED * 100 + number)
        self.accepted_runs: set[str] = set()
        self.unexpected: list[str] = []

    def act(self) -> None:
        """One thing; a cut or refused connection is what kills do to clients."""
        try:
            getattr(self, self.random.choice(("create", "rotate", "rotate", "delete", "run", "run", "run")))()
        except httpx.TransportError:
            time.sleep(0.1)

    def ask(self, method: str, path: str, **options: Any) -> httpx.Response:
        """A request that may be answered with success, refusal or 503, and with nothing else."""
        answer = self.me.request(method, path, **options)
        if answer.status_code not in {200, 201, 202, 204, 404, 409, 503}:
            self.unexpected.append(f"{method} {path}: {answer.status_code} {answer.text[:300]}")
        return answer

    def credential(self) -> str | None:
        """The id of the credential, if there is one."""
        answer = self.ask("GET", "/v1/task_credentials")
        listed = answer.json().get("credentials", []) if answer.status_code == 200 else []
        return listed[0]["id"] if listed else None

    def create(self) -> None:
        self.ask(
            "POST", "/v1/task_credentials", json={"name": "mine", "type": "iam_api_key", "generate": True}
        )

    def rotate(self) -> None:
        if credential := self.credential():
            drain = self.random.choice(("tokens", "now"))
            self.ask(
                "POST", f"/v1/task_credentials/{credential}/rotate", json={"generate": True, "drain": drain}
            )

    def delete(self) -> None:
        if credential := self.random.random() < 0.4 and self.credential():
            self.ask("DELETE", f"/v1/task_credentials/{credential}")

    def run(self) -> None:
        answer = self.ask("POST", "/v1/runs", json={"task": "work", "parameters": {}})
        if answer.status_code == 201:
            self.accepted_runs.add(answer.json()["id"])


def rows(server: Server, database: str, query: str) -> list[tuple[Any, ...]]:
    """What `query` finds in one of the server's databases."""
    with sqlite3.connect(f"file:{server.data_dir / database}?mode=ro", uri=True) as connection:
        return connection.execute(query).fetchall()


@pytest.mark.slow
@pytest.mark.promise("last-good-key")
def test_kills_at_random_moments_lose_and_double_nothing(start_server: Callable[..., Server]) -> None:
    print(f"seed {SEED}, {KILLS} kills")  # noqa: T201 - shown when the test fails, to repeat it
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = start_server(config=CONFIG, arguments=("--port", str(port)))
    people = [server.create_person(f"owner{number}@example.com") for number in range(4)]
    owners = [Owner(server, number, person, server.sign_in(person)) for number, person in enumerate(people)]
    stop = threading.Event()

    def live(owner: Owner) -> None:
        while not stop.is_set():
            owner.act()
            time.sleep(0.05)

    threads = [threading.Thread(target=live, args=(owner,)) for owner in owners]
    for thread in threads:
        thread.start()
    chance = random.Random(SEED)
    try:
        for _ in range(KILLS):
            time.sleep(chance.uniform(0.1, 1.5))
            victim = chance.choice(("web", "keeper", "worker", "supervisor"))
            server.kill(victim)
            if victim == "supervisor":
                server.start()
    finally:
        stop.set()
        for thread in threads:
            thread.join(90)
    assert [words for owner in owners for words in owner.unexpected] == []
    settle(server, owners)
    check(server, owners)


def settle(server: Server, owners: list[Owner]) -> None:
    """Give everybody a usable credential, and wait until nothing is under way."""
    eventually(
        lambda: not rows(server, "records.db", "select 1 from intents where state = 'open'"),
        "intents end",
        within=90,
    )
    for owner in owners:
        if owner.credential() is None:
            owner.create()
    unfinished = "select 1 from runs where state in ('queued', 'running', 'waiting_for_credential')"
    eventually(lambda: not rows(server, "records.db", unfinished), "every run ends", within=240)
    eventually(
        lambda: not rows(server, "records.db", "select 1 from intents where state = 'open'"),
        "intents end",
        within=90,
    )


def check(server: Server, owners: list[Owner]) -> None:
    """The promises, on what the databases say."""
    runs = dict(rows(server, "records.db", "select id, state from runs"))
    lost = {run for owner in owners for run in owner.accepted_runs} - set(runs)
    assert lost == set()
    assert rows(server, "records.db", "select attempt_id from run_output where text like '%DOUBLED%'") == []
    succeeded_twice = (
        "select run_id from attempts where outcome = 'succeeded' group by run_id having count(*) > 1"
    )
    assert rows(server, "records.db", succeeded_twice) == []

    kept = {
        f"credentials/{c}/{k}"
        for c, k in rows(
            server, "records.db", "select credential_id, id from keys where state in ('active', 'phased_out')"
        )
    }
    in_vault = {
        path
        for (path,) in rows(server, "vault.db", "select path from records where path like 'credentials/%'")
    }
    assert in_vault == kept
    recorded = {
        key
        for (key,) in rows(
            server, "records.db", "select provider_key_id from keys where state in ('active', 'phased_out')"
        )
    }
    at_provider = {key for (key,) in rows(server, "iam.db", "select id from api_keys")}
    assert at_provider == recorded

    for owner in owners:
        answer = owner.me.request("POST", "/v1/runs", json={"task": "work", "parameters": {}})
        assert answer.json()["state"] == "queued", answer.text
        run_id = answer.json()["id"]
        ended = eventually(
            lambda run_id=run_id, owner=owner: (
                (  # type: ignore[misc]  # bound now, called at once
                    now := owner.me.request("GET", f"/v1/runs/{run_id}").json()
                )["state"]
                in {"succeeded", "failed"}
                and now
            ),
            "a run with the last good key ends",
        )
        assert ended["state"] == "succeeded", ended
