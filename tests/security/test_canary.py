"""A user's key is found nowhere but in the vault's ciphertext, and nothing of it leaks on the way.

A canary key goes through everything a key goes through; then every file, answer, page, metric and log line
is searched for it: as it is, URL-encoded, base64 at each of the three alignments, hex, and in part.
"""

from __future__ import annotations

import base64
import secrets
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote_plus

import pytest

from tests.support.server import Server, eventually

CONFIG = """
[log]
level = "debug"

[tasks.tell]
kind = "command"
argv = ["sh", "-c", "env; cat /proc/self/environ /proc/*/environ /proc/*/cmdline 2>/dev/null | tr '\\\\0' '\\\\n'; exit 0"]
"""


def traces_of(key: str) -> list[bytes]:
    """Forms in which the key, or most of it, would show."""
    raw = key.encode()
    forms = [raw, raw[4:40], raw.hex().encode(), quote_plus(key).encode()]
    for shift in range(3):
        encoded = base64.b64encode(b"x" * shift + raw)
        forms.append(encoded[4 * (shift > 0) : -4])  # the part that does not depend on its neighbours
    return forms


def search(name: str, content: bytes, forms: list[bytes]) -> list[str]:
    return [f"{name}: form {number}" for number, form in enumerate(forms) if form in content]


@pytest.mark.promise("key-stays-home")
def test_a_users_key_is_found_nowhere(start_server: Callable[..., Server]) -> None:
    server = start_server(config=CONFIG)
    person = server.create_person("canary@example.com", api_key=True)
    key = person.api_key
    assert key
    chosen = "canary/+%&" + secrets.token_urlsafe(40)  # a value that looks different in every encoding
    me = server.sign_in(person)
    made = me.request(
        "POST", "/v1/apikeys", json={"name": "chosen", "iam_id": person.iam_id, "apikey": chosen}
    )
    assert made.status_code == 201
    seen: dict[str, bytes] = {}

    def keep(name: str, method: str, path: str, **options: object) -> dict[str, object]:
        answer = me.request(method, path, **options)
        seen[f"{name} {answer.status_code}"] = answer.content + repr(answer.headers).encode()
        return answer.json() if answer.content else {}

    keep(
        "refused",
        "POST",
        "/v1/task_credentials",
        json={"name": key, "type": "wrong", "secret": {"api_key": key}},
    )
    keep(
        "unknown",
        "POST",
        "/v1/task_credentials",
        json={"name": "x", "type": "iam_api_key", "secret": {"api_key": key + "x"}},
    )
    credential = keep(
        "create",
        "POST",
        "/v1/task_credentials",
        json={"name": "x", "type": "iam_api_key", "secret": {"api_key": key}},
    )["id"]
    run = keep("run", "POST", "/v1/runs", json={"task": "tell", "parameters": {}})["id"]
    eventually(lambda: keep("runs", "GET", f"/v1/runs/{run}")["state"] == "succeeded", "the run ends")
    assert "tcs_" not in str(keep("output", "GET", f"/v1/runs/{run}/output")), (
        "a printed stand-in key is masked"
    )
    keep(
        "rotate",
        "POST",
        f"/v1/task_credentials/{credential}/rotate",
        json={"secret": {"api_key": chosen}, "drain": "now"},
    )
    with server.client() as client:
        for name, form in {"token": {"apikey": key}, "query": None, "wrong": {"apikey": key + "x"}}.items():
            client.post(
                "/identity/token", params=None if form else {"apikey": chosen, "grant_type": "x"}, data=form
            )
            seen[name] = b""
    for path in (
        "/v1/task_credentials",
        f"/v1/task_credentials/{credential}",
        f"/v1/task_credentials/{credential}/keys",
        "/v1/audit",
        "/v1/runs",
        f"/v1/runs/{run}/access",
        "/v1/prompts",
        "/metrics",
        "/readyz",
    ):
        keep(path, "GET", path) if path != "/metrics" else seen.update(
            {path: me.request("GET", path).content}
        )
    keep("delete", "DELETE", f"/v1/task_credentials/{credential}")
    server.stop()

    forms = traces_of(key) + traces_of(chosen)
    found = [hit for name, content in seen.items() for hit in search(name, content, forms)]
    files = [file for file in server.directory.rglob("*") if file.is_file()]
    assert any(file.name == "vault.db" for file in files)
    found += [
        hit
        for file in files
        for hit in search(str(file.relative_to(server.directory)), Path(file).read_bytes(), forms)
    ]
    assert found == []


def test_the_search_itself_finds_a_planted_key() -> None:
    key = "tcu_" + secrets.token_hex(24)
    forms = traces_of(key)
    for planted in (key.encode(), base64.b64encode(b"12" + key.encode() + b"3"), key.encode().hex().encode()):
        assert search("here", b"before" + planted + b"after", forms)
