"""Who a program is and where its server is: arguments, else the environment; and what is wrong is said."""

from __future__ import annotations

import json
from base64 import b64decode
from pathlib import Path
from typing import Any

import pytest

from taskcred.client import errors
from taskcred.client.settings import Settings, settings

URL = "https://taskcred.example.org"


def read(environment: dict[str, str] | None = None, **given: Any) -> Settings:
    arguments = dict.fromkeys(
        ("url", "client_id", "client_secret", "access_token", "workload_token_file", "ca_file")
    )
    return settings(**{**arguments, "timeout": 10.0, **given, "environment": environment or {}})


def who(found: Settings) -> str:
    """The scheme and the credentials of a request."""
    scheme, _, text = found.connection.credentials()["Authorization"].partition(" ")
    return f"{scheme} {b64decode(text).decode() if scheme == 'Basic' else text}"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """What `taskcred admin service create --file` writes."""
    path = tmp_path / "service.json"
    path.touch(mode=0o600)
    path.write_text(json.dumps({"url": f"{URL}/", "client_id": "c", "client_secret": "s"}))
    return path


def test_a_service_file_is_enough(file: Path) -> None:
    found = read({"TASKCRED_SERVICE_FILE": str(file)})
    assert (found.connection.url, found.client_id, who(found)) == (URL, "c", "Basic c:s")
    elsewhere = read({"TASKCRED_SERVICE_FILE": str(file), "TASKCRED_URL": "http://other"})
    assert elsewhere.connection.url == "http://other"
    assert "credentials" not in repr(found)


def test_id_and_secret_may_come_apart(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("s2\n")
    environment = {
        "TASKCRED_URL": URL,
        "TASKCRED_CLIENT_ID": "c2",
        "TASKCRED_CLIENT_SECRET_FILE": str(secret),
    }
    assert who(read(environment)) == "Basic c2:s2"
    assert who(read(environment, client_id="c3", client_secret="s3")) == "Basic c3:s3"


def test_a_workloads_token_is_read_anew_each_time(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("first")
    found = read({"TASKCRED_URL": URL, "TASKCRED_WORKLOAD_TOKEN_FILE": str(token), "TASKCRED_CLIENT_ID": "c"})
    assert (who(found), found.client_id) == ("Bearer first", "c")
    token.write_text("second\n")
    assert who(found) == "Bearer second"


def test_an_access_token_may_be_a_function() -> None:
    tokens = iter(["one", "two"])
    found = read(url=URL, access_token=lambda: next(tokens))
    assert (who(found), who(found)) == ("Bearer one", "Bearer two")


@pytest.mark.parametrize("wrong", ["a-secret-text\r\nX: y", "a-secret-t\u00e9xt", "", " \n"])
def test_what_no_header_carries_is_refused_without_its_text(wrong: str) -> None:
    with pytest.raises(errors.ConfigurationError) as refused:
        who(read(url=URL, access_token=wrong))
    assert "a-secret" not in repr(refused.value) + str(refused.value.__cause__)
    assert who(read(url=URL, access_token="from-a-file\n")) == "Bearer from-a-file"


def test_a_password_in_the_url_is_not_repeated() -> None:
    with pytest.raises(errors.ConfigurationError) as refused:
        read(url="https://me:a-secret-text@taskcred.example.org", access_token="t")
    assert "a-secret-text" not in str(refused.value)


@pytest.mark.parametrize(
    ("environment", "given"),
    [
        ({}, {"url": URL}),
        ({}, {"client_id": "c", "client_secret": "s"}),
        ({}, {"url": URL, "client_secret": "s"}),
        ({}, {"url": URL, "client_id": "c", "client_secret": "s", "access_token": "t"}),
        ({}, {"url": "taskcred.example.org", "access_token": "t"}),
        ({"TASKCRED_SERVICE_FILE": "/no/such/file"}, {}),
        ({"TASKCRED_URL": URL, "TASKCRED_CLIENT_SECRET_FILE": "/no/such/file"}, {}),
    ],
)
def test_what_is_missing_or_wrong_is_said(environment: dict[str, str], given: dict[str, Any]) -> None:
    with pytest.raises(errors.ConfigurationError) as refused:
        read(environment, **given)
    assert refused.value.hint


def test_a_service_file_that_others_can_read_is_refused(file: Path) -> None:
    file.chmod(0o604)
    with pytest.raises(errors.ConfigurationError) as refused:
        read({"TASKCRED_SERVICE_FILE": str(file)})
    assert "chmod 600" in refused.value.hint


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"client_id": "c"}', "\xff"])
def test_a_service_file_that_is_none_is_refused(file: Path, text: str) -> None:
    file.write_bytes(text.encode("latin-1"))
    with pytest.raises(errors.ConfigurationError, match="not a service file"):
        read({"TASKCRED_SERVICE_FILE": str(file)})
