"""What a service does over and over reaches the owner it acts for a few times only."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from taskcred.domain.permissions import Principal
from taskcred.domain.runs import AttemptOutcome, RunState
from taskcred.errors import ForbiddenError
from taskcred.services import executions, grants, notices, prompts, runs, starting
from taskcred.services.events import service_of
from taskcred.store import tables as t

from .conftest import Room


def test_an_owner_is_told_of_a_few_of_the_prompts_that_open_in_a_day(room: Room) -> None:
    owner, neighbour, service = room.owner(), room.owner("bob@example.test"), room.service()
    channels = 3  # page, mail, webhook
    for _ in range(5):
        runs.cancel(room.ctx, service, room.start(service, owner).id)
    assert (room.count(t.prompts), room.count(t.notices)) == (5, 3 * channels)
    room.start(service, neighbour)  # each owner has their own
    assert room.count(t.notices) == 4 * channels

    waiting = room.start(service, owner)
    assert notices.own(room.ctx, owner) == []
    assert len(prompts.list_own(room.ctx, owner)[0]) == 6  # it is on the pages all the same
    room.clock.advance(timedelta(days=1))
    prompts.remind_due(room.ctx)
    assert [notice.kind for notice in notices.own(room.ctx, owner)] == [prompts.REMINDER]

    runs.cancel(room.ctx, service, waiting.id)
    room.start(service, owner)
    assert [notice.kind for notice in notices.own(room.ctx, owner)] == [prompts.OPENED]


def test_a_service_that_is_refused_is_in_its_owners_trail_ten_times_a_minute(room: Room) -> None:
    owner, neighbour = room.owner(), room.owner("bob@example.test")
    service, other = (room.service(tasks=("train",)) for _ in range(2))

    def refusals(caller: Principal, whose: Principal, times: int) -> int:
        for _ in range(times):
            with pytest.raises(ForbiddenError) as refused:
                room.start(caller, whose, "plain")
            assert refused.value.error_code == "task_not_allowed"
        return room.actions(whose).count("run:start refused")

    assert refusals(service, owner, 12) == 10
    assert refusals(other, owner, 1) == 11
    assert refusals(service, neighbour, 1) == 1
    room.clock.advance(timedelta(minutes=1))
    assert refusals(service, owner, 1) == 12


@pytest.mark.only_on("sqlite")  # it reads SQLite's plans
def test_a_refusal_that_is_not_recorded_writes_nothing_and_reads_little(room: Room) -> None:
    owner, service = room.owner(), room.service(tasks=())
    with room.explained() as explained:
        for _ in range(11):
            explained.statements.clear()
            explained.plans.clear()
            with pytest.raises(ForbiddenError):
                room.start(service, owner)
    assert not [each for each in explained.statements if each.startswith(("INSERT", "UPDATE"))]
    assert any("ix_audit_events_owner" in plan for plan in explained.plans)
    assert not [plan for plan in explained.plans if plan.startswith("SCAN audit_events")]


@pytest.mark.promise("giving-up-is-visible")
@pytest.mark.parametrize("starter", ["service", "its owner", "grant"])
def test_a_run_is_not_tried_over_and_over_for_ever(room: Room, starter: str) -> None:
    owner, service = room.owner(), room.service()
    room.give_credential(owner)
    if starter == "grant":
        grant = grants.give(room.ctx, owner, service_id=service_of(service), tasks=["train"], days=30)
        run = starting.start(room.ctx, service, task="train", parameters={}, grant_id=grant.id)
    else:
        run = room.start(service, owner) if starter == "service" else room.run(owner, "train")
    executor = owner if starter == "its owner" else service
    policy = room.ctx.policy
    ctx = replace(room.ctx, policy=replace(policy, runs=replace(policy.runs, max_attempts=3)))

    def try_it() -> tuple[RunState, str]:
        begun = executions.begin(ctx, executor, run.id)
        ended = executions.end(
            ctx, executor, run.id, begun.attempt_id, AttemptOutcome.FAILED, reason="No disk.", again=True
        )
        return ended.state, ended.reason

    assert [try_it()[0] for _ in range(2)] == [RunState.QUEUED] * 2
    assert try_it() == (RunState.FAILED, "No disk. There is no other attempt: it has had 3 attempts already.")
