"""Polling by the device grant (RFC 8628, 3.5), against a provider that a transport plays; time is counted."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from taskcred.cli import login_device
from taskcred.errors import (
    ForbiddenError,
    InvalidRequestError,
    RateLimitedError,
    TaskcredError,
    UnavailableError,
)

URL = "https://taskcred.test/identity"
PROVIDER = {login_device.ENDPOINT: f"{URL}/device_authorization", "token_endpoint": f"{URL}/token"}
ASKED = {
    "device_code": "d",
    "user_code": "BCDF-GHJK",
    "verification_uri": f"{URL}/device",
    "expires_in": 600,
    "interval": 5,
}


class Time:
    """Passes only where somebody sleeps."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.pauses: list[float] = []
        monkeypatch.setattr(time, "sleep", self.pauses.append)
        monkeypatch.setattr(time, "monotonic", lambda: sum(self.pauses))


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> Time:
    return Time(monkeypatch)


def error(name: str, status: int = 400) -> httpx.Response:
    return httpx.Response(status, json={"error": name})


def lost() -> httpx.Response:
    raise httpx.ConnectTimeout("scripted")


TOKENS = httpx.Response(200, json={"access_token": "a", "expires_in": 60})


def ask(*answers: httpx.Response | Callable[[], httpx.Response], asked: Any = ASKED) -> dict[str, Any]:
    waiting: Iterator[httpx.Response | Callable[[], httpx.Response]] = iter(answers)

    def play(request: httpx.Request) -> httpx.Response:
        if request.url.path.endswith("/device_authorization"):
            return asked if isinstance(asked, httpx.Response) else httpx.Response(200, json=asked)
        answer = next(waiting, None) or error("authorization_pending")
        return answer if isinstance(answer, httpx.Response) else answer()

    with httpx.Client(transport=httpx.MockTransport(play)) as http:
        return login_device.ask_person(http, PROVIDER, "taskcred-cli", None)


def test_it_waits_the_interval_between_questions_and_longer_when_told(clock: Time) -> None:
    pending, slow = error("authorization_pending"), error("slow_down")
    assert ask(pending, slow, pending, slow, TOKENS)["access_token"] == "a"
    assert clock.pauses == [5, 5, 10, 10, 15]


def test_no_answer_makes_it_ask_less_often_until_there_is_one(clock: Time) -> None:
    away = httpx.Response(503)
    ask(lost, away, lost, lost, lost, error("authorization_pending"), TOKENS)
    assert clock.pauses == [5, 10, 20, 40, 60, 60, 5]


def test_without_an_interval_it_waits_five_seconds(clock: Time) -> None:
    ask(TOKENS, asked={name: value for name, value in ASKED.items() if name != "interval"})
    assert clock.pauses == [5]


def test_it_gives_up_when_nobody_answers_for_the_life_of_the_code(clock: Time) -> None:
    with pytest.raises(UnavailableError):
        ask(*[lost] * 1000)
    assert 600 <= sum(clock.pauses) <= 800


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("access_denied", "denied on the page"),
        ("expired_token", "Nobody signed in"),
        ("invalid_grant", "ended before it was finished"),
    ],
)
def test_each_end_is_a_sentence(name: str, said: str) -> None:
    with pytest.raises(ForbiddenError) as refused:
        ask(error("authorization_pending"), error(name))
    assert said in refused.value.message
    assert "taskcred login" in refused.value.hint


def test_a_crowd_at_the_server_is_said_with_its_time() -> None:
    crowd = httpx.Response(429, json={"error": "temporarily_unavailable"}, headers={"Retry-After": "60"})
    with pytest.raises(RateLimitedError) as refused:
        ask(asked=crowd)
    assert refused.value.retry_after == 60


@pytest.mark.parametrize(
    "answer", [httpx.Response(400), httpx.Response(404, text="x"), error("invalid_client", 401)]
)
def test_what_is_no_answer_of_this_grant_is_an_error_all_the_same(answer: httpx.Response) -> None:
    with pytest.raises(TaskcredError):
        ask(asked=answer)


def test_a_provider_without_it_says_so() -> None:
    with httpx.Client() as http, pytest.raises(InvalidRequestError) as refused:
        login_device.ask_person(http, {}, "taskcred-cli", None)
    assert "--device" in refused.value.hint
