"""Owners start, list, watch and cancel runs."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from taskcred.domain.permissions import Authentication
from taskcred.domain.runs import AttemptOutcome, RunState
from taskcred.errors import (
    ConflictError,
    ForbiddenError,
    InvalidRequestError,
    NotFoundError,
    PolicyViolationError,
)
from taskcred.services import attempts, prompts, runs, schedules
from taskcred.store import tables as t
from taskcred.testing import Enqueued, programmatic

from .conftest import Room


def test_a_run_with_a_usable_credential_is_queued_once(room: Room) -> None:
    owner = room.owner()
    room.give_credential(owner)

    run = room.run(owner)

    assert run.state is RunState.QUEUED
    assert run.started_by == owner.iam_id
    assert run.queued_at == room.clock.now()
    assert room.queue.enqueued == [Enqueued(run.id, 1, f"{owner.account_id}/{owner.iam_id}", timedelta(0))]


@pytest.mark.promise("parked-not-failed")
def test_a_run_without_a_credential_is_parked_with_a_prompt(room: Room) -> None:
    owner = room.owner()

    run = room.run(owner)

    assert run.state is RunState.WAITING_FOR_CREDENTIAL
    assert run.queued_at is None
    assert run.prompt_id is not None
    assert prompts.get(room.ctx, owner, run.prompt_id).waiting_runs == 1
    assert room.queue.enqueued == []


@pytest.mark.promise("only-what-the-user-started")
def test_a_program_cannot_start_runs_and_the_refusal_is_on_record(room: Room) -> None:
    owner = room.owner()
    program = programmatic(owner.iam_id, owner.account_id)

    with pytest.raises(ForbiddenError) as caught:
        runs.start(room.ctx, program, task="plain", parameters={})

    assert caught.value.error_code == "programmatic_token"
    assert room.count(t.runs) == 0
    assert room.actions(owner) == ["run:start refused"]


def test_an_unknown_task_is_refused_by_name_of_the_field(room: Room) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        runs.start(room.ctx, room.owner(), task="rm -rf", parameters={})
    assert caught.value.error_code == "unknown_task"
    assert caught.value.details["field"] == "task"
    assert room.count(t.runs) == 0


@pytest.mark.parametrize(
    ("parameters", "field"),
    [
        ({}, "parameters.epochs"),
        ({"epochs": "three"}, "parameters.epochs"),
        ({"epochs": 0}, "parameters.epochs"),
        ({"epochs": 1, "title": "x" * 21}, "parameters.title"),
        ({"epochs": 1, "tags": ["a", 2]}, "parameters.tags.1"),
        ({"epochs": 1, "extra": True}, "parameters.extra"),
    ],
)
def test_parameters_that_do_not_fit_are_refused_by_name_of_the_field(
    room: Room, parameters: dict[str, Any], field: str
) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        runs.start(room.ctx, room.owner(), task="report", parameters=parameters)
    assert caught.value.error_code == "invalid_parameters"
    assert caught.value.details["field"] == field
    assert room.count(t.runs) == 0


def test_an_owner_with_very_many_parked_runs_gets_no_more(room: Room) -> None:
    owner = room.owner()
    for _ in range(5):
        room.run(owner)
    with pytest.raises(PolicyViolationError) as caught:
        room.run(owner)
    assert caught.value.error_code == "too_many_waiting_runs"
    assert room.count(t.runs) == 5


def test_other_owners_runs_are_not_found(room: Room) -> None:
    run = room.run(room.owner())
    stranger = room.owner()
    for call in (runs.get, runs.cancel, runs.output, runs.attempts):
        with pytest.raises(NotFoundError):
            call(room.ctx, stranger, run.id)
    assert runs.list_own(room.ctx, stranger) == ([], None)


def test_the_list_pages_newest_first_without_gaps_or_repeats(room: Room) -> None:
    owner = room.owner()
    room.give_credential(owner)
    made = []
    for index in range(7):
        made.append(room.run(owner).id)
        if index % 2:  # several of the same instant, too
            room.clock.advance(timedelta(seconds=1))

    seen: list[str] = []
    after = None
    while True:
        page, after = runs.list_own(room.ctx, owner, after=after, limit=2)
        seen += [run.id for run in page]
        if after is None:
            break

    assert sorted(seen) == sorted(made)
    assert len(seen) == 7
    assert seen[0] == made[-1]


def test_the_list_can_be_of_one_state(room: Room) -> None:
    owner = room.owner()
    parked = room.run(owner)
    gone = runs.cancel(room.ctx, owner, room.run(owner).id)
    assert runs.list_own(room.ctx, owner, state=RunState.CANCELLED)[0] == [gone]
    assert runs.list_own(room.ctx, owner, state=RunState.WAITING_FOR_CREDENTIAL)[0] == [parked]


@pytest.mark.parametrize("cursor", ["", "x", "!!!!", "W10", "bnVsbA", "WzEsMl0", "WzFlOTk5LCAiYSJd", "é"])
def test_a_cursor_that_no_list_gave_out_is_refused(room: Room, cursor: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        runs.list_own(room.ctx, room.owner(), after=cursor)
    assert caught.value.error_code == "invalid_cursor"


@pytest.mark.parametrize("limit", [-1, 0, 201])
def test_a_page_has_a_sensible_size(room: Room, limit: int) -> None:
    with pytest.raises(InvalidRequestError):
        runs.list_own(room.ctx, room.owner(), limit=limit)


def test_a_queued_run_is_cancelled_at_once(room: Room) -> None:
    owner = room.owner()
    room.give_credential(owner)
    run = room.run(owner)

    cancelled = runs.cancel(room.ctx, owner, run.id)

    assert cancelled.state is RunState.CANCELLED
    assert cancelled.ended_at == room.clock.now()
    assert cancelled.revision > run.revision
    assert runs.cancel(room.ctx, owner, run.id) == cancelled


def test_cancelling_the_last_parked_run_withdraws_the_prompt(room: Room) -> None:
    owner = room.owner()
    first, second = room.run(owner), room.run(owner)
    assert first.prompt_id is not None

    runs.cancel(room.ctx, owner, first.id)
    assert prompts.get(room.ctx, owner, first.prompt_id).state == "open"
    runs.cancel(room.ctx, owner, second.id)
    assert prompts.get(room.ctx, owner, first.prompt_id).state == "withdrawn"


def test_a_prompt_that_a_schedule_needs_is_not_withdrawn(room: Room) -> None:
    owner = room.owner()
    schedules.create(room.ctx, owner, name="n", task="plain", parameters={}, cron="0 6 * * *")
    run = room.run(owner)
    runs.cancel(room.ctx, owner, run.id)
    assert [p.state for p in prompts.list_own(room.ctx, owner)[0]] == ["open"]


def test_cancelling_a_running_run_asks_its_worker(room: Room) -> None:
    owner = room.owner()
    room.give_credential(owner)
    run = room.run(owner)
    begun = room.begin(run.id)

    asked = runs.cancel(room.ctx, owner, run.id)

    assert asked.state is RunState.RUNNING
    assert asked.cancel_requested_at == room.clock.now()
    assert attempts.cancel_requested(room.ctx) == {run.id}
    attempts.finish(room.ctx, begun.attempt_id, AttemptOutcome.FAILED, "It was ended.", -15)
    assert runs.get(room.ctx, owner, run.id).state is RunState.CANCELLED
    assert attempts.cancel_requested(room.ctx) == set()


def test_a_run_that_ended_by_itself_cannot_be_cancelled(room: Room) -> None:
    owner = room.owner()
    room.give_credential(owner)
    run = room.run(owner)
    attempts.finish(room.ctx, room.begin(run.id).attempt_id, AttemptOutcome.SUCCEEDED)
    with pytest.raises(ConflictError) as caught:
        runs.cancel(room.ctx, owner, run.id)
    assert caught.value.error_code == "run_ended"


@pytest.mark.promise("audited-or-refused")
def test_every_change_of_a_run_leaves_an_event(room: Room) -> None:
    owner = room.owner()
    run = room.run(owner)
    runs.cancel(room.ctx, owner, run.id)
    assert room.actions(owner) == [
        "prompt:open success",
        "run:start success",
        "prompt:withdraw success",
        "run:cancel success",
    ]


@pytest.mark.parametrize("how", [Authentication.RUN_TOKEN, Authentication.WORKER])
def test_runs_are_for_people(room: Room, how: Authentication) -> None:
    owner = room.owner()
    other = type(owner)(owner.iam_id, owner.account_id, how)
    with pytest.raises(ForbiddenError):
        runs.list_own(room.ctx, other)
