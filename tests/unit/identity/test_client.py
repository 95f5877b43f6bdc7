"""The client against answers that a well-behaved IAM does not give: no network, a transport that plays them."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from joserfc.jwk import ECKey, RSAKey

from taskcred.domain import keytext
from taskcred.domain.secret import Secret
from taskcred.errors import (
    InvalidTokenError,
    KeyRefusedError,
    ProviderRefusedError,
    UnavailableError,
    UpstreamUnavailableError,
)
from taskcred.identity.client import IamClient
from taskcred.testing import FrozenClock

URL = "https://iam.test"
KEY = keytext.new_key(keytext.USER_KEY_PREFIX)
Answer = Callable[[httpx.Request], httpx.Response]


class Provider:
    """Publishes keys, signs tokens, and answers everything else as `answer` says."""

    def __init__(self) -> None:
        self.clock = FrozenClock()
        self.keys: dict[str, Any] = {}
        self.key_fetches = 0
        self.answer: Answer = lambda _request: httpx.Response(404)
        self.answer_keys: Answer = lambda _request: httpx.Response(200, json=self.jwks())
        self.add_key("one")

    def add_key(self, kid: str) -> None:
        self.keys[kid] = ec.generate_private_key(ec.SECP256R1())

    def jwks(self) -> dict[str, Any]:
        return {
            "keys": [
                {**ECKey.import_key(key.public_key()).as_dict(), "kid": kid}
                if isinstance(key, ec.EllipticCurvePrivateKey)
                else {**RSAKey.import_key(key.public_key()).as_dict(), "kid": kid}
                for kid, key in self.keys.items()
            ]
        }

    def token(self, kid: str = "one", *, key: Any = None, algorithm: str = "ES256", **changed: Any) -> str:
        now = int(self.clock.now().timestamp())
        claims = {
            "iam_id": "IBMid-1",
            "account": {"bss": "a"},
            "iss": f"{URL}/identity",
            "iat": now,
            "exp": now + 3600,
            **changed,
        }
        return jwt.encode(
            claims, self.keys[kid] if key is None else key, algorithm=algorithm, headers={"kid": kid}
        )

    def handle(self, request: httpx.Request) -> httpx.Response:
        if request.url.path == "/identity/keys":
            self.key_fetches += 1
            return self.answer_keys(request)
        return self.answer(request)

    def client(self, permits: int = 4) -> IamClient:
        client = IamClient(
            URL,
            client_id="taskcred",
            client_secret=Secret("client-secret"),
            clock=self.clock,
            timeout=timedelta(seconds=5),
            permits=permits,
        )
        client._upstream._client = httpx.Client(base_url=URL, transport=httpx.MockTransport(self.handle))
        return client


@pytest.fixture
def provider() -> Provider:
    return Provider()


def refusal(status: int, code: str, message: str = "No.") -> httpx.Response:
    return httpx.Response(status, json={"errorCode": code, "errorMessage": message})


def always(response: httpx.Response) -> Answer:
    return lambda _request: response


@pytest.mark.parametrize("code", ["BXNIM0415E", "BXNIM0106E", "BXNIM9999E"])
@pytest.mark.parametrize("status", [400, 403, 404])
def test_a_refusal_in_ibms_words_refuses_the_key(provider: Provider, status: int, code: str) -> None:
    provider.answer = always(refusal(status, code))
    with pytest.raises(KeyRefusedError) as refused:
        provider.client().exchange(KEY, for_run=True)
    assert code in refused.value.message
    assert KEY.reveal() not in refused.value.message


@pytest.mark.parametrize(
    "response",
    [
        refusal(401, "BXNIM0106E"),  # our client secret
        refusal(400, "BXNIM0109E"),  # our request lacks something
    ],
)
def test_our_own_mistakes_never_refuse_the_key(provider: Provider, response: httpx.Response) -> None:
    provider.answer = always(response)
    with pytest.raises(ProviderRefusedError):
        provider.client().exchange(KEY, for_run=True)


@pytest.mark.promise("never-interrupted")
@pytest.mark.parametrize(
    "response",
    [
        httpx.Response(500, json={"errorCode": "BXNIM0415E", "errorMessage": "not really"}),
        httpx.Response(503, text="<!DOCTYPE html>"),
        httpx.Response(429, json={}),
        httpx.Response(404, text="nginx"),
        httpx.Response(403, json={"message": "a proxy says no"}),
        httpx.Response(400, json=["errorCode"]),
        httpx.Response(302, headers={"Location": "https://elsewhere.test/"}),
        httpx.Response(200, text="<html>captive portal</html>"),
        httpx.Response(200, json={"no": "token"}),
        httpx.Response(200, json={"access_token": 7}),
        httpx.Response(200, json={"access_token": "opaque"}),
        httpx.Response(200, json=[]),
        httpx.Response(204),
    ],
)
def test_whatever_else_answers_is_the_provider_being_away(
    provider: Provider, response: httpx.Response
) -> None:
    provider.answer = always(response)
    with pytest.raises(UpstreamUnavailableError) as away:
        provider.client().exchange(KEY, for_run=True)
    assert away.value.hint
    assert KEY.reveal() not in str(away.value)


@pytest.mark.parametrize(
    "error",
    [httpx.ConnectError("x"), httpx.ReadTimeout("x"), httpx.RemoteProtocolError("x"), httpx.ReadError("x")],
)
def test_no_answer_is_the_provider_being_away(provider: Provider, error: httpx.HTTPError) -> None:
    def fail(_request: httpx.Request) -> httpx.Response:
        raise error

    provider.answer = fail
    with pytest.raises(UpstreamUnavailableError):
        provider.client().exchange(KEY, for_run=True)


@pytest.mark.parametrize(
    ("header", "seconds"), [("7", 7), ("0", 1), ("99999", 300), ("Wed, 21 Oct 2026", 2), ("", 2)]
)
def test_the_wait_a_provider_asks_for_is_passed_on_within_reason(
    provider: Provider, header: str, seconds: int
) -> None:
    provider.answer = always(httpx.Response(429, headers={"Retry-After": header}))
    with pytest.raises(UpstreamUnavailableError) as away:
        provider.client().exchange(KEY, for_run=True)
    assert away.value.retry_after == seconds


def test_only_exchanges_for_runs_say_who_we_are(provider: Provider) -> None:
    seen: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(200, json={"access_token": provider.token()})

    provider.answer = answer
    client = provider.client()
    client.exchange(KEY, for_run=True)
    client.exchange(KEY, for_run=False)
    assert seen[0].headers["Authorization"].startswith("Basic ")
    assert "Authorization" not in seen[1].headers
    # A key belongs into the body: addresses end up in logs.
    assert all(KEY.reveal() not in str(request.url) for request in seen)


def test_what_the_provider_says_is_told_unless_it_repeats_the_key(provider: Provider) -> None:
    sentences = ["The limit of 20 keys is reached.", f"The value {KEY.reveal()} is in use."]
    told = []
    for sentence in sentences:
        body = {
            "errors": [{"code": "c", "message_code": "BXNIM0106E", "message": sentence}],
            "status_code": 409,
        }
        provider.answer = always(httpx.Response(409, json=body))
        with pytest.raises(ProviderRefusedError) as refused:
            provider.client().create_key(
                Secret("token"), name="n", iam_id="i", account_id="a", value=KEY, expires_at=None
            )
        assert refused.value.status == 409
        told.append(refused.value.message)
    assert sentences[0] in told[0]
    assert KEY.reveal() not in told[1]


@pytest.mark.parametrize("text", ["line\nbreak", "tab\tstop", "não", "a\r\nX-Evil: 1"])
def test_a_key_that_no_header_carries_is_not_sent(provider: Provider, text: str) -> None:
    def never(request: httpx.Request) -> httpx.Response:
        raise AssertionError(f"sent {request.url}")

    provider.answer = never
    with pytest.raises(KeyRefusedError):
        provider.client().key_details(Secret(text), Secret("token"))


def test_a_key_id_cannot_lead_to_another_route(provider: Provider) -> None:
    seen: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request.url.raw_path.decode())
        return httpx.Response(204)

    provider.answer = answer
    provider.client().delete_key(Secret("token"), "../serviceids/x?y")
    assert seen == ["/v1/apikeys/..%2Fserviceids%2Fx%3Fy"]


@pytest.mark.parametrize(
    "body",
    [{}, {"id": "k"}, {"id": "k", "name": "n", "iam_id": "i", "account_id": "a", "created_at": "today"}],
)
def test_a_key_described_oddly_is_the_provider_being_away(provider: Provider, body: dict[str, str]) -> None:
    provider.answer = always(httpx.Response(200, json=body))
    with pytest.raises(UpstreamUnavailableError):
        provider.client().key_details(KEY, Secret("token"))


def test_beyond_the_bulkhead_a_call_is_refused_at_once(provider: Provider) -> None:
    is_in, may_go = threading.Barrier(3), threading.Event()

    def hang(_request: httpx.Request) -> httpx.Response:
        is_in.wait(10)
        may_go.wait(10)
        return httpx.Response(204)

    provider.answer = hang
    client = provider.client(permits=2)
    threads = [threading.Thread(target=client.delete_key, args=(Secret("t"), "k")) for _ in range(2)]
    for thread in threads:
        thread.start()
    is_in.wait(10)  # both permits are taken
    with pytest.raises(UpstreamUnavailableError, match="as are allowed"):
        client.delete_key(Secret("t"), "k")
    may_go.set()
    for thread in threads:
        thread.join()
    provider.answer = always(httpx.Response(204))
    client.delete_key(Secret("t"), "k")  # the permits are back


def test_a_failed_call_gives_its_permit_back(provider: Provider) -> None:
    provider.answer = always(httpx.Response(500))
    client = provider.client(permits=1)
    for _ in range(3):
        with pytest.raises(UpstreamUnavailableError, match="busy or ill"):
            client.delete_key(Secret("t"), "k")


def test_a_provider_in_this_process_has_no_bulkhead() -> None:
    client = IamClient(
        URL,
        client_id="taskcred",
        client_secret=Secret("s"),
        clock=FrozenClock(),
        timeout=timedelta(seconds=1),
        permits=1,
        app=lambda _environ, _start: [],
    )
    assert client._upstream._bulkhead is None
    client.close()


def test_forged_and_foreign_tokens_are_refused(provider: Provider) -> None:
    client = provider.client()
    client.verify(provider.token())
    forged = [
        provider.token(key=ec.generate_private_key(ec.SECP256R1())),
        provider.token(iss="https://iam.test/identity/"),
        provider.token(iss="https://elsewhere.test/identity"),
        provider.token(key=os.urandom(32), algorithm="HS256"),
        provider.token(key="", algorithm="none"),
        provider.token(exp=int(provider.clock.now().timestamp())),
        provider.token(iat=int(provider.clock.now().timestamp()) + 120),
        provider.token(nbf=int(provider.clock.now().timestamp()) + 120),
        provider.token(nbf="soon"),
        provider.token(exp="late"),
        provider.token(account={}),
        provider.token(iam_id=""),
    ]
    for raw_token in forged:
        with pytest.raises(InvalidTokenError):
            client.verify(raw_token)


def test_tokens_of_ibms_kind_verify_too(provider: Provider) -> None:
    provider.keys["rsa"] = rsa.generate_private_key(65537, 2048)
    assert provider.client().verify(provider.token("rsa", algorithm="RS256")).iam_id == "IBMid-1"


def test_a_new_signing_key_is_found(provider: Provider) -> None:
    client = provider.client()
    client.verify(provider.token())
    provider.add_key("two")
    provider.clock.advance(timedelta(seconds=11))
    client.verify(provider.token("two"))
    assert provider.key_fetches == 2


def test_invented_key_ids_do_not_flood_the_provider(provider: Provider) -> None:
    client = provider.client()
    client.verify(provider.token())
    stranger = ec.generate_private_key(ec.SECP256R1())
    for number in range(50):
        with pytest.raises(InvalidTokenError):
            client.verify(provider.token(f"invented-{number}", key=stranger))
    assert provider.key_fetches == 1
    provider.clock.advance(timedelta(seconds=11))
    for number in range(50):
        with pytest.raises(InvalidTokenError):
            client.verify(provider.token(f"invented-{number}", key=stranger))
    assert provider.key_fetches == 2


@pytest.mark.promise("never-interrupted")
def test_known_keys_serve_on_while_the_provider_is_away(provider: Provider) -> None:
    client = provider.client()
    client.verify(provider.token())
    provider.answer_keys = always(httpx.Response(503))
    provider.clock.advance(timedelta(minutes=16))  # the keys are old by now
    client.verify(provider.token())
    assert provider.key_fetches == 2
    with pytest.raises(UnavailableError):
        client.check()


def test_a_withdrawn_key_is_forgotten(provider: Provider) -> None:
    client = provider.client()
    provider.add_key("two")
    raw_token = provider.token()
    client.verify(raw_token)
    del provider.keys["one"]
    provider.clock.advance(timedelta(minutes=16))
    with pytest.raises(InvalidTokenError):
        client.verify(raw_token)


@pytest.mark.parametrize(
    "answer",
    [
        httpx.Response(503),
        httpx.Response(200, json={}),
        httpx.Response(200, json={"keys": "none"}),
        httpx.Response(200, json={"keys": []}),
        httpx.Response(200, json={"keys": [{"kty": "EC"}]}),
    ],
)
def test_without_any_key_a_token_is_neither_good_nor_bad(provider: Provider, answer: httpx.Response) -> None:
    provider.answer_keys = always(answer)
    client = provider.client()
    with pytest.raises(UpstreamUnavailableError):
        client.verify(provider.token())
    with pytest.raises(UpstreamUnavailableError):
        client.verify(provider.token())
    assert provider.key_fetches == 1  # not asked again within a second
    provider.answer_keys = lambda _request: httpx.Response(200, json=provider.jwks())
    provider.clock.advance(timedelta(seconds=2))
    client.verify(provider.token())


def test_every_failure_of_the_http_library_is_translated() -> None:
    """A new release may add classes: all of them must stay under what `upstream` catches."""
    raised = [
        getattr(httpx, name)
        for name in httpx.__all__
        if isinstance(getattr(httpx, name), type) and issubclass(getattr(httpx, name), Exception)
    ]
    # Mistakes in using the library, which no answer of a provider can cause.
    ours = (httpx.CookieConflict, httpx.StreamError)
    stray = [kind for kind in raised if not issubclass(kind, (httpx.HTTPError, httpx.InvalidURL, *ours))]
    assert stray == []


@pytest.mark.promise("empty-means-no")
@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_refusal_lets_nobody_act_for_a_service_id(provider: Provider, status: int) -> None:
    provider.answer = always(refusal(status, "BXNIM0102E"))
    assert provider.client().may_act(KEY, "iam-ServiceId-1") is None
    assert provider.client().acts_for(KEY) == []


@pytest.mark.promise("empty-means-no")
@pytest.mark.parametrize(
    "response",
    [
        httpx.Response(200, json={}),
        httpx.Response(200, json={"service_ids": None}),
        httpx.Response(200, json={"service_ids": ["iam-ServiceId-1"]}),
        httpx.Response(200, text="yes"),
        httpx.Response(404, text="nginx"),
        httpx.Response(500, json={"errorCode": "BXNIM0001E", "errorMessage": "No."}),
    ],
)
def test_what_is_no_answer_lets_nobody_act_either(provider: Provider, response: httpx.Response) -> None:
    provider.answer = always(response)
    for ask in (lambda: provider.client().may_act(KEY, "x"), lambda: provider.client().acts_for(KEY)):
        with pytest.raises(UnavailableError):
            ask()


def test_the_name_of_a_service_id_stays_one_part_of_the_path(provider: Provider) -> None:
    asked: list[bytes] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request.url.raw_path)
        return refusal(404, "BXNIM0102E")

    provider.answer = answer
    assert provider.client().may_act(KEY, "a/b?c#d") is None
    assert asked == [b"/identity/act-for/a%2Fb%3Fc%23d"]
