"""Grants after a restore: what was withdrawn since stays withdrawn; without the log nothing is granted."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import pytest

from taskcred.backup import backup
from taskcred.config import Settings
from taskcred.domain.grants import GrantEnd, GrantState
from taskcred.domain.permissions import Authentication, Principal
from taskcred.domain.runs import Executor, RunState
from taskcred.domain.tasks import Task, TaskKind
from taskcred.services import events, grants, registry, runs, starting
from taskcred.services.context import Context
from taskcred.services.registry import NewService
from taskcred.store import audit
from taskcred.testing import interactive

from .test_restored_services import restored

TASKS = {name: Task(name, TaskKind.EXTERNAL) for name in ("read", "write")}


class Installation(Protocol):
    settings: Settings
    ctx: Context


Opened = Callable[[Settings], Installation]


@pytest.fixture
def ctx(before: Installation) -> Context:
    """What the installation before the restore works with."""
    return dataclasses.replace(before.ctx, tasks=TASKS)


def _owner(ctx: Context, name: str) -> Principal:
    return interactive(name, "acc", auth_time=ctx.clock.now())


def _service(ctx: Context) -> str:
    new = NewService("notebooks", tuple(TASKS), executors=(Executor.SERVICE,))
    return registry.create(ctx, audit.OPERATOR, new).service.id


def _start(ctx: Context, service_id: str, grant_id: str, task: str = "read") -> str:
    service = Principal(f"service:{service_id}", "", Authentication.SERVICE)
    return starting.start(ctx, service, task=task, parameters={}, grant_id=grant_id).id


@pytest.mark.promise("at-once")
def test_what_was_withdrawn_or_narrowed_since_stays_so(
    before: Installation, ctx: Context, opened: Opened, tmp_path: Path
) -> None:
    service_id = _service(ctx)
    owners = [_owner(ctx, name) for name in ("IBMid-withdraws", "IBMid-narrows", "IBMid-keeps")]
    given = [grants.give(ctx, owner, service_id=service_id, tasks=list(TASKS)).id for owner in owners]
    started = [_start(ctx, service_id, grant_id) for grant_id in given]
    backup(before.settings, tmp_path / "then.tar")
    grants.end(ctx, owners[0], given[0])
    grants.give(ctx, owners[1], service_id=service_id, tasks=["read"])

    after = restored(before, tmp_path / "then.tar", opened).ctx
    found = [grants.get(after, owner, grant_id).state for owner, grant_id in zip(owners, given, strict=True)]
    assert found == [GrantState.ENDED, GrantState.ENDED, GrantState.ACTIVE]
    states = [runs.get(after, owner, run_id).state for owner, run_id in zip(owners, started, strict=True)]
    assert states == [RunState.CANCELLED, RunState.CANCELLED, RunState.WAITING_FOR_CREDENTIAL]
    with after.store.read() as connection:
        newest = audit.of_owner(connection, "acc", owners[0].iam_id)[:2]
    assert [each.event.action for each in newest] == ["run:end", "grant:end"]


@pytest.mark.parametrize("told_before", [0, 2])
def test_a_service_that_polls_misses_nothing_that_follows(
    before: Installation, ctx: Context, opened: Opened, tmp_path: Path, told_before: int
) -> None:
    service_id = _service(ctx)
    for number in range(told_before):
        grants.give(ctx, _owner(ctx, f"IBMid-{number}"), service_id=service_id, tasks=["read"])
    backup(before.settings, tmp_path / "then.tar")
    grants.give(ctx, _owner(ctx, "IBMid-since"), service_id=service_id, tasks=["read"])
    service = Principal(f"service:{service_id}", "", Authentication.SERVICE)
    seen = events.poll(ctx, service)[-1].id

    after = dataclasses.replace(restored(before, tmp_path / "then.tar", opened).ctx, tasks=TASKS)
    grants.give(after, _owner(after, "IBMid-later"), service_id=service_id, tasks=["read"])
    (event,) = events.poll(after, service, after=seen)
    assert event.data["iam_id"] == "IBMid-later"


@pytest.mark.promise("empty-means-no")
def test_without_the_log_every_grant_has_ended(
    before: Installation, ctx: Context, opened: Opened, tmp_path: Path
) -> None:
    service_id, owner = _service(ctx), _owner(ctx, "IBMid-ann")
    grant_id = grants.give(ctx, owner, service_id=service_id, tasks=list(TASKS)).id
    backup(before.settings, tmp_path / "then.tar")
    assert before.settings.revocations_dir
    (before.settings.revocations_dir / "revocations.jsonl").unlink()
    after = restored(before, tmp_path / "then.tar", opened).ctx
    grant = grants.get(after, owner, grant_id)
    assert (grant.state, grant.end_reason) == (GrantState.ENDED, GrantEnd.OPERATOR)
