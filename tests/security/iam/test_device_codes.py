"""Guessing user codes (RFC 8628, 5.1), and crowding out those who sign in."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import httpx
import pytest
from flask import Flask

from taskcred.iam.app import create_app
from taskcred.iam.service import IamConfig, LocalIam
from taskcred.testing import FrozenClock, InMemoryVault, RecordingRevocations

URL = "http://taskcred.test"
PROXY, OFFICE, ELSEWHERE = "127.0.0.1", "192.0.2.7", "198.51.100.1"
WRONG = ["-".join("".join(half) for half in pair) for pair in itertools.product(["BCDF", "GHJK"], repeat=2)]


@pytest.fixture
def clock() -> FrozenClock:
    return FrozenClock()


@pytest.fixture
def app(tmp_path: Path, clock: FrozenClock) -> Iterator[Flask]:
    iam = LocalIam(
        IamConfig(tmp_path / "iam.db", f"{URL}/identity"), InMemoryVault(), clock, RecordingRevocations()
    )
    iam.prepare()
    yield create_app(iam)
    iam.close()


def at(app: Flask, address: str) -> httpx.Client:
    return httpx.Client(transport=httpx.WSGITransport(app, remote_addr=address), base_url=URL)


def ask(app: Flask, address: str) -> httpx.Response:
    with at(app, address) as program:
        return program.post("/identity/device_authorization", data={"client_id": "taskcred-cli"})


def enter(app: Flask, address: str, user_code: str) -> httpx.Response:
    with at(app, address) as browser:
        page = browser.get("/identity/device")
        token = page.text.split('name="form_token" value="')[1].split('"')[0]
        return browser.post("/identity/device", data={"form_token": token, "user_code": user_code})


def test_guesses_from_one_place_are_slowed_down_right_codes_included(app: Flask, clock: FrozenClock) -> None:
    right = ask(app, OFFICE).json()["user_code"]
    for number in range(10):
        assert enter(app, OFFICE, WRONG[number % len(WRONG)]).status_code == 422
    refused = enter(app, OFFICE, right)
    assert (refused.status_code, refused.headers["Retry-After"]) == (429, "15")
    assert "Too many wrong codes" in refused.text
    assert enter(app, ELSEWHERE, right).status_code == 200  # others are not concerned
    clock.advance(timedelta(seconds=16))
    assert enter(app, OFFICE, WRONG[0]).status_code == 422
    assert enter(app, OFFICE, right).headers["Retry-After"] == "30"  # the pause doubles


def test_guesses_from_behind_a_proxy_are_slowed_down_all_together(app: Flask, clock: FrozenClock) -> None:
    for _ in range(100):
        assert enter(app, PROXY, WRONG[0]).status_code == 422
    refused = enter(app, PROXY, WRONG[0])
    # Short, or one who guesses would keep everybody from signing in.
    assert (refused.status_code, refused.headers["Retry-After"]) == (429, "5")
    clock.advance(timedelta(seconds=5))
    assert enter(app, PROXY, ask(app, PROXY).json()["user_code"]).status_code == 200


def test_right_codes_cost_nothing(app: Flask) -> None:
    right = ask(app, OFFICE).json()["user_code"]
    for _ in range(30):
        assert enter(app, OFFICE, right).status_code == 200


def test_one_place_cannot_fill_the_waiting_room(app: Flask, clock: FrozenClock) -> None:
    for _ in range(20):
        assert ask(app, OFFICE).status_code == 200
    refused = ask(app, OFFICE)
    assert (refused.status_code, refused.json()["error"]) == (429, "temporarily_unavailable")
    assert refused.headers["Retry-After"] == "60"
    assert ask(app, ELSEWHERE).status_code == 200
    clock.advance(timedelta(minutes=10))
    assert ask(app, OFFICE).status_code == 200


def test_no_two_programs_wait_under_one_code(app: Flask) -> None:
    codes = [ask(app, PROXY).json()["user_code"] for _ in range(200)]
    assert len(set(codes)) == len(codes)
