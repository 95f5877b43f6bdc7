"""The token endpoint, the published keys, discovery."""

from __future__ import annotations

from datetime import timedelta

import pytest
from joserfc import jwt
from joserfc.jwk import KeySet

from taskcred.testing import Failure
from tests.functional.iam.conftest import GRANT_API_KEY, Room


def claims_of(room: Room, token: str) -> dict[str, object]:
    """The claims, checked the way a stranger checks them: with the published keys."""
    keys = KeySet.import_key_set(room.http.get("/identity/keys").json())
    return jwt.decode(token, keys, algorithms=["ES256"]).claims


def test_a_users_key_becomes_a_token_with_ibms_claims(room: Room) -> None:
    answer = room.exchange(room.member.api_key.reveal())
    assert answer.status_code == 200
    body = answer.json()
    now = int(room.clock.now().timestamp())
    assert body | {"access_token": ""} == {
        "access_token": "",
        "refresh_token": "not_supported",
        "token_type": "Bearer",
        "expires_in": 3600,
        "expiration": now + 3600,
        "scope": "ibm openid",
    }
    claims = claims_of(room, body["access_token"])
    realm, _, identifier = room.member.iam_id.partition("-")
    expected = {
        "iam_id": room.member.iam_id,
        "id": room.member.iam_id,
        "realmid": realm,
        "identifier": identifier,
        "sub": "max@example.com",
        "email": "max@example.com",
        "name": "Max",
        "account": {"valid": True, "bss": room.account_id},
        "iat": now,
        "exp": now + 3600,
        "iss": f"{room.url}/identity",
        "grant_type": GRANT_API_KEY,
        "scope": "ibm openid",
        "client_id": "default",
    }
    assert {name: claims[name] for name in expected} == expected
    assert "auth_time" not in claims  # no person was there


def test_a_service_ids_token_says_so(room: Room) -> None:
    with room.operator() as operator:
        made = operator.create_service_id(account="Acme", name="nightly", with_api_key=True)
    claims = claims_of(room, room.token(made))
    assert claims["iam_id"].startswith("iam-ServiceId-")
    assert claims["sub_type"] == "ServiceId"
    assert claims["realmid"] == "iam"
    assert claims["sub"] == claims["identifier"] == claims["iam_id"].removeprefix("iam-")


def test_grant_parameters_may_stand_in_the_query(room: Room) -> None:
    answer = room.http.post(
        "/identity/token", params={"grant_type": GRANT_API_KEY, "apikey": room.member.api_key.reveal()}
    )
    assert answer.status_code == 200


def test_ibms_public_client_is_welcome(room: Room) -> None:
    answer = room.exchange(room.member.api_key.reveal(), auth=("bx", "bx"))
    assert claims_of(room, answer.json()["access_token"])["client_id"] == "bx"


def test_an_unknown_key_gets_ibms_refusal(room: Room) -> None:
    answer = room.exchange("no-such-key-" * 4)
    assert answer.status_code == 400
    body = answer.json()
    assert body["errorCode"] == "BXNIM0415E"
    assert body["errorMessage"] == "Provided API key could not be found."
    assert body["context"]["requestId"] == answer.headers["transaction-id"]
    assert {"error", "message"}.isdisjoint(body)
    assert answer.headers["Cache-Control"] == "no-cache, no-store, must-revalidate"
    assert answer.headers["Content-Language"] == "en-US"


@pytest.mark.parametrize(
    ("form", "code"),
    [
        ({}, "BXNIM0109E"),
        ({"grant_type": ""}, "BXNIM0109E"),
        ({"grant_type": GRANT_API_KEY}, "BXNIM0109E"),
        ({"grant_type": "urn:ibm:params:oauth:grant-type:cr-token", "cr_token": "x"}, "BXNIM0106E"),
        ({"grant_type": "urn:ibm:params:oauth:grant-type:assume", "access_token": "x"}, "BXNIM0106E"),
        ({"grant_type": "password", "username": "ada@example.com"}, "BXNIM0106E"),
        ({"grant_type": "refresh_token", "refresh_token": "x", "client_id": "bx"}, "BXNIM0407E"),
        ({"grant_type": "authorization_code"}, "BXNIM0109E"),
        ({"grant_type": GRANT_API_KEY, "apikey": "\x00\ud7ff\uffff" * 20}, "BXNIM0415E"),
    ],
)
def test_a_bad_token_request_is_refused_in_ibms_words(room: Room, form: dict[str, str], code: str) -> None:
    answer = room.http.post("/identity/token", data=form)
    assert (answer.status_code, answer.json()["errorCode"]) == (400, code)


@pytest.mark.parametrize(
    "header",
    ["Basic", "Basic %%%", "Basic dGFza2NyZWQ6d3Jvbmc=", "Basic /////w==", "Basic bm9ib2R5Ong="],
)
def test_a_client_that_is_not_one_is_refused(room: Room, header: str) -> None:
    answer = room.http.post(
        "/identity/token",
        data={"grant_type": GRANT_API_KEY, "apikey": room.member.api_key.reveal()},
        headers={"Authorization": header},
    )
    if header == "Basic":  # no credentials at all: nobody presented themselves
        assert answer.status_code == 200
    else:
        assert answer.status_code == 401
        assert answer.headers["WWW-Authenticate"].startswith("Basic ")


def test_bytes_that_are_no_form_are_refused_quietly(room: Room) -> None:
    answer = room.http.post(
        "/identity/token",
        content=b"grant_type=%ff%fe&apikey=\xff\xfe\x00",
        headers={"Content-Type": "application/x-www-form-urlencoded"},
    )
    assert answer.status_code == 400


def test_a_huge_form_is_refused(room: Room) -> None:
    answer = room.exchange("x" * 600_000)
    assert answer.status_code == 413
    assert answer.json()["errorCode"]


def test_a_wrong_method_is_named(room: Room) -> None:
    answer = room.http.get("/identity/token")
    assert (answer.status_code, answer.json()["errorCode"]) == (405, "BXNIM0060E")
    assert "POST" in answer.headers["Allow"]


def test_a_key_stops_at_its_expiry_to_the_second(room: Room) -> None:
    until = room.clock.now() + timedelta(minutes=10)
    with room.as_(room.member) as http:
        key = http.post(
            "/v1/apikeys",
            json={"name": "short", "iam_id": room.member.iam_id, "expires_at": until.isoformat()},
        ).json()
    room.clock.advance(timedelta(minutes=10, seconds=-1))
    assert room.exchange(key["apikey"]).status_code == 200
    room.clock.advance(timedelta(seconds=1))
    assert room.exchange(key["apikey"]).json()["errorCode"] == "BXNIM0415E"


def test_uses_are_counted_and_shown_as_activity(room: Room) -> None:
    with room.as_(room.member) as http:
        key = http.post("/v1/apikeys", json={"name": "n", "iam_id": room.member.iam_id}).json()
        for _ in range(3):
            assert room.exchange(key["apikey"]).status_code == 200
        shown = http.get(f"/v1/apikeys/{key['id']}", params={"include_activity": "true"}).json()
    assert shown["activity"] == {"authn_count": 3, "last_authn": f"{room.clock.now():%Y-%m-%dT%H:%M}+0000"}


def test_discovery_tells_where_everything_is(room: Room) -> None:
    answer = room.http.get("/identity/.well-known/openid-configuration")
    document = answer.json()
    issuer = f"{room.url}/identity"
    assert document["issuer"] == issuer
    assert document["authorization_endpoint"] == f"{issuer}/authorize"
    assert document["token_endpoint"] == f"{issuer}/token"
    assert document["jwks_uri"] == f"{issuer}/keys"
    assert document["code_challenge_methods_supported"] == ["S256"]
    assert "max-age" in answer.headers["Cache-Control"]


def test_published_keys_hold_no_private_part(room: Room) -> None:
    keys = room.http.get("/identity/keys").json()["keys"]
    assert [key["kty"] for key in keys] == ["EC"]
    assert {"kid", "use", "alg", "crv", "x", "y"} <= keys[0].keys()
    assert "d" not in keys[0]


def test_a_sealed_vault_is_503_and_says_later(room: Room) -> None:
    room.vault.script("open", Failure.REFUSE, None)
    answer = room.exchange(room.member.api_key.reveal())
    assert answer.status_code == 503
    assert answer.headers["Retry-After"]
    room.vault.recover()
    assert room.exchange(room.member.api_key.reveal()).status_code == 200


def test_a_bug_is_answered_with_an_id_and_no_text(room: Room) -> None:
    canary = room.member.api_key.reveal()
    room.iam.exchange.subject_of = lambda api_key: 1 / len(api_key.reveal()[:0])  # type: ignore[method-assign]  # a bug, made on purpose
    answer = room.exchange(canary)
    assert answer.status_code == 500
    assert canary not in answer.text
    assert answer.json()["context"]["requestId"]
