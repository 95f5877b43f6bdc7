"""Claims, in our words."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from taskcred.errors import InvalidTokenError
from taskcred.identity.claims import access_token, auth_time, is_interactive

CLAIMS: dict[str, Any] = {
    "iam_id": "IBMid-1",
    "account": {"bss": "a"},
    "iat": 1_700_000_000,
    "exp": 1_700_003_600,
}


@pytest.mark.promise("only-what-the-user-started")
@pytest.mark.parametrize("grant_type", ["authorization_code", "passcode", "device_code"])
def test_a_persons_grants_are_interactive(grant_type: str) -> None:
    assert is_interactive({"grant_type": grant_type})


@pytest.mark.promise("only-what-the-user-started")
@pytest.mark.parametrize(
    "claims",
    [
        {},
        {"grant_type": None},
        {"grant_type": ""},
        {"grant_type": "urn:ibm:params:oauth:grant-type:apikey"},
        {"grant_type": "urn:ibm:params:oauth:grant-type:assume"},
        {"grant_type": "client_credentials"},
        {"grant_type": "password"},
        {"grant_type": "Authorization_Code"},
    ],
)
def test_everything_else_is_programmatic(claims: dict[str, Any]) -> None:
    assert not is_interactive(claims)


def test_a_token_says_whose_it_is_and_how_long() -> None:
    token = access_token("raw", CLAIMS)
    assert (token.iam_id, token.account_id) == ("IBMid-1", "a")
    assert token.issued_at == datetime.fromtimestamp(1_700_000_000, UTC)
    assert token.expires_at == datetime.fromtimestamp(1_700_003_600, UTC)
    assert "raw" not in repr(token)


@pytest.mark.parametrize("name", ["iam_id", "account", "iat", "exp"])
@pytest.mark.parametrize("value", [None, "", [], {}, {"bss": ""}, {"bss": 1}, True, -1, 1e400, 10**30])
def test_a_missing_or_odd_claim_is_refused(name: str, value: Any) -> None:
    with pytest.raises(InvalidTokenError):
        access_token("raw", {**CLAIMS, name: value})
    with pytest.raises(InvalidTokenError):
        access_token("raw", {key: kept for key, kept in CLAIMS.items() if key != name})


def test_when_a_person_proved_who_they_are() -> None:
    assert auth_time({"auth_time": 1_700_000_000}) == datetime.fromtimestamp(1_700_000_000, UTC)
    assert auth_time({}) is None
    assert auth_time({"auth_time": "yesterday"}) is None
