"""What becomes of a run while and after a worker tries it."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, NoReturn

import pytest
import sqlalchemy as sa

from taskcred.domain import keytext
from taskcred.domain.runs import AttemptOutcome, RunState
from taskcred.errors import ForbiddenError, NotFoundError, StoreBusyError, UnavailableError
from taskcred.services import attempts, credentials, grants, prompts, runs, starting
from taskcred.services.events import service_of
from taskcred.services.reaper import Reaper
from taskcred.store import changes
from taskcred.store import tables as t
from taskcred.testing import Failure

from .conftest import WORKER, Room


def _changes(room: Room) -> list[tuple[str, str]]:
    with room.ctx.store.read() as connection:
        return [(change.kind, change.ref) for change in changes.since(connection, 0)]


def test_an_attempt_gets_a_stand_in_key_of_which_only_the_digest_is_kept(room: Room) -> None:
    owner = room.owner()
    room.give_credential(owner)
    run = room.run(owner)

    begun = room.begin(run.id)

    key = begun.standin_key
    assert keytext.is_standin_key(key.reveal())
    with room.ctx.store.read() as connection:
        row = connection.execute(sa.select(t.attempts)).one()
    assert row.standin_digest == key.digest()
    assert key.reveal() not in str(row)
    assert (begun.number, begun.task, begun.iam_id) == (1, "plain", owner.iam_id)
    shown = runs.get(room.ctx, owner, run.id)
    assert (shown.state, shown.attempts_made, shown.started_at) == (
        RunState.RUNNING,
        1,
        room.clock.now(),
    )
    assert "attempt:begin success" in room.actions(owner)


def test_only_a_worker_begins_attempts(room: Room) -> None:
    owner = room.owner()
    room.give_credential(owner)
    run = room.run(owner)
    with pytest.raises(ForbiddenError):
        attempts.begin(room.ctx, owner, run.id, 1)
    assert room.count(t.attempts) == 0


def test_a_run_that_nobody_knows_is_not_found(room: Room) -> None:
    with pytest.raises(NotFoundError):
        attempts.begin(room.ctx, WORKER, "no-such-run", 1)


@pytest.mark.promise("parked-not-failed")
def test_a_run_whose_credential_went_away_while_it_was_queued_is_parked(room: Room) -> None:
    owner = room.owner()
    credential_id = room.give_credential(owner)
    run = room.run(owner)
    credentials.delete(room.ctx, owner, credential_id)

    assert attempts.begin(room.ctx, WORKER, run.id, 1) == attempts.NotBegun("parked")

    parked = runs.get(room.ctx, owner, run.id)
    assert parked.state is RunState.WAITING_FOR_CREDENTIAL
    assert parked.prompt_id is not None
    assert room.count(t.attempts) == 0


@pytest.mark.promise("parked-not-failed")
def test_a_run_whose_key_the_provider_refuses_is_parked_and_asks_for_a_new_key(room: Room) -> None:
    owner = room.owner()
    room.give_credential(owner)
    run = room.run(owner)
    room.clock.advance(timedelta(hours=2))  # the token made at creation has run out
    room.provider.script("exchange", Failure.REFUSE)

    assert attempts.begin(room.ctx, WORKER, run.id, 1) == attempts.NotBegun("parked")

    parked = runs.get(room.ctx, owner, run.id)
    assert parked.prompt_id is not None
    assert prompts.get(room.ctx, owner, parked.prompt_id).why == "unusable"


@pytest.mark.promise("never-interrupted")
def test_an_outage_of_the_provider_leaves_the_run_queued(room: Room) -> None:
    owner = room.owner()
    room.give_credential(owner)
    run = room.run(owner)
    room.clock.advance(timedelta(hours=2))
    room.provider.script("exchange", Failure.UNAVAILABLE)

    with pytest.raises(UnavailableError):
        attempts.begin(room.ctx, WORKER, run.id, 1)
    assert runs.get(room.ctx, owner, run.id).state is RunState.QUEUED

    room.clock.advance(timedelta(minutes=1))
    assert isinstance(attempts.begin(room.ctx, WORKER, run.id, 1), attempts.Begun)


def test_a_dispatch_that_is_over_begins_nothing(room: Room) -> None:
    owner = room.owner()
    room.give_credential(owner)
    cancelled, finished, superseded = (room.run(owner) for _ in range(3))
    runs.cancel(room.ctx, owner, cancelled.id)
    attempts.finish(room.ctx, room.begin(finished.id).attempt_id, AttemptOutcome.SUCCEEDED)
    attempts.lost(room.ctx, room.begin(superseded.id).attempt_id)

    assert attempts.begin(room.ctx, WORKER, cancelled.id, 1) == attempts.NotBegun("cancelled")
    assert attempts.begin(room.ctx, WORKER, finished.id, 1) == attempts.NotBegun("finished")
    assert attempts.begin(room.ctx, WORKER, superseded.id, 1) == attempts.NotBegun("superseded")


@pytest.mark.promise("dead-with-the-run")
def test_asking_again_before_a_process_began_replaces_the_key(room: Room) -> None:
    owner = room.owner()
    room.give_credential(owner)
    run = room.run(owner)
    first, second = room.begin(run.id), room.begin(run.id)

    assert second.attempt_id == first.attempt_id
    assert second.standin_key != first.standin_key
    assert ("attempt", first.attempt_id) in _changes(room)
    with room.ctx.store.read() as connection:
        digests = list(connection.execute(sa.select(t.attempts.c.standin_digest)).scalars())
    assert digests == [second.standin_key.digest()]
    assert runs.get(room.ctx, owner, run.id).attempts_made == 1


def test_an_attempt_whose_process_began_is_not_begun_again(room: Room) -> None:
    owner = room.owner()
    room.give_credential(owner)
    run = room.run(owner)
    begun = room.begin(run.id)
    assert attempts.set_launcher(room.ctx, begun.attempt_id, {"pid": 1, "started": 2}, "bubblewrap")

    assert attempts.begin(room.ctx, WORKER, run.id, 1) == attempts.NotBegun("running")
    live = attempts.live_of_run(room.ctx, run.id)
    assert live is not None
    assert live.launcher == {"pid": 1, "started": 2}
    assert runs.get(room.ctx, owner, run.id).isolation == "bubblewrap"


@pytest.mark.promise("dead-with-the-run")
def test_an_attempt_ends_with_its_key_and_its_run_in_one_transaction(room: Room) -> None:
    owner = room.owner()
    room.give_credential(owner)
    run = room.run(owner)
    begun = room.begin(run.id)
    before = room.ctx.store.epoch.value

    attempts.finish(room.ctx, begun.attempt_id, AttemptOutcome.SUCCEEDED, exit_code=0)

    done = runs.get(room.ctx, owner, run.id)
    assert (done.state, done.exit_code, done.ended_at) == (RunState.SUCCEEDED, 0, room.clock.now())
    assert _changes(room)[-1] == ("attempt", begun.attempt_id)
    assert room.ctx.store.epoch.value != before
    assert room.actions(owner)[-2:] == ["attempt:end success", "run:end success"]


def test_an_attempt_ends_once(room: Room) -> None:
    owner = room.owner()
    room.give_credential(owner)
    run = room.run(owner, "stubborn")
    begun = room.begin(run.id)
    for outcome in (AttemptOutcome.FAILED, AttemptOutcome.SUCCEEDED, AttemptOutcome.LOST):
        attempts.finish(room.ctx, begun.attempt_id, outcome, "x")
    (attempt,) = runs.attempts(room.ctx, owner, run.id)
    assert attempt.outcome is AttemptOutcome.FAILED
    assert [each.dispatch_no for each in room.queue.enqueued] == [1, 2]


def test_a_failed_attempt_is_repeated_with_back_off_until_the_task_says_enough(room: Room) -> None:
    owner = room.owner()
    room.give_credential(owner)
    run = room.run(owner, "stubborn")
    for _ in range(3):
        begun = room.begin(run.id)
        attempts.finish(room.ctx, begun.attempt_id, AttemptOutcome.FAILED, "Exit status 3.", 3)

    assert [each.delay.total_seconds() for each in room.queue.enqueued] == [0, 10, 20]
    ended = runs.get(room.ctx, owner, run.id)
    assert (ended.state, ended.reason, ended.exit_code) == (RunState.FAILED, "Exit status 3.", 3)
    assert [each.number for each in runs.attempts(room.ctx, owner, run.id)] == [1, 2, 3]


def test_a_lost_attempt_is_repeated_at_once_unless_the_task_says_otherwise(room: Room) -> None:
    owner = room.owner()
    room.give_credential(owner)
    again, once = room.run(owner, "plain"), room.run(owner, "once")
    attempts.lost(room.ctx, room.begin(again.id).attempt_id)
    attempts.lost(room.ctx, room.begin(once.id).attempt_id)
    assert runs.get(room.ctx, owner, again.id).state is RunState.QUEUED
    assert runs.get(room.ctx, owner, once.id).state is RunState.FAILED


def test_a_run_that_takes_its_worker_down_each_time_is_given_up(room: Room) -> None:
    owner = room.owner()
    room.give_credential(owner)
    run = room.run(owner)
    for number in range(1, 7):
        begun = room.begin(run.id)
        assert begun.number == number
        attempts.lost(room.ctx, begun.attempt_id)
    ended = runs.get(room.ctx, owner, run.id)
    assert ended.state is RunState.FAILED
    assert "worker" in ended.reason


def test_output_is_read_as_it_grows_and_ends_with_the_attempt(room: Room) -> None:
    owner = room.owner()
    room.give_credential(owner)
    run = room.run(owner)
    assert not runs.output(room.ctx, owner, run.id).finished
    begun = room.begin(run.id)

    attempts.append_output(room.ctx, begun.attempt_id, "one\n")
    first = runs.output(room.ctx, owner, run.id)
    attempts.append_output(room.ctx, begun.attempt_id, "two\n")
    second = runs.output(room.ctx, owner, run.id, after=first.next_after)
    attempts.finish(room.ctx, begun.attempt_id, AttemptOutcome.SUCCEEDED)
    third = runs.output(room.ctx, owner, run.id, after=second.next_after)

    assert [(part.text, part.finished) for part in (first, second, third)] == [
        ("one\n", False),
        ("two\n", False),
        ("", True),
    ]
    with pytest.raises(NotFoundError):
        runs.output(room.ctx, owner, run.id, attempt=2)


def test_output_is_kept_up_to_the_tasks_limit_in_bytes(room: Room) -> None:
    owner = room.owner()
    room.give_credential(owner)
    run = runs.start(room.ctx, owner, task="report", parameters={"epochs": 1})
    begun = room.begin(run.id)

    assert attempts.append_output(room.ctx, begun.attempt_id, "x" * 999)
    assert not attempts.append_output(room.ctx, begun.attempt_id, "\u20acy")  # three bytes, one has room
    assert not attempts.append_output(room.ctx, begun.attempt_id, "z")

    kept = runs.output(room.ctx, owner, run.id)
    assert kept.text == "x" * 999
    assert kept.truncated


def test_output_that_no_database_takes_is_kept_readable(room: Room) -> None:
    owner = room.owner()
    room.give_credential(owner)
    run = room.run(owner)
    begun = room.begin(run.id)
    attempts.append_output(room.ctx, begun.attempt_id, "a\x00b\ud800c" + "d" * 200_000)
    parts, after = "", 0
    while True:
        part = runs.output(room.ctx, owner, run.id, after=after)
        if part.next_after == after:
            break
        parts, after = parts + part.text, part.next_after
    assert parts == "a\ufffdb?c" + "d" * 200_000


def test_progress_is_shown_and_grows_the_revision(room: Room) -> None:
    owner = room.owner()
    room.give_credential(owner)
    run = room.run(owner)
    begun = room.begin(run.id)
    before = runs.get(room.ctx, owner, run.id).revision

    attempts.progress(room.ctx, begun.attempt_id, 40, 100, "epoch 4")

    shown = runs.get(room.ctx, owner, run.id)
    assert (shown.progress_done, shown.progress_total, shown.progress_text) == (40, 100, "epoch 4")
    assert shown.revision > before
    attempts.finish(room.ctx, begun.attempt_id, AttemptOutcome.SUCCEEDED)
    attempts.progress(room.ctx, begun.attempt_id, 50, 100)
    assert runs.get(room.ctx, owner, run.id).progress_done == 40


def test_a_heartbeat_tells_which_attempts_are_over(room: Room) -> None:
    owner = room.owner()
    room.give_credential(owner)
    live, over = (room.begin(room.run(owner).id).attempt_id for _ in range(2))
    attempts.finish(room.ctx, over, AttemptOutcome.FAILED)
    assert attempts.heartbeat(room.ctx, [live, over]) == {over}


def test_an_attempt_silent_for_good_is_lost_and_its_run_goes_on(room: Room) -> None:
    owner = room.owner()
    room.give_credential(owner)
    silent, beating = room.run(owner), room.run(owner)
    room.begin(silent.id)
    pulse = room.begin(beating.id).attempt_id
    reaper = Reaper(room.ctx)

    reaped = []
    for _ in range(5):
        reaped.append(reaper.reap())
        room.clock.advance(timedelta(seconds=20))
        attempts.heartbeat(room.ctx, [pulse])

    assert reaped == [0, 0, 0, 1, 0]
    assert runs.get(room.ctx, owner, silent.id).state is RunState.QUEUED
    assert runs.get(room.ctx, owner, beating.id).state is RunState.RUNNING


@pytest.mark.promise("never-interrupted")
def test_while_nobody_can_write_nobody_is_silent(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    owner = room.owner()
    room.give_credential(owner)
    run = room.run(owner)
    room.begin(run.id)
    reaper = Reaper(room.ctx)
    assert reaper.reap() == 0
    room.clock.advance(timedelta(seconds=50))
    with monkeypatch.context() as outage:

        def busy() -> NoReturn:
            raise StoreBusyError("The records database is busy or away.", hint="Try again.")

        outage.setattr(room.ctx.store, "write", busy)
        with pytest.raises(StoreBusyError):
            reaper.reap()
    room.clock.advance(timedelta(seconds=50))
    assert reaper.reap() == 0
    room.clock.advance(timedelta(seconds=60))
    assert reaper.reap() == 1


@pytest.mark.promise("never-interrupted")
def test_a_host_that_slept_makes_nobody_silent(room: Room) -> None:
    owner = room.owner()
    room.give_credential(owner)
    run = room.run(owner)
    room.begin(run.id)
    room.clock.advance(timedelta(days=3))
    assert Reaper(room.ctx).reap() == 0
    assert runs.get(room.ctx, owner, run.id).state is RunState.RUNNING


@pytest.mark.promise("only-what-the-user-started")
def test_a_worker_begins_nothing_after_the_grants_date(room: Room) -> None:
    owner, service = room.owner(), room.service()
    room.give_credential(owner)
    offer: dict[str, Any] = {"service_id": service_of(service), "tasks": ["plain"]}
    grant = grants.give(room.ctx, owner, **offer, days=1)
    started = [
        starting.start(room.ctx, service, task="plain", parameters={}, grant_id=grant.id) for _ in range(2)
    ]
    begun = room.begin(started[0].id)
    room.clock.advance(timedelta(days=1))
    dispatch = next(each for each in room.queue.enqueued if each.run_id == started[1].id)
    told = attempts.begin(room.ctx, WORKER, started[1].id, dispatch.dispatch_no)
    assert told == attempts.NotBegun("cancelled")
    late = runs.get(room.ctx, owner, started[1].id)
    assert (late.state, late.reason) == (RunState.CANCELLED, "The grant it was started under has expired.")
    # What ran by then goes on, and a worker whose answer was lost gets its key.
    assert runs.get(room.ctx, owner, started[0].id).state is RunState.RUNNING
    assert room.begin(started[0].id).attempt_id == begun.attempt_id
