"""A person at a terminal who acts for a service id, against a real server: its key, its runs, its tokens."""

from __future__ import annotations

import json
import secrets
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from tests.functional.cli.conftest import Done, Shell
from tests.functional.cli.test_person import log_in
from tests.support.server import Person, Server, eventually

# A job as any client of IBM's IAM: it exchanges the key it was given and says whose token that gives.
_WHO = """
import base64, json, os, urllib.parse, urllib.request
form = {"grant_type": "urn:ibm:params:oauth:grant-type:apikey", "apikey": os.environ["IBMCLOUD_API_KEY"]}
url = os.environ["TASKCRED_URL"] + "/identity/token"
answer = json.load(urllib.request.urlopen(url, urllib.parse.urlencode(form).encode()))
payload = answer["access_token"].split(".")[1]
print("I am", json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))["iam_id"])
"""
TASKS = f"""
[tasks.who]
kind = "command"
argv = [{json.dumps(sys.executable)}, "-c", {json.dumps(_WHO)}]
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("acting"), config=TASKS)
    server.start()
    yield server
    server.stop()


@pytest.fixture
def person(server: Server) -> Person:
    """A member who administers nothing: what they may do for the service id is by permission."""
    name = secrets.token_hex(6)
    server.create_person(f"first-{name}@example.com", account=name)
    return server.create_person(f"{name}@example.com", account=name)


@pytest.fixture
def robot(server: Server, person: Person) -> str:
    made = server.command(
        *("iam", "create-service-id", "--data-dir", str(server.data_dir), "--json"),
        *("--account", person.account_id, "--name", f"nightly-{person.email}"),
    )
    return str(json.loads(made)["iam_id"])


def _permit(server: Server, command: str, robot: str, person: Person) -> Any:
    options = ("--service-id", robot, "--email", person.email, "--data-dir", str(server.data_dir), "--json")
    return json.loads(server.command("iam", command, *options))


def ok(done: Done) -> Any:
    assert done.code == 0, done.err
    return done.json


@pytest.mark.promise("only-what-the-user-started")
def test_work_of_a_service_id_runs_with_its_own_token_until_the_permission_ends(
    cli: Shell, server: Server, person: Person, robot: str
) -> None:
    assert log_in(cli, server, person).code == 0
    refused = cli("key", "create", "--generate", "--act-for", robot, "--json")
    assert (refused.code, refused.problem["error"]["code"]) == (4, "act_for_refused")

    given = _permit(server, "allow-act", robot, person)
    assert (given["service_iam_id"], given["email"]) == (robot, person.email)
    made = ok(cli("key", "create", "--generate", "--act-for", robot, "--json"))
    assert made["created_by"] == person.iam_id
    assert ok(cli("key", "list", "--json")) == []

    name = given["service_name"]
    run = ok(cli("run", "start", "who", "--act-for", name, "--json"))
    assert run["acting_iam_id"] == person.iam_id

    def state() -> Any:
        return ok(cli("run", "show", run["id"], "--act-for", name, "--json"))["state"]

    eventually(lambda: state() in {"succeeded", "failed"}, "the run has ended")
    assert f"I am {robot}" in cli("run", "output", run["id"], "--act-for", name).out
    assert cli("run", "show", run["id"]).code == 3

    assert _permit(server, "disallow-act", robot, person)["was_allowed"] is True
    refused = cli("key", "rotate", "--generate", "--act-for", robot, "--json")
    assert (refused.code, refused.problem["error"]["code"]) == (4, "act_for_refused")
    unknown = cli("run", "list", "--act-for", name)
    assert unknown.code == 3
    assert "Yours in this account: none" in unknown.err


def test_who_may_act_for_what_is_listed(cli: Shell, server: Server, person: Person, robot: str) -> None:
    _permit(server, "allow-act", robot, person)
    at = ("--service-id", robot, "--data-dir", server.data_dir)
    (listed,) = ok(cli("iam", "list-act", *at, "--json"))
    assert (listed["iam_id"], listed["given_by"]) == (person.iam_id, "operator")
    assert person.email in cli("iam", "list-act", *at).out
    text = cli("iam", "disallow-act", *at, "--email", person.email).out
    assert "may not act" in text
    assert "was not allowed" in cli("iam", "disallow-act", *at, "--email", person.email).out
    assert "Nobody may act" in cli("iam", "list-act", *at).err
