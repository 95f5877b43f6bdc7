"""Owners are asked for a credential, once, and told until they answer."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from taskcred.domain.credentials import Generated, Provided
from taskcred.domain.permissions import Principal
from taskcred.domain.runs import PromptState, RunState
from taskcred.errors import ConflictError, ForbiddenError, NotFoundError
from taskcred.services import answering, attempts, credentials, intents, notices, prompts, runs, schedules
from taskcred.store import audit
from taskcred.store import tables as t
from taskcred.testing import Failure, programmatic

from .conftest import WORKER, Explained, Room


def _open_prompt(room: Room, owner: Principal) -> str:
    (prompt,) = prompts.list_own(room.ctx, owner, state=PromptState.OPEN)[0]
    return prompt.id


@pytest.mark.promise("parked-not-failed")
@pytest.mark.parametrize("origin", ["generated", "provided"])
def test_an_answer_queues_every_parked_run_of_the_owner(room: Room, origin: str) -> None:
    owner, other = room.owner(), room.owner()
    waiting = []
    for _ in range(3):
        waiting.append(room.run(owner).id)
        room.clock.advance(timedelta(seconds=1))
    others = room.run(other)
    source = (
        Generated()
        if origin == "generated"
        else Provided(room.provider.add_key(owner.iam_id, owner.account_id))
    )
    prompt_id = _open_prompt(room, owner)

    created = answering.answer(room.ctx, owner, prompt_id, source, "Nightly work")

    assert created.credential.name == "Nightly work"
    assert [each.run_id for each in room.queue.enqueued] == waiting
    for run_id in waiting:
        assert runs.get(room.ctx, owner, run_id).state is RunState.QUEUED
        assert isinstance(attempts.begin(room.ctx, WORKER, run_id, 1), attempts.Begun)
    assert prompts.get(room.ctx, owner, prompt_id).state is PromptState.ANSWERED
    assert runs.get(room.ctx, other, others.id).state is RunState.WAITING_FOR_CREDENTIAL


def test_creating_a_credential_answers_the_prompt_as_well(room: Room) -> None:
    owner = room.owner()
    run = room.run(owner)
    room.give_credential(owner)
    assert runs.get(room.ctx, owner, run.id).state is RunState.QUEUED
    assert prompts.list_own(room.ctx, owner, state=PromptState.OPEN)[0] == []


def _who_answered(room: Room) -> list[tuple[str, str]]:
    with room.ctx.store.read() as connection:
        c = t.audit_events.c
        rows = connection.execute(sa.select(c.actor, c.actor_kind).where(c.action == "prompt:answer"))
        return [(row.actor, row.actor_kind) for row in rows]


@pytest.mark.parametrize("finished_by", ["request", "keeper"])
def test_an_answer_is_recorded_as_its_owners_whoever_finished_it(room: Room, finished_by: str) -> None:
    owner = room.owner()
    room.run(owner)
    if finished_by == "keeper":
        room.provider.script("create_key", Failure.COMMIT_THEN_DROP)
        room.provider.script("key_details", Failure.UNAVAILABLE)
    created = answering.answer(room.ctx, owner, _open_prompt(room, owner), Generated())
    assert (created.stage == "done") is (finished_by == "request")
    room.clock.advance(timedelta(minutes=1))
    intents.advance_due(room.ctx, "keeper")
    assert _who_answered(room) == [(owner.iam_id, "person")]


def test_a_programs_key_is_recorded_as_the_programs_answer(room: Room) -> None:
    owner = room.owner()
    room.run(owner)
    key = room.provider.add_key(owner.iam_id, owner.account_id)
    program = programmatic(owner.iam_id, owner.account_id)
    credentials.create(room.ctx, program, name="work", source=Provided(key))
    assert _who_answered(room) == [(owner.iam_id, "program")]


def test_an_unlock_that_answers_a_prompt_is_recorded_as_the_operators(room: Room) -> None:
    owner = room.owner()
    credential_id = room.give_credential(owner)
    credentials.lock(room.ctx, audit.OPERATOR, credential_id, "Under investigation.")
    room.run(owner)
    credentials.unlock(room.ctx, audit.OPERATOR, credential_id)
    assert _who_answered(room) == [("operator", "operator")]


def test_an_owner_has_one_open_prompt_however_much_waits(room: Room) -> None:
    owner = room.owner()
    for _ in range(3):
        room.run(owner)
    schedules.create(room.ctx, owner, name="n", task="plain", parameters={}, cron="0 6 * * *")
    (prompt,), _ = prompts.list_own(room.ctx, owner)
    assert prompt.waiting_runs == 3
    assert len(notices.own(room.ctx, owner)) == 1


def test_a_refused_key_is_replaced_in_place(room: Room) -> None:
    owner = room.owner()
    credential_id = room.give_credential(owner)
    run = room.run(owner)
    room.clock.advance(timedelta(hours=2))
    room.provider.script("exchange", Failure.REFUSE)
    attempts.begin(room.ctx, WORKER, run.id, 1)
    owner = room.signed_in(owner.iam_id)

    created = answering.answer(room.ctx, owner, _open_prompt(room, owner), Generated())

    assert created.credential.id == credential_id
    assert runs.get(room.ctx, owner, run.id).state is RunState.QUEUED
    assert room.queue.enqueued[-1].dispatch_no == 2


def test_a_lock_is_not_lifted_by_an_answer(room: Room) -> None:
    owner = room.owner()
    credential_id = room.give_credential(owner)
    credentials.lock(room.ctx, audit.OPERATOR, credential_id, "Under investigation.")
    run = room.run(owner)
    with pytest.raises(ConflictError) as caught:
        answering.answer(room.ctx, owner, _open_prompt(room, owner), Generated())
    assert caught.value.error_code == "credential_locked"
    assert "operator" in caught.value.hint

    credentials.unlock(room.ctx, audit.OPERATOR, credential_id)
    assert runs.get(room.ctx, owner, run.id).state is RunState.QUEUED


def test_a_prompt_is_answered_once(room: Room) -> None:
    owner = room.owner()
    room.run(owner)
    prompt_id = _open_prompt(room, owner)
    answering.answer(room.ctx, owner, prompt_id, Generated())
    with pytest.raises(ConflictError) as caught:
        answering.answer(room.ctx, owner, prompt_id, Generated())
    assert caught.value.error_code == "prompt_closed"


def test_only_the_owner_can_answer(room: Room) -> None:
    owner, stranger = room.owner(), room.owner()
    room.run(owner)
    prompt_id = _open_prompt(room, owner)
    for call in (prompts.get, lambda *a: answering.answer(*a, Generated())):
        with pytest.raises(NotFoundError):
            call(room.ctx, stranger, prompt_id)
    assert room.count(t.task_credentials) == 0


def test_an_answer_needs_a_recent_sign_in(room: Room) -> None:
    owner = room.owner()
    room.run(owner)
    room.clock.advance(timedelta(minutes=16))
    with pytest.raises(ForbiddenError) as caught:
        answering.answer(room.ctx, owner, _open_prompt(room, owner), Generated())
    assert caught.value.error_code == "fresh_sign_in_required"


def test_an_owner_is_told_when_it_opens_and_daily(room: Room) -> None:
    owner = room.owner()
    run = room.run(owner)
    told = [prompts.remind_due(room.ctx)]
    for _ in range(3):
        room.clock.advance(timedelta(days=1))
        told += [prompts.remind_due(room.ctx), prompts.remind_due(room.ctx)]
    assert told == [0, 1, 0, 1, 0, 1, 0]
    (notice,) = notices.own(room.ctx, owner)
    assert notice.kind == "prompt.reminder"
    assert notice.payload["path"] == f"/prompts/{run.prompt_id}"

    room.give_credential(room.signed_in(owner.iam_id))
    room.clock.advance(timedelta(days=2))
    assert prompts.remind_due(room.ctx) == 0
    assert notices.own(room.ctx, owner) == []


def test_what_was_missed_is_reminded_of_once(room: Room) -> None:
    room.run(room.owner())
    room.clock.advance(timedelta(days=30))
    assert [prompts.remind_due(room.ctx) for _ in range(2)] == [1, 0]


@pytest.mark.promise("audited-or-refused")
def test_parking_the_prompt_and_the_notices_commit_together_or_not_at_all(room: Room) -> None:
    owner = room.owner()

    def fail_at_the_audit(_conn: Any, _cursor: Any, statement: str, *_rest: Any) -> None:
        if "INSERT INTO audit_events" in statement:
            raise RuntimeError("the audit event cannot be written")

    sa.event.listen(room.ctx.store.engine, "before_cursor_execute", fail_at_the_audit)
    with pytest.raises(RuntimeError):
        room.run(owner)

    assert [room.count(table) for table in (t.runs, t.prompts, t.notices)] == [0, 0, 0]


def _settle(room: Room) -> Explained:
    owner = room.owner()
    for _ in range(3):
        room.run(owner)
    with room.ctx.store.write() as connection, room.explained() as explained:
        assert prompts.settle(room.ctx, connection, owner.account_id, owner.iam_id, audit.KEEPER) == 3
    return explained


@pytest.mark.only_on("sqlite")  # it reads SQLite's plans
def test_other_owners_parked_runs_cost_an_answer_nothing(room: Room) -> None:
    alone = _settle(room)
    room.park_many(10_000)
    among_many = _settle(room)

    assert among_many.statements == alone.statements
    assert not [plan for plan in among_many.plans if plan.startswith("SCAN")]
    used = " ".join(among_many.plans)
    assert "ix_runs_state (state=? AND account_id=? AND iam_id=?)" in used
    assert "uq_prompts_one_open" in used
