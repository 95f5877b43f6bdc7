"""`taskcred admin service`, before any server has been started on the data directory and beside one."""

from __future__ import annotations

import base64
import json
import re
import secrets
import stat
from pathlib import Path
from typing import Any

import httpx
import pytest

from taskcred.domain.keytext import SERVICE_SECRET_PREFIX, has_form
from tests.functional.cli.conftest import Done, Shell
from tests.support.server import Server, eventually


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    return tmp_path / "data"


class Services:
    """`services("list")` runs `taskcred admin service list` on the data directory."""

    def __init__(self, cli: Shell, data_dir: Path) -> None:
        self.cli, self.data_dir = cli, data_dir

    def __call__(self, *arguments: object, as_json: bool = True, **environment: str) -> Done:
        flags = ("--json",) if as_json else ()
        return self.cli("admin", "service", *arguments, "--data-dir", self.data_dir, *flags, **environment)

    def made(self, name: str = "notebook", *flags: object) -> dict[str, Any]:
        done = self("create", name, "--tasks", "exec", *flags)
        assert done.code == 0, done.err
        return dict(done.json)


@pytest.fixture
def services(cli: Shell, data_dir: Path) -> Services:
    return Services(cli, data_dir)


def test_a_service_is_registered_before_the_first_start(services: Services, data_dir: Path) -> None:
    made = services.made("notebook", "--webhook-url", "https://a.example/hook")
    assert set(made) == {"name", "url", "client_id", "client_secret", "webhook_secret"}
    assert made["url"] is None
    assert has_form(made["client_secret"], SERVICE_SECRET_PREFIX)
    assert len(base64.b64decode(made["webhook_secret"].removeprefix("whsec_"))) == 32
    assert stat.S_IMODE(data_dir.stat().st_mode) == 0o700
    (listed,) = services("list").json["services"]
    assert (listed["name"], listed["state"], listed["tasks"]) == ("notebook", "active", ["exec"])
    assert (listed["executors"], listed["starts_per_minute"]) == (["service"], 600)
    everything = services("show", "notebook").out + services("show", made["client_id"]).out
    assert made["client_secret"] not in everything
    assert made["webhook_secret"] not in everything


def test_a_webhook_secret_is_told_with_the_first_webhook(services: Services) -> None:
    made = services.made()
    assert "webhook_secret" not in made
    assert "webhook_secret" not in services("update", "notebook", "--title", "Notebook").json
    first = services("update", "notebook", "--webhook-url", "https://a.example/hook").json
    assert len(base64.b64decode(first["webhook_secret"].removeprefix("whsec_"))) == 32
    assert first["webhook_url"] == "https://a.example/hook"
    assert "webhook_secret" not in services("update", "notebook", "--webhook-url", "https://b.example/").json
    assert "webhook_secret" not in services("update", "notebook", "--webhook-url", "").json
    again = services("update", "notebook", "--webhook-url", "https://b.example/", as_json=False)
    assert re.search(r"webhook_secret +whsec_", again.out)
    assert "shown this once" in again.err
    assert first["webhook_secret"] not in again.out  # nobody can read that one again


def test_a_task_of_another_configuration_is_not_known_and_the_cure_is_named(services: Services) -> None:
    refused = services("create", "notebook", "--tasks", "train")
    assert refused.code == 2
    for words in ("unknown_task", "--config", "TASKCRED_CONFIG"):
        assert words in refused.err


def test_a_secret_goes_into_a_file_that_others_cannot_read(services: Services, tmp_path: Path) -> None:
    file = tmp_path / "notebook.json"
    refused = services("create", "notebook", "--tasks", "exec", "--file", file)
    assert (refused.code, refused.problem["error"]["code"]) == (7, "configuration")  # which URL?
    url = {"TASKCRED_SERVER__PUBLIC_URL": "https://taskcred.example.org"}
    done = services("create", "notebook", "--tasks", "exec", "--file", file, **url)
    assert done.code == 0, done.err
    assert "client_secret" not in done.json
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    held = json.loads(file.read_text())
    assert set(held) == {"url", "client_id", "client_secret"}
    assert (held["url"], held["client_id"]) == ("https://taskcred.example.org", done.json["client_id"])
    again = services("create", "other", "--tasks", "exec", "--file", file, **url)
    assert (again.code, json.loads(file.read_text())) == (5, held)
    assert services("rotate-secret", "notebook", "--file", file, **url).code == 0
    renewed = json.loads(file.read_text())
    assert renewed["client_id"] == held["client_id"]
    assert renewed["client_secret"] != held["client_secret"]


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("create", "No"), 2, "invalid_request"),
        (("create", "x", "--tasks", "nothing"), 2, "unknown_task"),
        (("create", "x", "--executors", "owner"), 2, "invalid_request"),
        (("create", "x", "--callback-url", "http://a.example"), 2, "invalid_url"),
        (("create", "x", "--webhook-url", "https://a.example/#x"), 2, "invalid_url"),
        (("create", "x", "--starts-per-minute", "0"), 2, "invalid_request"),
        (("create", "notebook"), 5, "service_exists"),
        (("show", "nobody"), 3, "not_found"),
        (("update", "notebook", "--executors", ""), 2, "invalid_request"),
        (("rotate-secret", "notebook", "--overlap", "soon"), 2, "invalid_request"),
        (("rotate-secret", "notebook", "--overlap", "60d"), 2, "invalid_request"),
        (("trust", "notebook", "--issuer", "http://i.example", "--subject", "s"), 7, "configuration"),
        (
            ("trust", "notebook", "--issuer", "http://i.example", "--subject", "s", "--audience", "a"),
            2,
            "invalid_url",
        ),
        (("end-trust", "notebook", "none"), 3, "not_found"),
        (("add-administrator", "notebook"), 2, "invalid_request"),
        (("add-administrator", "notebook", "--email", "a@b", "--iam-id", "c"), 2, "invalid_request"),
        (("add-administrator", "notebook", "--email", "a@b"), 7, "configuration"),
        (("remove-administrator", "notebook", "--iam-id", "c"), 3, "not_found"),
    ],
)
def test_what_cannot_be_is_refused_with_a_cure(
    services: Services, arguments: tuple[str, ...], code: int, words: str
) -> None:
    services.made()
    done = services(*arguments)
    assert (done.code, done.problem["error"]["code"]) == (code, words), done.err
    assert done.problem["error"]["hint"]


def test_the_life_of_a_service(services: Services, cli: Shell, data_dir: Path) -> None:
    made = services.made("notebook", "--title", "Notebook")
    changed = services(
        "update",
        "notebook",
        "--tasks",
        "",
        "--executors",
        "worker,service",
        "--callback-url",
        "https://a.example",
    ).json
    assert (changed["tasks"], changed["executors"], changed["callback_urls"], changed["title"]) == (
        [],
        ["service", "worker"],
        ["https://a.example"],
        "Notebook",
    )
    assert services("update", "notebook", "--callback-url", "").json["callback_urls"] == []

    rotated = services("rotate-secret", "notebook", "--overlap", "0").json
    assert rotated["client_secret"] != made["client_secret"]
    (secret,) = services("show", "notebook").json["secrets"]
    assert secret["last_four"] == rotated["client_secret"][-4:]
    assert services("rotate-webhook-secret", "notebook").json["webhook_secret"].startswith("whsec_")

    cli("iam", "create-user", "--data-dir", data_dir, "--account", "A", "--email", "ada@example.com")
    (person,) = services("add-administrator", "notebook", "--email", "Ada@Example.com").json["administrators"]
    assert person["email"] == "ada@example.com"
    assert person["iam_id"].startswith("IBMid-")
    assert (
        services("remove-administrator", "notebook", "--iam-id", person["iam_id"]).json["administrators"]
        == []
    )

    trust = ("--issuer", "https://i.example", "--subject", "s", "--audience", "https://a.example")
    (trusted,) = services("trust", "notebook", *trust).json["trusts"]
    assert services("end-trust", "notebook", trusted["id"]).json["trusts"] == []

    assert services("disable", "notebook").json["state"] == "disabled"
    assert services("enable", "notebook").json["state"] == "active"
    asked = cli("admin", "service", "end", "notebook", "--data-dir", data_dir, stdin="n\n")
    assert asked.code == 130
    assert services("end", "notebook", "--yes").json == {"client_id": made["client_id"], "ended": True}
    assert services("list").json == {"services": []}


def test_people_read_it_too(services: Services) -> None:
    services.made("notebook", "--title", "Notebook server")
    done = services("show", "notebook", as_json=False)
    assert "Notebook server" in done.out
    assert "not used yet" in done.out
    assert "Secrets are shown this once" in services("rotate-secret", "notebook", as_json=False).err


def test_beside_a_server_it_takes_effect_at_once(cli: Shell, start_server: Any) -> None:
    server: Server = start_server()
    services = Services(cli, server.data_dir)
    made = services.made(f"s-{secrets.token_hex(4)}")
    assert made["url"] == server.url

    def call(text: str) -> httpx.Response:
        return httpx.get(
            f"{server.url}/v1/services/self", auth=(made["client_id"], text), verify=server.verify
        )

    assert call(made["client_secret"]).json()["id"] == made["client_id"]
    services("disable", made["name"])
    assert call(made["client_secret"]).json()["code"] == "service_disabled"
    services("enable", made["name"])
    renewed = services("rotate-secret", made["name"], "--overlap", "0").json["client_secret"]
    assert [call(text).status_code for text in (made["client_secret"], renewed)] == [401, 200]
    services("end", made["name"], "--yes")
    assert call(renewed).json()["code"] == "invalid_client"
    # What was written before the first start is the server's; what it began to serve goes on.
    assert eventually(lambda: httpx.get(f"{server.url}/readyz", verify=server.verify).is_success, "ready")
