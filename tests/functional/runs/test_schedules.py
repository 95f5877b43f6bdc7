"""Schedules make runs at their times, each exactly once."""

from __future__ import annotations

import threading
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from taskcred.domain.permissions import Principal
from taskcred.domain.runs import Misfire, RunState, ScheduleView
from taskcred.errors import (
    ForbiddenError,
    InvalidRequestError,
    NotFoundError,
    StalePreconditionError,
)
from taskcred.services import prompts, runs, schedules, ticker
from taskcred.store import tables as t
from taskcred.testing import START, programmatic

from .conftest import Room


def _schedule(room: Room, owner: Principal, **changed: Any) -> ScheduleView:
    given: dict[str, Any] = {
        "name": "Nightly",
        "task": "report",
        "parameters": {"epochs": 3},
        "cron": "30 9 * * *",
        "timezone": "UTC",
    }
    return schedules.create(room.ctx, owner, **(given | changed))


def _made(room: Room, owner: Principal) -> list[datetime | None]:
    return sorted(
        (run.scheduled_for for run in runs.list_own(room.ctx, owner)[0]), key=lambda at: at or START
    )


def test_a_due_time_makes_one_run(room: Room) -> None:
    owner = room.owner()
    room.give_credential(owner)
    schedule = _schedule(room, owner)
    assert schedule.next_at == START + timedelta(minutes=30)
    assert schedule.next_times == tuple(
        START + timedelta(minutes=30) + timedelta(days=day) for day in range(5)
    )

    assert ticker.tick(room.ctx) == 0
    room.clock.advance(timedelta(minutes=30))
    assert ticker.tick(room.ctx) == 1
    assert ticker.tick(room.ctx) == 0

    (run,), _ = runs.list_own(room.ctx, owner, schedule_id=schedule.id)
    assert (run.state, run.scheduled_for, run.parameters) == (
        RunState.QUEUED,
        schedule.next_at,
        {"epochs": 3},
    )
    assert [each.run_id for each in room.queue.enqueued] == [run.id]
    now = schedules.get(room.ctx, owner, schedule.id)
    assert (now.last_run_id, now.last_at) == (run.id, schedule.next_at)
    assert now.next_at == START + timedelta(days=1, minutes=30)
    assert now.revision == schedule.revision


def test_racing_tickers_make_one_run_for_each_due_time(room: Room) -> None:
    owner = room.owner()
    room.give_credential(owner)
    for _ in range(20):
        _schedule(room, owner)
    room.clock.advance(timedelta(minutes=30))

    threads = [threading.Thread(target=ticker.tick, args=(room.ctx,)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert room.count(t.runs) == 20
    assert len(room.queue.enqueued) == 20


def test_a_tick_is_bounded(room: Room) -> None:
    owner = room.owner()
    room.give_credential(owner)
    for _ in range(7):
        _schedule(room, owner)
    room.clock.advance(timedelta(minutes=30))
    assert [ticker.tick(room.ctx, limit=3) for _ in range(4)] == [3, 3, 1, 0]


@pytest.mark.parametrize("misfire", list(Misfire))
def test_missed_times_follow_the_misfire_rule(room: Room, misfire: Misfire) -> None:
    owner = room.owner()
    room.give_credential(owner)
    schedule = _schedule(room, owner, misfire=misfire)
    room.clock.advance(timedelta(days=3, hours=5))

    assert ticker.tick(room.ctx) == 1

    assert _made(room, owner) == ([schedule.next_at] if misfire is Misfire.RUN_ONCE else [])
    assert schedules.get(room.ctx, owner, schedule.id).next_at == START + timedelta(days=4, minutes=30)
    assert ("schedule:skip refused" in room.actions(owner)) == (misfire is Misfire.SKIP)


def test_a_restart_at_the_due_time_misses_nothing(room: Room) -> None:
    owner = room.owner()
    room.give_credential(owner)
    schedule = _schedule(room, owner, misfire=Misfire.SKIP)
    room.clock.advance(timedelta(minutes=30, seconds=45))
    ticker.tick(room.ctx)
    assert _made(room, owner) == [schedule.next_at]


@pytest.mark.promise("parked-not-failed")
def test_a_schedule_without_a_credential_asks_at_once_and_parks_one_run(room: Room) -> None:
    owner = room.owner()
    schedule = _schedule(room, owner, cron="*/10 * * * *")
    (prompt,), _ = prompts.list_own(room.ctx, owner)
    assert prompt.state == "open"

    for _ in range(6):
        room.clock.advance(timedelta(minutes=10))
        ticker.tick(room.ctx)

    (parked,), _ = runs.list_own(room.ctx, owner)
    assert parked.state is RunState.WAITING_FOR_CREDENTIAL
    assert parked.scheduled_for == schedule.next_at
    assert room.actions(owner).count("schedule:skip refused") == 5


def test_a_schedule_whose_task_has_left_the_catalogue_fails_for_all_to_see(room: Room) -> None:
    owner = room.owner()
    room.give_credential(owner)
    _schedule(room, owner)
    room.clock.advance(timedelta(minutes=30))
    room.ctx.tasks.pop("report")  # type: ignore[attr-defined]  # the fixture's is a dict

    ticker.tick(room.ctx)

    (run,), _ = runs.list_own(room.ctx, owner)
    assert run.state is RunState.FAILED
    assert "catalogue" in run.reason
    assert run.ended_at == room.clock.now()
    assert room.queue.enqueued == []


@pytest.mark.parametrize(
    ("broken", "why"),
    [
        ("schema", "its own schema cannot be applied"),
        ("zone", "There is no such time zone."),
    ],
)
def test_one_schedule_that_cannot_be_read_any_more_does_not_hold_up_the_others(
    room: Room, broken: str, why: str
) -> None:
    owner = room.owner()
    room.give_credential(owner)
    ill = _schedule(room, owner, name="Ill", cron="29 9 * * *")
    _schedule(room, owner, name="Well", task="plain", parameters={})
    if broken == "schema":
        dangling = {"type": "object", "properties": {"epochs": {"$ref": "#/$defs/missing"}}}
        tasks = {**room.ctx.tasks, "report": replace(room.ctx.tasks["report"], parameters=dangling)}
        ctx = replace(room.ctx, tasks=tasks)
    else:
        ctx = room.ctx
        with ctx.store.write() as connection:
            gone = t.schedules.update().where(t.schedules.c.id == ill.id).values(timezone="Atlantis/Capital")
            connection.execute(gone)
    room.clock.advance(timedelta(minutes=30))
    assert ticker.tick(ctx) == 2
    assert ticker.tick(ctx) == 0
    found = {run.task: run for run in runs.list_own(ctx, owner)[0]}
    assert found["plain"].state is RunState.QUEUED
    assert found["report"].state is RunState.FAILED
    assert why in found["report"].reason


def test_a_schedule_whose_time_zone_has_left_the_host_can_be_read_and_mended(room: Room) -> None:
    owner = room.owner()
    room.give_credential(owner)
    made = _schedule(room, owner)
    with room.ctx.store.write() as connection:
        connection.execute(t.schedules.update().values(timezone="Atlantis/Capital"))

    (listed,), _ = schedules.list_own(room.ctx, owner)
    assert listed == schedules.get(room.ctx, owner, made.id)
    assert (listed.timezone, listed.next_times) == ("Atlantis/Capital", ())
    assert schedules.update(room.ctx, owner, made.id, if_match=None, name="Renamed").next_times == ()
    assert schedules.pause(room.ctx, owner, made.id).paused
    with pytest.raises(InvalidRequestError) as caught:
        schedules.resume(room.ctx, owner, made.id)
    assert caught.value.error_code == "invalid_timezone"
    schedules.update(room.ctx, owner, made.id, if_match=None, timezone="UTC")
    assert schedules.resume(room.ctx, owner, made.id).next_times == made.next_times


def test_a_paused_schedule_makes_nothing_and_goes_on_from_now(room: Room) -> None:
    owner = room.owner()
    room.give_credential(owner)
    schedule = _schedule(room, owner)
    paused = schedules.pause(room.ctx, owner, schedule.id)
    assert (paused.paused, paused.next_at, paused.next_times) == (True, None, ())
    room.clock.advance(timedelta(days=2))
    assert ticker.tick(room.ctx) == 0

    resumed = schedules.resume(room.ctx, owner, schedule.id)

    assert resumed.next_at == START + timedelta(days=2, minutes=30)
    assert ticker.tick(room.ctx) == 0
    assert room.count(t.runs) == 0


def test_pausing_the_last_schedule_withdraws_the_prompt_and_resuming_asks_again(room: Room) -> None:
    owner = room.owner()
    schedule = _schedule(room, owner)
    schedules.pause(room.ctx, owner, schedule.id)
    assert [prompt.state for prompt in prompts.list_own(room.ctx, owner)[0]] == ["withdrawn"]
    schedules.resume(room.ctx, owner, schedule.id)
    assert sorted(prompt.state for prompt in prompts.list_own(room.ctx, owner)[0]) == [
        "open",
        "withdrawn",
    ]


def test_deleting_a_schedule_keeps_its_runs(room: Room) -> None:
    owner = room.owner()
    room.give_credential(owner)
    schedule = _schedule(room, owner)
    room.clock.advance(timedelta(minutes=30))
    ticker.tick(room.ctx)
    schedules.delete(room.ctx, owner, schedule.id)
    assert schedules.list_own(room.ctx, owner) == ([], None)
    assert len(runs.list_own(room.ctx, owner)[0]) == 1
    with pytest.raises(NotFoundError):
        schedules.delete(room.ctx, owner, schedule.id)


def test_an_edit_needs_the_present_revision(room: Room) -> None:
    owner = room.owner()
    schedule = _schedule(room, owner)
    edited = schedules.update(
        room.ctx, owner, schedule.id, if_match=schedule.revision, cron="0 12 * * *", name="Noon"
    )
    assert (edited.name, edited.next_at) == ("Noon", START + timedelta(hours=3))
    assert edited.revision == schedule.revision + 1
    with pytest.raises(StalePreconditionError):
        schedules.update(room.ctx, owner, schedule.id, if_match=schedule.revision, name="Late")
    assert schedules.get(room.ctx, owner, schedule.id) == edited


def test_an_edit_that_changes_nothing_changes_nothing(room: Room) -> None:
    owner = room.owner()
    schedule = _schedule(room, owner)
    same = schedules.update(room.ctx, owner, schedule.id, if_match=None, cron=" 30  9 * * * ")
    assert same == schedule


@pytest.mark.parametrize(
    ("changed", "code"),
    [
        ({"cron": "* * * *"}, "invalid_cron"),
        ({"cron": "99 * * * *"}, "invalid_cron"),
        ({"cron": "0 0 30 2 *"}, "invalid_cron"),
        ({"cron": "*/5 * * * * *"}, "invalid_cron"),
        ({"cron": "0," * 200 + "0 * * * *"}, "invalid_cron"),
        ({"timezone": "Europe/Atlantis"}, "invalid_timezone"),
        ({"timezone": "../../etc/passwd"}, "invalid_timezone"),
        ({"timezone": "localtime"}, "invalid_timezone"),
        ({"timezone": ""}, "invalid_timezone"),
        ({"name": "  "}, "invalid_name"),
        ({"name": "x" * 257}, "invalid_name"),
        ({"name": "two\nlines"}, "invalid_name"),
        ({"name": "a\x00b"}, "invalid_name"),
        ({"parameters": {"epochs": 0}}, "invalid_parameters"),
        ({"task": "nothing"}, "unknown_task"),
    ],
)
def test_what_cannot_be_scheduled_is_refused_by_name_and_nothing_is_stored(
    room: Room, changed: dict[str, Any], code: str
) -> None:
    owner = room.owner()
    with pytest.raises(InvalidRequestError) as caught:
        _schedule(room, owner, **changed)
    assert caught.value.error_code == code
    assert caught.value.hint
    assert [room.count(table) for table in (t.schedules, t.prompts)] == [0, 0]


def test_other_owners_schedules_are_not_found(room: Room) -> None:
    schedule = _schedule(room, room.owner())
    stranger = room.owner()
    for call in (schedules.get, schedules.pause, schedules.resume, schedules.delete):
        with pytest.raises(NotFoundError):
            call(room.ctx, stranger, schedule.id)
    with pytest.raises(NotFoundError):
        schedules.update(room.ctx, stranger, schedule.id, if_match=None, name="mine")
    assert schedules.list_own(room.ctx, stranger) == ([], None)


@pytest.mark.promise("only-what-the-user-started")
def test_a_program_cannot_schedule(room: Room) -> None:
    owner = room.owner()
    with pytest.raises(ForbiddenError):
        _schedule(room, programmatic(owner.iam_id, owner.account_id))


def test_the_list_pages_newest_first(room: Room) -> None:
    owner = room.owner()
    made = [_schedule(room, owner).id for _ in range(5)]
    first, after = schedules.list_own(room.ctx, owner, limit=3)
    second, end = schedules.list_own(room.ctx, owner, after=after, limit=3)
    assert sorted(each.id for each in (*first, *second)) == sorted(made)
    assert end is None


def test_the_next_times_follow_the_time_zone() -> None:
    times = schedules.preview("30 2 * * *", "Europe/Berlin", datetime(2026, 3, 28, 12, tzinfo=UTC), count=3)
    assert [at.isoformat() for at in times] == [
        "2026-03-29T01:00:00+00:00",  # 02:30 is left out: 03:00 in Berlin
        "2026-03-30T00:30:00+00:00",
        "2026-03-31T00:30:00+00:00",
    ]


@pytest.mark.only_on("sqlite")  # it reads SQLite's plans
def test_an_idle_tick_looks_at_one_row_of_an_index(room: Room) -> None:
    owner = room.owner()
    room.give_credential(owner)
    for _ in range(5):
        _schedule(room, owner)
    with room.explained() as explained:
        assert ticker.tick(room.ctx) == 0
    (plan,) = explained.plans
    assert plan == "SEARCH schedules USING INDEX ix_schedules_due (next_at<?)"
