"""A person at a terminal, against a real server: sign in, keys, runs, schedules, prompts, audit, sign out."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import secrets
import sqlite3
import stat
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.functional.cli.conftest import Done, Shell
from tests.support.server import Form, Person, Server, eventually

TASKS = """
[tasks.hello]
kind = "command"
title = "Say hello"
argv = ["/bin/sh", "-c", "echo ::progress 1/2 half; echo hello $0", "{name}"]
parameters = {type = "object", required = ["name"], properties = {name = {type = "string"}}}

[tasks.fail]
kind = "command"
argv = ["/bin/sh", "-c", "echo oh; exit 3"]

[tasks.long]
kind = "command"
argv = ["/bin/sleep", "600"]
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One server for all: what tests would share is per person, and each has a person of its own."""
    server = Server(tmp_path_factory.mktemp("cli"), config=TASKS)
    server.start()
    yield server
    server.stop()


@pytest.fixture
def person(server: Server) -> Person:
    name = secrets.token_hex(6)
    return server.create_person(f"{name}@example.com", account=name, api_key=True)


def log_in(cli: Shell, server: Server, person: Person, *flags: str) -> Done:
    """`taskcred login`, with a browser that types the password and follows the redirects."""
    process = subprocess.Popen(
        [sys.executable, "-m", "taskcred", "login", "--no-browser", *flags],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=cli.environment | {"TASKCRED_DATA_DIR": str(server.data_dir)},
        cwd=cli.home,
    )
    assert process.stderr is not None
    link = next(found[0] for line in process.stderr if (found := re.search(r"http\S+authorize\S+", line)))
    with httpx.Client(follow_redirects=True, verify=server.verify) as browser:
        page = browser.get(link)
        form = Form.first(page.text)
        form.fields |= {"email": person.email, "password": person.password}
        last = browser.post(str(page.url.join(form.action)), data=form.fields)
    assert "You are signed in" in last.text
    out, err = process.communicate(timeout=60)
    return Done(process.returncode, out, err)


@pytest.fixture
def signed_in(cli: Shell, server: Server, person: Person) -> Shell:
    assert log_in(cli, server, person).code == 0
    return cli


def ok(done: Done) -> Any:
    assert done.code == 0, done.err
    return done.json


def test_login_keeps_tokens_in_a_private_file_and_prints_none(
    cli: Shell, server: Server, person: Person
) -> None:
    done = log_in(cli, server, person, "--json")
    assert done.code == 0, done.err
    assert (done.json["iam_id"], done.json["account_id"]) == (person.iam_id, person.account_id)
    file = cli.home / "config" / "taskcred" / "login.json"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    kept = json.loads(file.read_text())["servers"][server.url]
    assert kept["access_token"] not in done.out + done.err
    assert kept["refresh_token"] not in done.out + done.err


def test_the_server_of_this_machine_is_trusted_with_its_own_certificate(
    cli: Shell, start_server: Callable[..., Server]
) -> None:
    server = start_server(arguments=("--tls-self-signed",))
    assert log_in(cli, server, server.create_person("ada@example.com"), "--json").json["url"] == server.url
    assert server.url.startswith("https://")
    assert (
        cli("run", "list").code == 0
    )  # also from elsewhere on the machine: the sign-in remembers the authority
    stranger = Shell(cli.home / "stranger")
    stranger.home.mkdir()
    untrusted = stranger("login", "--no-browser", "--url", server.url)
    assert untrusted.code == 7
    assert "SSL_CERT_FILE" in untrusted.err


def test_a_person_chooses_the_account_to_act_in(cli: Shell, server: Server, person: Person) -> None:
    name = secrets.token_hex(6)
    at = ("--data-dir", server.data_dir)
    other = ok(cli("iam", "create-account", "--name", name, *at, "--json"))["account_id"]
    assert cli("iam", "add-member", "--account", name, "--email", person.email, *at).code == 0
    assert ok(log_in(cli, server, person, "--account", other, "--json"))["account_id"] == other


def test_logout_forgets(signed_in: Shell, server: Server) -> None:
    assert ok(signed_in("logout", "--json")) == {"url": server.url, "was_signed_in": True}
    assert signed_in("run", "list", "--url", server.url).code == 4


def test_two_commands_at_once_refresh_an_old_token_without_losing_the_sign_in(
    signed_in: Shell, server: Server
) -> None:
    file = signed_in.home / "config" / "taskcred" / "login.json"
    values = json.loads(file.read_text())
    values["servers"][server.url]["expires_at"] = 0
    file.write_text(json.dumps(values))
    done: list[Done] = []
    threads = [
        threading.Thread(target=lambda: done.append(signed_in("run", "list", "--json"))) for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [each.code for each in done] == [0, 0, 0], [each.err for each in done]
    assert json.loads(file.read_text())["servers"][server.url]["expires_at"] > time.time()


def test_the_life_of_a_key(signed_in: Shell, person: Person) -> None:
    cli = signed_in
    assert "key create" in cli("key", "list").err
    assert cli("key", "show").code == 3
    made = ok(
        cli("key", "create", "--name", "Mine", "--api-key-stdin", "--json", stdin=f"{person.api_key}\n")
    )
    assert person.api_key not in json.dumps(made)
    assert ok(cli("key", "show", "--json"))["state"] == "usable"
    assert made["active_key"]["expires_at"] is None  # as the identity provider says of this key
    again = cli("key", "create", "--generate", "--json")
    assert again.code == 5
    assert again.problem["error"]["existing_id"] == made["id"]
    assert ok(cli("key", "edit", "--name", "Renamed", "--json"))["name"] == "Renamed"
    rotated = ok(cli("key", "rotate", "--generate", "--show-once", "--json"))
    assert rotated["api_key"].startswith("tcu_")
    assert rotated["active_key"]["expires_at"] is not None
    assert (
        cli("key", "rotate", "--generate", "--never-expires", "--expires-at", "2999-01-01T00:00:00Z").code
        == 2
    )
    never = ok(cli("key", "rotate", "--generate", "--never-expires", "--json"))
    assert never["active_key"]["expires_at"] is None
    listed = cli("key", "list")
    assert "Active" in listed.out
    assert rotated["api_key"] not in listed.out
    phased_out = [
        key
        for entry in ok(cli("key", "list", "--json"))
        for key in entry["keys"]
        if key["state"] == "phased_out"
    ]
    for key in phased_out:
        assert cli("key", "end", key["id"]).code == 0
    assert ok(cli("key", "impact", "--json"))["schedules"] == []
    impact = cli("key", "impact").out
    assert impact.startswith("Nothing would break.\nThe last access token handed out ends ")
    assert cli("key", "delete", stdin="Something else\n").code == 5
    assert cli("key", "delete", stdin="Renamed\n").code == 0
    assert cli("key", "delete", "--yes").code == 3


def test_a_key_is_never_an_argument_and_one_source_is_needed(signed_in: Shell) -> None:
    assert signed_in("key", "create").code == 2
    assert signed_in("key", "create", "--generate", "--api-key-stdin").code == 2
    assert signed_in("key", "create", "--show-once", "--api-key-stdin", stdin="x\n").code == 2
    assert signed_in("key", "create", "--never-expires", "--api-key-stdin", stdin="x\n").code == 2
    assert signed_in("key", "create", "--api-key-stdin", stdin="\n").code == 2
    refused = signed_in("key", "create", "--api-key-stdin", "--json", stdin=secrets.token_urlsafe(40))
    assert refused.problem["error"]["code"] == "key_refused"


def test_a_run_waits_for_its_answer_and_then_shows_what_it_did(signed_in: Shell) -> None:
    cli = signed_in
    parked = cli("run", "start", "hello", "-p", "name=Ada")
    run = parked.out.strip()
    assert "taskcred prompt answer" in parked.err
    assert [each["state"] for each in ok(cli("prompt", "list", "--json"))] == ["open"]
    assert cli("prompt", "answer", "--generate").code == 0
    watched = cli("run", "watch", run)
    assert watched.code == 0, watched.err
    assert "hello Ada" in watched.out
    assert "succeeded" in watched.err
    assert "hello Ada" in cli("run", "output", run).out
    assert ok(cli("run", "show", run, "--json"))["progress_done"] == 1
    assert ok(cli("run", "access", run, "--json"))[0]["number"] == 1
    assert {each["action"] for each in ok(cli("audit", "list", "--limit", "500", "--json"))} >= {"run:start"}
    assert cli("prompt", "answer", "--generate").code == 3


def test_watching_on_a_terminal_shows_a_bar_and_leaves_the_output_to_the_pipe(signed_in: Shell) -> None:
    assert signed_in("key", "create", "--generate").code == 0
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "taskcred", "run", "start", "hello", "-p", "name=Ada", "--watch"],
        stdout=subprocess.PIPE,
        stderr=theirs,
        text=True,
        env=signed_in.environment | {"TERM": "xterm"},
        cwd=signed_in.home,
    )
    os.close(theirs)
    drawn = bytearray()
    with contextlib.suppress(OSError):  # how a pseudo-terminal says that nobody writes to it any more
        while chunk := os.read(ours, 4096):
            drawn += chunk
    os.close(ours)
    assert process.communicate(timeout=60)[0] == "hello Ada\n"
    assert process.returncode == 0
    assert "\x1b[" in drawn.decode()


def test_a_failed_run_is_a_bad_result_not_an_error(signed_in: Shell) -> None:
    assert signed_in("key", "create", "--generate").code == 0
    done = signed_in("run", "start", "fail", "--watch", "--json")
    assert done.code == 9
    assert (done.json["state"], done.json["exit_code"]) == ("failed", 3)


def test_a_running_job_is_listed_ended_and_cancelled(signed_in: Shell) -> None:
    cli = signed_in
    assert cli("key", "create", "--generate").code == 0
    run = ok(cli("run", "start", "long", "--json"))["id"]
    live = eventually(lambda: ok(cli("access", "list", "--json")), "the job runs", within=60)
    assert live[0]["run_id"] == run
    assert run in cli("access", "list").out
    assert cli("access", "end", live[0]["attempt_id"]).code == 0
    assert cli("run", "cancel", run).code == 0
    assert cli("run", "watch", run).code == 9


def test_the_life_of_a_schedule(signed_in: Shell) -> None:
    cli = signed_in
    made = ok(
        cli(
            "schedule", "create", "hello", "-p", "name=Ada", "--cron", "30 2 * * *", "--timezone", "Europe/Berlin", "--json"
        )
    )  # fmt: skip
    assert len(made["next_times"]) == 5
    shown = cli("schedule", "show", made["id"]).out
    assert 'Parameters  {"name": "Ada"}' in shown
    assert re.search(r"next  \S+ 02:30 CES?T = \S+ 0[01]:30 UTC \(in ", shown)
    changed = ok(cli("schedule", "edit", made["id"], "--cron", "0 3 * * *", "-p", "name=Grace", "--json"))
    assert (changed["cron"], changed["parameters"]) == ("0 3 * * *", {"name": "Grace"})
    assert ok(cli("schedule", "pause", made["id"], "--json"))["paused"] is True
    assert "paused" in cli("schedule", "list").out
    assert ok(cli("schedule", "resume", made["id"], "--json"))["paused"] is False
    assert "next" in cli("schedule", "show", made["id"]).out
    assert cli("schedule", "delete", made["id"], stdin="n\n").code == 130
    assert cli("schedule", "delete", made["id"], "--yes").code == 0
    assert cli("schedule", "show", made["id"]).code == 3


def test_a_preview_needs_no_server(cli: Shell) -> None:
    assert len(ok(cli("schedule", "preview", "--cron", "30 2 * * *", "--json"))["next_times"]) == 5
    assert cli("schedule", "preview", "--cron", "61 * * * *").code == 2
    assert re.search(r"^\S+ 02:30 UTC \(in ", cli("schedule", "preview", "--cron", "30 2 * * *").out)
    abroad = cli("schedule", "preview", "--cron", "30 2 * * *", "--timezone", "Asia/Tokyo").out
    assert re.search(r"^\S+ 02:30 JST = \S+ 17:30 UTC \(in ", abroad)


def test_wrong_parameters_name_the_parameter(signed_in: Shell) -> None:
    done = signed_in("run", "start", "hello", "-p", "nome=Ada", "--json")
    assert done.code == 2
    assert done.problem["error"]["code"] == "invalid_parameters"
    assert signed_in("run", "start", "nothing", "-p", "a=1").code == 3


def test_hints_name_the_command_that_helps(signed_in: Shell) -> None:
    unknown = str(uuid.uuid4())
    for command, cure in (
        (("run", "show", unknown), "taskcred run list"),
        (("schedule", "show", unknown), "taskcred schedule list"),
        (("prompt", "answer", unknown, "--generate"), "taskcred prompt list"),
        (("grant", "end", unknown, "--yes"), "taskcred grant list"),
        (("run", "start", "nothing"), "taskcred task list"),
    ):
        assert cure in signed_in(*command).err


def test_the_catalogue_is_listed(signed_in: Shell) -> None:
    assert {task["name"] for task in ok(signed_in("task", "list", "--json"))} == {
        "hello",
        "fail",
        "long",
        "exec",
    }


def test_an_operator_locks_and_unlocks_while_the_server_runs(signed_in: Shell, server: Server) -> None:
    credential = ok(signed_in("key", "create", "--generate", "--json"))["id"]
    at = ("--data-dir", server.data_dir)
    assert signed_in("admin", "lock", credential, "--reason", "Seen in a chat", *at).code == 0
    shown = ok(signed_in("key", "show", "--json"))
    assert (shown["state"], shown["state_reason"]) == ("locked", "Seen in a chat")
    assert signed_in("admin", "lock", credential, "--reason", "Again", *at).code == 5
    assert signed_in("admin", "unlock", credential, *at).code == 0
    assert ok(signed_in("key", "show", "--json"))["state"] == "usable"


def test_a_worker_gets_a_private_credential_once(cli: Shell, server: Server, tmp_path: Path) -> None:
    file = tmp_path / "far.credential"
    at = ("--data-dir", server.data_dir)
    made = cli("admin", "worker", "create", "far", "--file", file, *at)
    assert made.code == 0
    assert "worker.credential in its data directory" in made.err
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert cli("admin", "worker", "create", "far", "--file", tmp_path / "other", *at).code == 5
    assert cli("admin", "worker", "create", "near", *at).code == 5  # the embedded worker's own file is there
    assert cli("admin", "worker", "end", "far", *at).code == 0
    # A restored backup must not bring it back.
    log = (server.data_dir.parent / "revocations" / "revocations.jsonl").read_text()
    assert file.read_text().partition(":")[0] in log
    file.unlink()
    assert cli("admin", "worker", "create", "far", "--file", file, *at).code == 0


@pytest.mark.promise("giving-up-is-visible")
def test_an_operator_sees_a_given_up_change_and_has_it_tried_again(
    signed_in: Shell, cli: Shell, server: Server
) -> None:
    credential = ok(signed_in("key", "create", "--generate", "--json"))["id"]
    at = ("--data-dir", server.data_dir)
    assert ok(cli("admin", "intents", *at, "--json")) == {"intents": []}
    with closing(sqlite3.connect(server.data_dir / "records.db")) as records, records:
        # As a day of refusals would leave it; what is left to do is nothing, so that a retry succeeds.
        (intent,) = records.execute("SELECT id FROM intents WHERE credential_id = ?", [credential]).fetchone()
        records.execute(
            "UPDATE intents SET kind = 'end_key', stage = 'end', state = 'given_up', error = 'Refused.', "
            "data = json_set(data, '$.key_ids', json('[]'), '$.leaked', json('false')) WHERE id = ?",
            [intent],
        )
    assert cli("admin", "intents", *at).out.count("Refused.") == 1
    (listed,) = ok(cli("admin", "intents", *at, "--json"))["intents"]
    assert (listed["id"], listed["state"], listed["credential_id"]) == (intent, "given_up", credential)
    checks = {check["check"]: check["state"] for check in cli("doctor", *at, "--json").json}
    assert checks["changes"] == "warning"

    assert cli("admin", "retry", intent, *at).code == 0
    eventually(
        lambda: ok(cli("admin", "intents", *at, "--json")) == {"intents": []}, "the keeper finishes it"
    )
    assert cli("admin", "retry", intent, *at).code == 5
    assert cli("admin", "retry", "no-such-intent", *at).code == 3


def test_the_doctor_finds_a_running_server_healthy(cli: Shell, server: Server) -> None:
    done = cli("doctor", "--data-dir", server.data_dir, "--json")
    states = {check["check"]: check["state"] for check in done.json}
    assert done.code == 0, done.out
    assert "failed" not in states.values()
    assert {
        "file modes",
        "isolation",
        "records",
        "identity database",
        "vault",
        "identity provider",
        "clock",
    } <= set(states)
    assert states["server"] == "ok"


def test_records_are_rewrapped_backed_up_and_restored(cli: Shell, server: Server, tmp_path: Path) -> None:
    at = ("--data-dir", server.data_dir)
    assert ok(cli("vault", "rewrap", *at, "--json"))["finished"] is True
    with closing(sqlite3.connect(server.data_dir / "records.db")) as records:
        query = (
            "SELECT actor, json_extract(details, '$.stage') FROM audit_events WHERE action = 'vault:rewrap'"
        )
        assert records.execute(query).fetchall() == [("operator", "begun"), ("operator", "done")]
    backup = tmp_path / "backup.tar"
    assert ok(cli("backup", backup, *at, "--json"))["bytes"] > 0
    restored = tmp_path / "elsewhere" / "data"
    assert cli("restore", backup, "--data-dir", restored, stdin="n\n").code == 130
    assert not restored.exists()
    assert ok(cli("restore", backup, "--data-dir", restored, "--yes", "--json"))["data_dir"] == str(restored)


def test_a_grant_is_given_seen_and_ended(signed_in: Shell, server: Server) -> None:
    cli = signed_in
    config = ("--data-dir", server.data_dir, "--config", server.directory / "taskcred.toml")
    name = f"books-{secrets.token_hex(4)}"
    made = ok(cli("admin", "service", "create", name, "--tasks", "long,fail", "--json", *config))
    give = ("grant", "give", "--service", made["client_id"], "--task", "long", "--days", "30")
    refused = cli(*give, stdin="n\n")
    assert (refused.code, made["client_id"] in refused.err) == (130, True)
    assert cli("grant", "list").err == "You have given no grants.\n"
    given = ok(cli(*give, "--task", "fail", "--yes", "--json"))
    assert (given["state"], given["tasks"]) == ("active", ["fail", "long"])
    assert name in cli("grant", "list").out
    assert "fail, long" in cli("grant", "show", given["id"]).out
    ended = cli("grant", "end", given["id"], stdin="y\n")
    assert ended.code == 0, ended.err
    assert "ended, withdrawn by you" in ended.out
    assert cli("grant", "give", "--service", str(uuid.uuid4()), "--task", "long", "--yes").code == 3
