"""When schedules come due, against a slow and obvious reading of the same expressions."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from taskcred.services.cron import next_after, next_times

# Zones with the odd days an hour long, half an hour long (Lord Howe), at midnight (Santiago), none (UTC).
ZONES = [
    "Europe/Berlin",
    "America/New_York",
    "Australia/Lord_Howe",
    "America/Santiago",
    "Asia/Kolkata",
    "UTC",
]
MINUTE = timedelta(minutes=1)
WINDOW = timedelta(days=3)

# Days of 2026 around which the clocks of these zones change.
ODD_DAYS = [(3, 7), (3, 27), (4, 3), (9, 4), (10, 2), (10, 23), (10, 30)]

instants = st.one_of(
    st.integers(0, 700 * 86_400).map(
        lambda seconds: datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=seconds)
    ),
    st.tuples(st.sampled_from(ODD_DAYS), st.integers(0, 3 * 86_400)).map(
        lambda drawn: datetime(2026, *drawn[0], tzinfo=UTC) + timedelta(seconds=drawn[1])
    ),
)
minutes = st.one_of(
    st.integers(0, 59).map(str),
    st.sampled_from(["*/15", "*/20", "0,30", "5-10", "*"]),
)
fixed_hours = st.one_of(st.integers(0, 23).map(str), st.sampled_from(["1-3", "0,2", "2/2"]))
every_hour = st.sampled_from(["*", "*/2", "*/3"])


def _values(field: str, top: int) -> set[int]:
    found: set[int] = set()
    for part in field.split(","):
        span, _, step = part.partition("/")
        low, _, high = span.partition("-")
        first = 0 if low == "*" else int(low)
        last = int(high) if high else (top - 1 if low == "*" or step else first)
        found |= set(range(first, last + 1, int(step or 1)))
    return found


def _minutes_of(after: datetime) -> Iterator[datetime]:
    at = after.replace(second=0)
    while at <= after + WINDOW:
        if at > after:
            yield at
        at += MINUTE


def _walls_of(start: datetime, minutes_: set[int], hours: set[int]) -> Iterator[datetime]:
    """Wall-clock times of the given minutes and hours, from the day before `start` on."""
    for day in range(-1, WINDOW.days + 2):
        for hour in hours:
            for minute in minutes_:
                yield start.replace(hour=hour, minute=minute, second=0) + timedelta(days=day)


def _between(cron: str, zone: str, after: datetime) -> list[datetime]:
    found: list[datetime] = []
    at = next_after(cron, zone, after)
    while at is not None and at <= after + WINDOW:
        found.append(at)
        at = next_after(cron, zone, at)
    return found


@settings(max_examples=60, deadline=None)
@given(minute=minutes, hour=every_hour, zone=st.sampled_from(ZONES), after=instants)
def test_an_hourly_expression_comes_due_at_every_minute_whose_wall_time_fits(
    minute: str, hour: str, zone: str, after: datetime
) -> None:
    cron, tz = f"{minute} {hour} * * *", ZoneInfo(zone)
    fitting = {(h, m) for h in _values(hour, 24) for m in _values(minute, 60)}
    walls = ((at, at.astimezone(tz)) for at in _minutes_of(after))
    expected = [at for at, wall in walls if (wall.hour, wall.minute) in fitting]
    assert _between(cron, zone, after) == expected


@settings(max_examples=60, deadline=None)
@given(minute=minutes, hour=fixed_hours, zone=st.sampled_from(ZONES), after=instants)
def test_a_fixed_hour_comes_due_once_for_each_wall_time_and_never_goes_missing(
    minute: str, hour: str, zone: str, after: datetime
) -> None:
    cron, tz = f"{minute} {hour} * * *", ZoneInfo(zone)
    expected: set[datetime] = set()
    start = after.astimezone(tz).replace(tzinfo=None)
    for wall in _walls_of(start, _values(minute, 60), _values(hour, 24)):
        shown = wall
        # Left out by the clock: the first minute that exists again.
        while shown.replace(tzinfo=tz).astimezone(UTC).astimezone(tz).replace(tzinfo=None) != shown:
            shown += MINUTE
        expected.add(shown.replace(tzinfo=tz, fold=0).astimezone(UTC))
    assert _between(cron, zone, after) == sorted(at for at in expected if after < at <= after + WINDOW)


@settings(max_examples=100, deadline=None)
@given(
    minute=minutes,
    hour=st.one_of(fixed_hours, every_hour),
    days=st.sampled_from(["* * *", "1 * *", "* * 1-5", "29 2 *", "L * *", "13 * 5"]),
    zone=st.sampled_from(ZONES),
    after=instants,
)
def test_times_only_go_forward_and_do_not_depend_on_where_one_begins(
    minute: str, hour: str, days: str, zone: str, after: datetime
) -> None:
    cron = f"{minute} {hour} {days}"
    times = next_times(cron, zone, after, 5)
    assert len(times) == 5
    assert list(times) == sorted(set(times))
    assert times[0] > after
    assert next_times(cron, zone, times[0], 4) == times[1:]
    assert next_after(cron, zone, times[3] - timedelta(microseconds=1)) == times[3]


def test_a_time_that_comes_twice_in_autumn_counts_once() -> None:
    zone = "Europe/Berlin"
    first = next_after("30 2 * * *", zone, datetime(2026, 10, 24, 12, tzinfo=UTC))
    assert first == datetime(2026, 10, 25, 0, 30, tzinfo=UTC)
    between_the_two = datetime(2026, 10, 25, 1, 10, tzinfo=UTC)  # 02:10 for the second time
    assert next_after("30 2 * * *", zone, between_the_two) == datetime(2026, 10, 26, 1, 30, tzinfo=UTC)


@pytest.mark.parametrize("cron", ["30 2 * * *", "*/15 2 * * *", "0,30 2 * * *"])
def test_a_time_left_out_in_spring_comes_due_after_the_gap(cron: str) -> None:
    at = next_after(cron, "Europe/Berlin", datetime(2026, 3, 28, 12, tzinfo=UTC))
    assert at == datetime(2026, 3, 29, 1, 0, tzinfo=UTC)


def test_a_date_that_never_comes_has_no_next_time() -> None:
    assert next_after("0 0 */30 2 7#5", "UTC", datetime(2026, 1, 1, tzinfo=UTC)) is None
