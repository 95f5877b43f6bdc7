"""`taskcred login` with a browser elsewhere (RFC 8628), against a real server."""

from __future__ import annotations

import re
import secrets
import subprocess
import sys
from collections.abc import Iterator

import httpx
import pytest

from tests.functional.cli.conftest import Done, Shell
from tests.support.server import Form, Person, Server


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("device"))
    server.start()
    yield server
    server.stop()


@pytest.fixture
def person(server: Server) -> Person:
    name = secrets.token_hex(6)
    return server.create_person(f"{name}@example.com", account=name)


def log_in(
    cli: Shell, server: Server, person: Person, *flags: str, answer: str = "allow", **environment: str
) -> Done:
    """`taskcred login`, and a browser on another device that types the code and answers."""
    process = subprocess.Popen(
        [sys.executable, "-m", "taskcred", "login", *flags],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=cli.environment | {"TASKCRED_DATA_DIR": str(server.data_dir)} | environment,
        cwd=cli.home,
    )
    assert process.stderr is not None
    said = ""
    for line in process.stderr:
        said += line
        if line.startswith("Waiting"):
            break
    page = re.search(r"http\S+/identity/device\b(?!\?)", said)
    code = re.search(r"^  ([B-Z]{4}-[B-Z]{4})$", said, flags=re.MULTILINE)
    assert page, said
    assert code, said
    assert f"{page[0]}?user_code={code[1]}" in said
    with httpx.Client(verify=server.verify) as browser:
        _submit(browser, browser.get(page[0]), user_code=code[1])
        question = _submit(browser, browser.get(page[0]), user_code=code[1])
        done = _submit(
            browser,
            question,
            answer=answer,
            email=person.email,
            password=person.password if answer == "allow" else "",
        )
    assert done.status_code == 200, done.text
    out, err = process.communicate(timeout=60)
    return Done(process.returncode, out, said + err)


def _submit(browser: httpx.Client, page: httpx.Response, **fields: str) -> httpx.Response:
    form = Form.first(page.text)
    form.fields |= fields
    return browser.post(str(page.url.join(form.action)), data=form.fields)


@pytest.mark.parametrize(
    ("flags", "environment"),
    [
        (("--device",), {"DISPLAY": ":0"}),
        ((), {}),
        ((), {"DISPLAY": ":0", "SSH_CONNECTION": "192.0.2.1 22 192.0.2.2 22"}),
    ],
    ids=["asked for", "no display", "over ssh"],
)
def test_a_person_signs_in_with_a_browser_elsewhere(
    cli: Shell, server: Server, person: Person, flags: tuple[str, ...], environment: dict[str, str]
) -> None:
    done = log_in(cli, server, person, *flags, **environment)
    assert done.code == 0, done.err
    said = f"Signed in at {server.url} as {person.email}, account {person.account_id}.\n"
    assert done.out == said
    # It is a person's sign-in, fresh enough to make a key.
    assert cli("key", "create", "--generate").code == 0
    assert cli("run", "list", "--json").json == []


def test_a_denial_is_said_in_a_sentence(cli: Shell, server: Server, person: Person) -> None:
    done = log_in(cli, server, person, "--device", "--json", answer="deny")
    assert done.code == 4
    assert done.problem["error"]["message"] == "The sign-in was denied on the page."
    assert not (cli.home / "config" / "taskcred" / "login.json").exists()
