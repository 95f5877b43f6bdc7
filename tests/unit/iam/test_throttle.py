"""The back-off of guesses."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from taskcred.errors import RateLimitedError
from taskcred.iam.database import Database
from taskcred.iam.throttle import FORGET_AFTER, Throttle, of_password
from taskcred.testing import FrozenClock

PROXY, OFFICE = "127.0.0.1", "192.0.2.7"


@pytest.fixture
def clock() -> FrozenClock:
    return FrozenClock()


@pytest.fixture
def throttle(tmp_path: Path, clock: FrozenClock) -> Iterator[Throttle]:
    database = Database(tmp_path / "iam.db")
    database.migrate()
    yield Throttle(database, clock)
    database.close()


def test_pauses_double_up_to_a_quarter_of_an_hour() -> None:
    (person,) = of_password("ada@example.com", PROXY)
    pauses = [person.pause_after(failures) for failures in range(1, 14)]
    assert pauses[:4] == [timedelta(0)] * 4
    assert pauses[4:8] == [timedelta(seconds=15 * 2**power) for power in range(4)]
    assert pauses[-1] == person.pause_after(10**6) == timedelta(minutes=15)


def test_guesses_sent_at_once_count_like_guesses_in_a_row(throttle: Throttle) -> None:
    let_in: list[bool] = []

    def guess() -> None:
        try:
            throttle.begin(of_password("ada@example.com", PROXY), "Too many.")
            let_in.append(True)
        except RateLimitedError:
            let_in.append(False)

    threads = [threading.Thread(target=guess) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert let_in.count(True) == 5


def test_many_people_from_one_place_are_slowed_down_briefly(throttle: Throttle, clock: FrozenClock) -> None:
    for number in range(50):
        throttle.begin(of_password(f"user{number}@example.com", OFFICE), "Too many.")
    with pytest.raises(RateLimitedError) as refused:
        throttle.begin(of_password("another@example.com", OFFICE), "Too many.")
    assert refused.value.retry_after <= 60
    throttle.begin(of_password("another@example.com", "198.51.100.1"), "Too many.")
    clock.advance(timedelta(minutes=1))
    throttle.begin(of_password("another@example.com", OFFICE), "Too many.")


def test_a_proxy_in_front_of_us_is_nobody(throttle: Throttle) -> None:
    for number in range(200):
        throttle.begin(of_password(f"user{number}@example.com", PROXY), "Too many.")


def test_right_passwords_leave_no_trace(throttle: Throttle) -> None:
    for _ in range(100):
        throttle.begin(of_password("ada@example.com", OFFICE), "Too many.")
        throttle.succeeded(of_password("ada@example.com", OFFICE))


def test_failures_are_forgotten_after_an_hour(throttle: Throttle, clock: FrozenClock) -> None:
    for _ in range(4):
        throttle.begin(of_password("ada@example.com", PROXY), "Too many.")
    clock.advance(FORGET_AFTER + timedelta(seconds=1))
    for _ in range(4):
        throttle.begin(of_password("ada@example.com", PROXY), "Too many.")
