"""The end of a grant takes everything with it: keys, jobs, what waits. And its owner and service are told."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from taskcred.domain.credentials import Generated
from taskcred.domain.grants import GrantEnd, GrantState
from taskcred.domain.permissions import Authentication, Principal
from taskcred.domain.runs import PromptState, RunState
from taskcred.errors import ConflictError, ForbiddenError, KeyRefusedError
from taskcred.services import (
    attempts,
    credentials,
    executions,
    grant_endings,
    grants,
    notices,
    prompts,
    registry,
    reports,
    retention,
    runs,
    starting,
)
from taskcred.services.broker import TokenBroker
from taskcred.store import audit
from taskcred.store import tables as t
from taskcred.store.service_tables import grants as rows
from taskcred.testing import RecordingRevocations, Revoked

from .conftest import Room, as_service

WORKER = Principal("worker:one", "", Authentication.WORKER)
BOTH = ["report", "train"]


def _key(room: Room, owner: Principal) -> None:
    credentials.create(room.ctx, owner, name="Key", source=Generated())


def _start(room: Room, service_id: str, grant_id: str, task: str = "train") -> str:
    service = as_service(service_id)
    return starting.start(
        room.ctx, service, task=task, parameters={}, grant_id=grant_id, reference="cell 7"
    ).id


def _give(room: Room, owner: Principal, service_id: str, tasks: list[str] = BOTH, days: int = 90) -> str:
    return grants.give(room.ctx, owner, service_id=service_id, tasks=tasks, days=days).id


def _begin(room: Room, service_id: str, run_id: str) -> attempts.Begun:
    return executions.begin(room.ctx, as_service(service_id), run_id)


def _state(room: Room, owner: Principal, run_id: str) -> tuple[RunState, str]:
    run = runs.get(room.ctx, owner, run_id)
    return run.state, run.reason


@pytest.mark.promise("at-once")
def test_its_end_kills_the_keys_of_what_runs_under_it(room: Room) -> None:
    owner, service_id = room.owner(), room.service()
    _key(room, owner)
    grant_id = _give(room, owner, service_id)
    other = runs.start(room.ctx, owner, task="report", parameters={}).id
    external, worked = _start(room, service_id, grant_id), _start(room, service_id, grant_id, "report")
    broker = TokenBroker(room.ctx)
    begun = _begin(room, service_id, external)
    begun_by_worker = attempts.begin(room.ctx, WORKER, worked, 1)
    untouched = attempts.begin(room.ctx, WORKER, other, 1)
    assert isinstance(begun_by_worker, attempts.Begun)
    assert isinstance(untouched, attempts.Begun)
    broker.refresh_changes()
    keys = [each.standin_key.reveal().encode() for each in (begun, begun_by_worker)]
    for key in keys:
        broker.issue(key)

    grants.end(room.ctx, owner, grant_id)

    for key in keys:
        with pytest.raises(KeyRefusedError):
            broker.issue(key)
    broker.issue(untouched.standin_key.reveal().encode())
    ended = (RunState.CANCELLED, grant_endings.ENDED_REASON)
    assert [_state(room, owner, run_id) for run_id in (external, worked)] == [ended, ended]
    assert _state(room, owner, other)[0] is RunState.RUNNING
    # Whoever carries a job out hears of it, and nothing that they say brings it back.
    with pytest.raises(ConflictError) as over:
        executions.heartbeat(room.ctx, as_service(service_id), external, begun.attempt_id)
    assert over.value.error_code == "attempt_ended"
    assert reports.heartbeat(room.ctx, [begun_by_worker.attempt_id, untouched.attempt_id]) == {
        begun_by_worker.attempt_id
    }
    attempts.lost(room.ctx, begun_by_worker.attempt_id)
    assert _state(room, owner, worked) == ended


@pytest.mark.promise("at-once")
def test_its_end_cancels_what_waits(room: Room) -> None:
    owner, service_id = room.owner(), room.service()
    grant_id = _give(room, owner, service_id)
    parked = [_start(room, service_id, grant_id, task) for task in BOTH]
    (prompt,) = prompts.list_own(room.ctx, owner)[0]
    grants.end(room.ctx, owner, grant_id)
    for run_id in parked:
        assert _state(room, owner, run_id)[0] is RunState.CANCELLED
    assert prompts.get(room.ctx, owner, prompt.id).state is PromptState.WITHDRAWN
    with pytest.raises(ForbiddenError):
        _start(room, service_id, grant_id)


def test_the_service_is_told_in_the_order_of_things(room: Room) -> None:
    owner, service_id = room.owner(), room.service()
    _key(room, owner)
    grant_id = _give(room, owner, service_id)
    run_id = _start(room, service_id, grant_id)
    begun = _begin(room, service_id, run_id)
    grants.end(room.ctx, owner, grant_id)
    told = [(each.type, each.data) for each in room.told(service_id)][1:]
    of_run = {"run_id": run_id, "reference": "cell 7", "reason_text": grant_endings.ENDED_REASON}
    assert told == [
        ("attempt.ended", {**of_run, "attempt_id": begun.attempt_id, "outcome": "cancelled"}),
        ("run.ended", {**of_run, "state": "cancelled"}),
        (
            "grant.ended",
            {
                "grant_id": grant_id,
                "account_id": owner.account_id,
                "iam_id": owner.iam_id,
                "reason": "owner",
            },
        ),
    ]


@pytest.mark.promise("audited-or-refused")
def test_all_of_it_is_in_the_owners_audit_trail(room: Room) -> None:
    owner, service_id = room.owner(), room.service()
    _key(room, owner)
    grant_id = _give(room, owner, service_id)
    _begin(room, service_id, _start(room, service_id, grant_id))
    grants.end(room.ctx, owner, grant_id)
    with room.ctx.store.read() as connection:
        found = audit.of_owner(connection, owner.account_id, owner.iam_id, limit=4)
    assert [(each.event.action, each.event.actor.id) for each in reversed(found)] == [
        ("attempt:begin", f"service:{service_id}"),
        ("attempt:end", owner.iam_id),
        ("run:end", owner.iam_id),
        ("grant:end", owner.iam_id),
    ]


@pytest.mark.promise("audited-or-refused")
def test_what_cannot_be_recorded_does_not_end(room: Room) -> None:
    owner, service_id = room.owner(), room.service()
    _key(room, owner)
    grant_id = _give(room, owner, service_id)
    run_id = _start(room, service_id, grant_id)
    begun = _begin(room, service_id, run_id)

    def fail_at_the_end(_conn: Any, _cursor: Any, statement: str, parameters: Any, *_rest: Any) -> None:
        if "INSERT INTO audit_events" in statement and "grant:end" in str(parameters):
            raise RuntimeError("full")

    sa.event.listen(room.ctx.store.engine, "before_cursor_execute", fail_at_the_end)
    with pytest.raises(RuntimeError, match="full"):
        grants.end(room.ctx, owner, grant_id)
    sa.event.remove(room.ctx.store.engine, "before_cursor_execute", fail_at_the_end)
    assert grants.get(room.ctx, owner, grant_id).state is GrantState.ACTIVE
    assert _state(room, owner, run_id)[0] is RunState.RUNNING
    broker = TokenBroker(room.ctx)
    broker.refresh_changes()
    broker.issue(begun.standin_key.reveal().encode())


def test_what_runs_goes_on_where_a_grant_only_expires(room: Room) -> None:
    owner, service_id = room.owner(), room.service()
    _key(room, owner)
    grant_id = _give(room, owner, service_id, days=1)
    run_id = _start(room, service_id, grant_id)
    _begin(room, service_id, run_id)
    room.clock.advance(timedelta(days=1))
    assert grant_endings.expire_due(room.ctx) == 1
    assert _state(room, owner, run_id)[0] is RunState.RUNNING
    with pytest.raises(ForbiddenError) as refused:
        _start(room, service_id, grant_id)
    assert refused.value.error_code == "grant_expired"
    assert f"service={service_id}" in (refused.value.action_url or "")


def test_a_new_consent_keeps_what_it_still_names_and_ends_the_rest(room: Room) -> None:
    owner, service_id = room.owner(), room.service()
    _key(room, owner)
    first = _give(room, owner, service_id)
    kept, left_out = _start(room, service_id, first), _start(room, service_id, first, "report")
    begun = _begin(room, service_id, kept)
    second = _give(room, owner, service_id, ["train"])
    assert _state(room, owner, kept)[0] is RunState.RUNNING
    assert _state(room, owner, left_out)[0] is RunState.CANCELLED
    assert executions.heartbeat(room.ctx, as_service(service_id), kept, begun.attempt_id) is False
    # What went on belongs to the new one: its end is the end of it.
    grants.end(room.ctx, owner, second)
    assert _state(room, owner, kept)[0] is RunState.CANCELLED


def test_a_renewed_grant_interrupts_nothing_after_its_date(room: Room) -> None:
    owner, service_id = room.owner(), room.service()
    _key(room, owner)
    first = _give(room, owner, service_id, days=1)
    run_id = _start(room, service_id, first)
    room.clock.advance(timedelta(days=1, seconds=1))
    owner = room.signed_in(owner.iam_id)
    _give(room, owner, service_id)
    assert _state(room, owner, run_id)[0] is RunState.QUEUED
    assert grants.get(room.ctx, owner, first).state is GrantState.EXPIRED
    assert grant_endings.expire_due(room.ctx) == 0


def test_with_its_service_a_grant_ends_and_the_owner_is_told(room: Room) -> None:
    owner = room.owner()
    _key(room, owner)
    made = registry.create(
        room.ctx, audit.OPERATOR, registry.NewService("books", tuple(BOTH), title="Notebooks")
    )
    service_id = made.service.id
    grant_id = _give(room, owner, service_id)
    run_id = _start(room, service_id, grant_id)
    registry.end(room.ctx, audit.OPERATOR, service_id)
    grant = grants.get(room.ctx, owner, grant_id)
    assert (grant.state, grant.end_reason) == (GrantState.ENDED, GrantEnd.SERVICE_ENDED)
    assert _state(room, owner, run_id)[0] is RunState.CANCELLED
    (notice,) = [each for each in notices.own(room.ctx, owner) if each.kind == "grant_ended"]
    assert "Notebooks" in notice.payload["text"]


def test_an_owner_is_told_a_week_before_and_not_twice(room: Room) -> None:
    owner, service_id = room.owner(), room.service()
    _give(room, room.owner(), service_id, days=7)
    grant_id = _give(room, owner, service_id, days=30)
    room.clock.advance(timedelta(days=23) - timedelta(seconds=1))
    assert grant_endings.remind_due(room.ctx) == 0
    room.clock.advance(timedelta(seconds=1))
    assert (grant_endings.remind_due(room.ctx), grant_endings.remind_due(room.ctx)) == (1, 0)
    owner = room.signed_in(owner.iam_id)
    (notice,) = notices.own(room.ctx, owner)
    assert (notice.kind, notice.payload["grant_id"]) == ("grant_expiring", grant_id)
    assert notice.payload["path"] == f"/grants/new?service={service_id}&tasks=report,train"
    _give(room, owner, service_id)
    assert notices.own(room.ctx, owner) == []  # renewed: it is no longer true


def test_an_end_is_in_the_log_that_outlives_a_restore(room: Room) -> None:
    owner, service_id = room.owner(), room.service()
    grant_id = _give(room, owner, service_id)
    grants.end(room.ctx, owner, grant_id)
    log = room.ctx.revocations
    assert isinstance(log, RecordingRevocations)
    assert log.entries == [Revoked("grant", grant_id, owner.account_id, owner.iam_id)]


def test_ended_grants_are_forgotten_with_their_runs(room: Room) -> None:
    owner, service_id = room.owner(), room.service()
    grants.end(room.ctx, owner, _give(room, owner, service_id))
    _give(room, owner, service_id)
    room.clock.advance(room.ctx.policy.runs.retention + timedelta(seconds=1))
    retention.sweep(room.ctx)
    assert room.count(rows) == 1
    assert room.count(t.audit_events) > 0
