"""POST /identity/token as IBM's clients send it."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any
from urllib.parse import urlencode

import pytest

from taskcred.domain import keytext
from taskcred.domain.credentials import Generated
from taskcred.domain.policy import Policy, TokenPolicy
from taskcred.http.token_endpoint import Environ, StartResponse, TokenEndpoint
from taskcred.services import credentials
from taskcred.services.broker import TokenBroker

from .conftest import Attempt, World, add_attempt, end_attempt

GRANT = "urn:ibm:params:oauth:grant-type:apikey"


@dataclass
class Answer:
    status: str
    headers: dict[str, str]
    body: Any


class Iam:
    """An application behind the endpoint that remembers what reached it."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []

    def __call__(self, environ: Environ, start_response: StartResponse) -> list[bytes]:
        self.bodies.append(environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"])))
        start_response("200 OK", [("Content-Type", "application/json")])
        return [b'{"from": "iam"}']


def post(
    endpoint: TokenEndpoint, body: bytes, query: str = "", method: str = "POST", **environ: str
) -> Answer:
    """One request, as a WSGI server passes it on."""
    seen: list[Any] = []

    def start_response(status: str, headers: list[tuple[str, str]]) -> None:
        seen.extend((status, dict(headers)))

    request = {
        "REQUEST_METHOD": method,
        "PATH_INFO": "/identity/token",
        "QUERY_STRING": query,
        "CONTENT_TYPE": "application/x-www-form-urlencoded",
        "CONTENT_LENGTH": str(len(body)),
        "wsgi.input": io.BytesIO(body),
        **environ,
    }
    answer = b"".join(endpoint(request, start_response))
    assert seen[1].get("Content-Length", str(len(answer))) == str(len(answer))
    return Answer(seen[0], seen[1], json.loads(answer))


@pytest.fixture
def attempt(world: World) -> Attempt:
    created = credentials.create(world.ctx, world.owner, name="work", source=Generated())
    return add_attempt(world, created.credential.id)


@pytest.fixture
def iam() -> Iam:
    return Iam()


@pytest.fixture
def endpoint(world: World, attempt: Attempt, iam: Iam) -> TokenEndpoint:
    assert attempt
    return TokenEndpoint(TokenBroker(world.ctx), iam)


def form(**fields: str) -> bytes:
    return urlencode(fields).encode()


def test_the_body_of_ibms_sdk(world: World, endpoint: TokenEndpoint, attempt: Attempt) -> None:
    key = attempt.key.decode()
    answer = post(endpoint, form(grant_type=GRANT, apikey=key, response_type="cloud_iam"))

    assert answer.status == "200 OK"
    assert answer.headers["Content-Type"] == "application/json"
    assert "no-store" in answer.headers["Cache-Control"]
    assert set(answer.body) == {
        "access_token",
        "refresh_token",
        "token_type",
        "expires_in",
        "expiration",
        "scope",
    }
    assert answer.body["token_type"] == "Bearer"
    assert answer.body["refresh_token"] == "not_supported"
    assert answer.body["expires_in"] == 3600
    assert answer.body["expiration"] == int((world.clock.now() + timedelta(hours=1)).timestamp())
    assert world.provider.verify(answer.body["access_token"]).iam_id == world.iam_id


def test_the_other_forms_that_mean_the_same(endpoint: TokenEndpoint, attempt: Attempt, iam: Iam) -> None:
    key = attempt.key.decode()
    requests = [
        (f"apikey={key}&grant_type=urn%3Aibm%3Aparams%3Aoauth%3Agrant-type%3Aapikey".encode(), ""),
        (f"apikey={key}&grant_type={GRANT}".encode(), ""),
        (form(scope="a b", grant_type=GRANT, apikey=key), ""),
        (b"", urlencode({"grant_type": GRANT, "apikey": key})),
        (form(apikey=key), urlencode({"grant_type": GRANT})),
        (form(grant_type=GRANT) + b"&%61pikey=" + key.encode(), ""),
    ]
    for body, query in requests:
        assert post(endpoint, body, query).status == "200 OK"
    assert iam.bodies == []


def test_a_body_in_chunks_has_no_length(endpoint: TokenEndpoint, attempt: Attempt) -> None:
    body = form(grant_type=GRANT, apikey=attempt.key.decode())
    answer = post(endpoint, body, CONTENT_LENGTH="", HTTP_TRANSFER_ENCODING="chunked")
    assert answer.status == "200 OK"


@pytest.mark.parametrize(
    "body",
    [
        form(grant_type=GRANT, apikey=keytext.new_key("tcu_").reveal()),
        form(grant_type=GRANT, apikey="tcs_but-of-another-make-and-of-just-the-right-length0"),
        form(grant_type="authorization_code", code="x"),
        form(grant_type=GRANT),
        b"",
        b"\xff\xfe not a form",
    ],
)
def test_anything_else_goes_on_with_its_body_unread(endpoint: TokenEndpoint, iam: Iam, body: bytes) -> None:
    answer = post(endpoint, body)
    assert answer.body == {"from": "iam"}
    assert iam.bodies == [body]


def test_without_a_local_iam_a_key_is_unknown_and_goes_nowhere(world: World, attempt: Attempt) -> None:
    endpoint = TokenEndpoint(TokenBroker(world.ctx), None)
    answer = post(endpoint, form(grant_type=GRANT, apikey=keytext.new_key("tcu_").reveal()))
    assert (answer.status, answer.body["errorCode"]) == ("400 Bad Request", "BXNIM0415E")
    answer = post(endpoint, b"", method="GET")
    assert (answer.status, answer.body["errorCode"]) == ("405 Method Not Allowed", "BXNIM0060E")
    assert attempt


@pytest.mark.promise("dead-with-the-run")
def test_an_ended_key_is_refused_as_ibm_refuses_an_unknown_one(
    world: World, endpoint: TokenEndpoint, attempt: Attempt
) -> None:
    end_attempt(world, attempt)
    answer = post(endpoint, form(grant_type=GRANT, apikey=attempt.key.decode()))
    assert answer.status == "400 Bad Request"
    assert answer.body["errorCode"] == "BXNIM0415E"
    assert answer.body["errorMessage"] == "Provided API key could not be found."
    assert "begin another attempt" in answer.body["errorDetails"]
    assert answer.headers["transaction-id"] == answer.body["context"]["requestId"]
    assert not {"error", "message"} & set(answer.body)
    assert attempt.key.decode() not in json.dumps(answer.body)


def test_too_often_and_too_large(world: World, attempt: Attempt) -> None:
    policy = Policy(tokens=TokenPolicy(standin_rate=1, standin_burst=1))
    endpoint = TokenEndpoint(TokenBroker(replace(world.ctx, policy=policy)), None)
    body = form(grant_type=GRANT, apikey=attempt.key.decode())
    assert post(endpoint, body).status == "200 OK"
    answer = post(endpoint, body)
    assert (answer.status, answer.headers["Retry-After"]) == ("429 Too Many Requests", "1")
    assert post(endpoint, b"x" * 65537).status == "413 Content Too Large"
    chunked = post(endpoint, b"x" * 65537, CONTENT_LENGTH="", HTTP_TRANSFER_ENCODING="chunked")
    assert chunked.status == "413 Content Too Large"


def test_out_of_touch_is_a_503_that_says_when_to_come_again(
    world: World, endpoint: TokenEndpoint, attempt: Attempt
) -> None:
    body = form(grant_type=GRANT, apikey=attempt.key.decode())
    post(endpoint, body)
    world.clock.advance(timedelta(minutes=5))
    answer = post(endpoint, body)
    assert answer.status == "503 Service Unavailable"
    assert int(answer.headers["Retry-After"]) >= 1
    assert answer.body["errorCode"] == "out_of_touch"
