"""Services start runs for owners who are there, or who gave them a grant; nobody else's."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any, cast

import pytest
import sqlalchemy as sa

from taskcred.domain.permissions import Authentication, Principal
from taskcred.domain.runs import Executor, RunState
from taskcred.domain.tasks import Task
from taskcred.errors import (
    ForbiddenError,
    InvalidRequestError,
    NotFoundError,
    PolicyViolationError,
    RateLimitedError,
    TaskcredError,
)
from taskcred.services import grants, prompts, registry, runs, schedules, starting
from taskcred.services.events import service_of
from taskcred.store import audit
from taskcred.store import tables as t
from taskcred.store.service_tables import grants as grants_table
from taskcred.testing import programmatic

from .conftest import Room


def give(room: Room, owner: Principal, service: Principal, *tasks: str, days: int = 30) -> str:
    """The owner gives the service a grant; its id."""
    given = grants.give(
        room.ctx, owner, service_id=service_of(service), tasks=tasks or ("train", "plain"), days=days
    )
    return given.id


def start_under(room: Room, service: Principal, grant_id: str, task: str = "train") -> Any:
    return starting.start(room.ctx, service, task=task, parameters={}, grant_id=grant_id)


def test_what_a_worker_carries_out_is_queued_and_what_the_service_does_is_not(room: Room) -> None:
    owner, service = room.owner(), room.service()
    room.give_credential(owner)
    ours = room.start(service, owner, "plain", reference="cell 1")
    theirs = room.start(service, owner)
    assert (ours.executor, theirs.executor) == (Executor.WORKER, Executor.SERVICE)
    assert [each.run_id for each in room.queue.enqueued] == [ours.id]
    assert (ours.service_id, ours.started_by, ours.reference) == (
        service_of(service),
        service.iam_id,
        "cell 1",
    )
    assert (ours.iam_id, ours.account_id, ours.grant_id) == (owner.iam_id, owner.account_id, None)


@pytest.mark.parametrize("change", ["alike", "removed meanwhile"])
def test_an_owner_is_led_back_to_a_url_of_the_service_only(room: Room, change: str) -> None:
    back = "https://notebooks.example.test/back"
    owner, service = room.owner(), room.service(callback_urls=(back,))
    assert room.start(service, owner, return_to=back).return_to == back
    asked = back
    if change == "alike":
        asked = "https://notebooks.example.test/back?"
    else:
        none = registry.Change(callback_urls=())
        registry.update(room.ctx, audit.OPERATOR, service_of(service), none)
    with pytest.raises(InvalidRequestError) as refused:
        room.start(service, owner, return_to=asked)
    assert refused.value.error_code == "invalid_return_to"
    assert "notebooks" not in str(refused.value)
    assert room.count(t.runs) == 1


def test_an_owner_carries_out_external_runs_on_their_own_machine(room: Room) -> None:
    owner = room.owner()
    room.give_credential(owner)
    run = room.run(owner, "train")
    assert (run.executor, run.state, run.service_id) == (Executor.OWNER, RunState.QUEUED, None)
    assert room.queue.enqueued == []


@pytest.mark.promise("only-what-the-user-started")
def test_on_the_pages_and_by_schedule_nothing_external_starts(room: Room) -> None:
    owner = room.owner()
    on_pages = replace(owner, authentication=Authentication.SESSION)
    for ask in (
        lambda: room.run(on_pages, "train"),
        lambda: schedules.create(room.ctx, owner, name="n", task="train", parameters={}, cron="0 1 * * *"),
    ):
        with pytest.raises(InvalidRequestError) as refused:
            ask()
        assert refused.value.error_code == "external_task"
        assert "taskcred exec" in refused.value.hint
    assert room.count(t.runs) == room.count(t.schedules) == 0


@pytest.mark.promise("parked-not-failed")
def test_without_a_credential_the_run_waits_and_the_answer_tells_the_service(room: Room) -> None:
    owner, service = room.owner(), room.service()
    ours, theirs = room.start(service, owner, "plain"), room.start(service, owner)
    for run in (ours, theirs):
        assert (run.state, run.prompt_id is not None) == (RunState.WAITING_FOR_CREDENTIAL, True)
    assert room.told(service) == []  # the answer to the start says so
    room.give_credential(owner)
    assert room.told(service) == [("run.queued", {"why": "prompt_answered"})] * 2
    assert [each.run_id for each in room.queue.enqueued] == [ours.id]
    assert {each.state for each in runs.list_own(room.ctx, service)[0]} == {RunState.QUEUED}


@pytest.mark.promise("parked-not-failed")
def test_an_owner_who_never_signed_in_here_is_told_by_mail(room: Room) -> None:
    owner, service = replace(room.owner(mail=""), email="ann@example.test", name="Ann"), room.service()
    room.start(service, owner, "plain")
    with room.ctx.store.read() as connection:
        assert connection.execute(sa.select(t.owners.c.email)).scalars().all() == ["ann@example.test"]


@pytest.mark.promise("only-what-the-user-started")
@pytest.mark.parametrize(
    ("how", "code"),
    [
        (Authentication.PROGRAMMATIC, "programmatic_token"),
        (Authentication.RUN_TOKEN, "run_token"),
        (Authentication.SESSION, "programmatic_token"),  # no token is one; whatever it is, it is refused
    ],
)
def test_only_a_person_who_is_there_is_started_for(room: Room, how: Authentication, code: str) -> None:
    owner, service = room.owner(), room.service()
    with pytest.raises(ForbiddenError) as refused:
        room.start(service, replace(owner, authentication=how))
    assert refused.value.error_code == code
    assert refused.value.hint
    assert room.count(t.runs) == 0
    assert room.actions(owner) == ["run:start refused"]


def test_the_refusal_of_a_programs_token_says_what_a_program_does(room: Room) -> None:
    owner, service = room.owner(), room.service()
    with pytest.raises(ForbiddenError) as refused:
        room.start(service, programmatic(owner.iam_id, owner.account_id))
    assert "A program that has an API key uses it directly" in refused.value.hint


@pytest.mark.promise("empty-means-no")
@pytest.mark.parametrize(
    ("said", "task", "code"),
    [
        ({"tasks": ("plain",)}, "train", "task_not_allowed"),
        ({"tasks": ()}, "train", "task_not_allowed"),
        ({"executors": (Executor.WORKER,)}, "train", "executor_not_allowed"),
        ({"executors": (Executor.SERVICE,)}, "plain", "executor_not_allowed"),
    ],
)
def test_a_service_starts_what_it_is_registered_for(
    room: Room, said: dict[str, Any], task: str, code: str
) -> None:
    owner, service = room.owner(), room.service(**said)
    room.give_credential(owner)
    with pytest.raises(ForbiddenError) as refused:
        room.start(service, owner, task)
    assert refused.value.error_code == code
    assert refused.value.hint
    assert room.count(t.runs) == 0


@pytest.mark.promise("at-once")
def test_a_disabled_service_starts_nothing(room: Room) -> None:
    owner, service = room.owner(), room.service()
    registry.disable(room.ctx, audit.OPERATOR, service_of(service))
    with pytest.raises(ForbiddenError) as refused:
        room.start(service, owner)
    assert refused.value.error_code == "service_disabled"


def test_a_task_that_is_not_in_the_catalogue_is_unknown(room: Room) -> None:
    owner, service = room.owner(), room.service()
    cast("dict[str, Task]", room.ctx.tasks).pop("once")  # as after a restart with another configuration
    with pytest.raises(InvalidRequestError) as refused:
        room.start(service, owner, "once")
    assert refused.value.error_code == "unknown_task"


def test_starts_are_counted_over_a_minute(room: Room) -> None:
    owner, service = room.owner(), room.service(starts_per_minute=3)
    other = room.service(starts_per_minute=3)
    room.give_credential(owner)
    room.start(service, owner)
    room.clock.advance(timedelta(seconds=20))
    room.start(service, owner)
    room.start(service, owner, "plain")
    with pytest.raises(RateLimitedError) as refused:
        room.start(service, owner)
    assert refused.value.retry_after == 40
    room.start(other, owner)  # each has its own
    room.run(owner)  # and its owner none
    room.clock.advance(timedelta(seconds=40))
    room.start(service, owner)


def test_what_was_refused_is_no_start(room: Room) -> None:
    owner, service = room.owner(), room.service(starts_per_minute=1, tasks=("train",))
    for _ in range(3):
        with pytest.raises(ForbiddenError):
            room.start(service, owner, "plain")
    room.start(service, owner)
    with pytest.raises(RateLimitedError):
        room.start(service, owner)


def test_an_owner_who_has_too_much_waiting_gets_no_more(room: Room) -> None:
    owner, service = room.owner(), room.service()
    for _ in range(5):
        room.start(service, owner)
    with pytest.raises(PolicyViolationError) as refused:
        room.start(service, owner)
    assert (refused.value.error_code, refused.value.action_url) == (
        "too_many_waiting_runs",
        "https://taskcred.test/prompts",
    )


@pytest.mark.promise("only-what-the-user-started")
def test_under_a_grant_runs_start_while_its_owner_sleeps(room: Room) -> None:
    owner, service = room.owner(), room.service()
    room.give_credential(owner)
    grant_id = give(room, owner, service)
    room.clock.advance(timedelta(days=3))
    run = start_under(room, service, grant_id)
    assert (run.iam_id, run.grant_id, run.state) == (owner.iam_id, grant_id, RunState.QUEUED)
    assert grants.get(room.ctx, service, grant_id).last_used_at == room.clock.now()


@pytest.mark.promise("at-once")
@pytest.mark.parametrize(
    ("is_ended", "days_later", "task", "code"),
    [
        (True, 0, "train", "grant_ended"),
        (False, 30, "train", "grant_expired"),
        (False, 0, "deploy", "task_not_granted"),
    ],
)
def test_a_grant_that_is_over_starts_nothing(
    room: Room, is_ended: bool, days_later: int, task: str, code: str
) -> None:
    owner, service = room.owner(), room.service()
    room.give_credential(owner)
    grant_id = give(room, owner, service)
    if is_ended:
        grants.end(room.ctx, owner, grant_id)
    room.clock.advance(timedelta(days=days_later))
    with pytest.raises(ForbiddenError) as refused:
        start_under(room, service, grant_id, task)
    assert refused.value.error_code == code
    assert refused.value.hint
    assert (refused.value.action_url or "").startswith("https://taskcred.test/grants/new")
    assert room.count(t.runs) == 0
    assert room.actions(owner)[-1] == "run:start refused"
    with room.ctx.store.read() as connection:
        assert connection.execute(sa.select(grants_table.c.last_used_at)).scalars().all() == [None]


@pytest.mark.promise("empty-means-no")
def test_anothers_grant_is_unknown(room: Room) -> None:
    owner, service, other = room.owner(), room.service(), room.service()
    grant_id = give(room, owner, service)
    for asking, asked in ((other, grant_id), (service, "no-such-grant")):
        with pytest.raises(NotFoundError):
            start_under(room, asking, asked)
    with pytest.raises(NotFoundError):
        starting.start(room.ctx, service, task="train", parameters={})


@pytest.mark.promise("only-what-the-user-started")
def test_a_person_who_acts_for_a_service_id_is_in_the_run_and_in_the_audit(room: Room) -> None:
    service = room.service()
    person, service_id = room.owner(), "iam-ServiceId-0001"
    acting = replace(person, iam_id=service_id, acting_iam_id=person.iam_id)
    own = room.run(acting, "train")
    grant_id = give(room, acting, service)
    granted = start_under(room, service, grant_id)
    for run in (own, granted):
        assert (run.iam_id, run.acting_iam_id) == (service_id, person.iam_id)
    with room.ctx.store.read() as connection:
        found = audit.of_owner(connection, acting.account_id, service_id, limit=50)
    started = [each.event for each in found if each.event.action == "run:start"]
    assert {event.details["acting_iam_id"] for event in started} == {person.iam_id}


@pytest.mark.promise("empty-means-no")
def test_a_service_sees_and_cancels_its_own_runs_only(room: Room) -> None:
    owner, service, other = room.owner(), room.service(), room.service()
    room.give_credential(owner)
    run, mine = room.start(service, owner), room.run(owner)
    assert [each.id for each in runs.list_own(room.ctx, service)[0]] == [run.id]
    assert runs.list_own(room.ctx, other)[0] == []
    for hidden, asking in ((run, other), (mine, service)):
        for ask in (runs.get, runs.cancel, runs.attempts, runs.output):
            with pytest.raises(NotFoundError):
                ask(room.ctx, asking, hidden.id)
    assert {each.id for each in runs.list_own(room.ctx, owner)[0]} == {run.id, mine.id}


@pytest.mark.parametrize("by_owner", [True, False])
def test_what_has_not_begun_is_cancelled_at_once(room: Room, by_owner: bool) -> None:
    owner, service = room.owner(), room.service()
    run = room.start(service, owner)
    cancelled = runs.cancel(room.ctx, owner if by_owner else service, run.id)
    reason = "Cancelled by its owner." if by_owner else "Cancelled by the service that started it."
    assert (cancelled.state, cancelled.reason) == (RunState.CANCELLED, reason)
    assert room.told(service) == [("run.ended", {"state": "cancelled", "reason_text": reason})]
    assert prompts.get(room.ctx, owner, run.prompt_id or "").state == "withdrawn"


def test_every_refusal_of_a_start_is_of_the_tree(room: Room) -> None:
    """Nothing else can reach a service than what docs/errors.md lists."""
    owner, service = room.owner(), room.service()
    for parameters in ({"epochs": 0}, {"epochs": "many"}, {}):
        with pytest.raises(TaskcredError) as refused:
            starting.start(room.ctx, service, task="report", parameters=parameters, subject=owner)
        assert (refused.value.error_code, bool(refused.value.hint)) == ("invalid_parameters", True)
