"""Every commit of a start, a begin, a heartbeat and an end, crashed before and after it: the executor, whose
answer was lost, asks again, and nothing is lost, doubled or alive that should not be."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa

from taskcred.domain.credentials import Generated
from taskcred.domain.permissions import Authentication, Principal
from taskcred.domain.runs import AttemptOutcome, RunState
from taskcred.domain.services import principal_id
from taskcred.domain.tasks import Task, TaskKind
from taskcred.services import credentials, events, executions, registry, runs, starting
from taskcred.services.attempts import Begun
from taskcred.services.context import Context
from taskcred.store import audit
from taskcred.store import tables as t
from taskcred.store import tokens as token_store
from taskcred.store.engine import Store
from taskcred.testing import FrozenClock, InMemoryIdentityProvider, interactive, make_context


class CrashError(BaseException):
    """kill -9: no handler of ours softens it."""


class Fused(Store):
    """Records that crash the process before or after commit number `at`."""

    def __init__(self, inner: Store, at: int, side: str) -> None:
        super().__init__(inner.engine, inner.epoch)
        self._left, self._side = at, side

    @contextmanager
    def write(self, *, shared: bool = False) -> Iterator[sa.Connection]:
        self._left -= 1
        if self._left == 0 and self._side == "before":
            raise CrashError
        with super().write(shared=shared) as connection:
            yield connection
        if self._left == 0:
            raise CrashError


@dataclass
class Scene:
    """A service and an owner with a credential, whose cached token has run out."""

    ctx: Context
    clock: FrozenClock
    service: Principal
    owner: Principal

    def start(self, ctx: Context) -> str:
        return starting.start(ctx, self.service, task="train", parameters={}, subject=self.owner).id

    def outcomes(self) -> list[AttemptOutcome | None]:
        (run,) = runs.list_own(self.ctx, self.owner)[0]
        return [attempt.outcome for attempt in runs.attempts(self.ctx, self.owner, run.id)]

    def is_live(self, begun: Begun) -> bool:
        with self.ctx.store.read() as connection:
            holder = token_store.holder_of(connection, begun.standin_key.digest())
        return holder is not None and holder.may_have_tokens

    def audited(self) -> list[str]:
        with self.ctx.store.read() as connection:
            found = audit.of_owner(connection, self.owner.account_id, self.owner.iam_id, limit=100)
        return sorted(each.event.action for each in found if each.event.action[:3] in {"run", "att"})


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    clock = FrozenClock()
    provider = InMemoryIdentityProvider(clock)
    tasks = {"train": Task("train", TaskKind.EXTERNAL)}
    ctx = make_context(tmp_path, clock=clock, provider=provider, tasks=tasks)
    account_id = provider.add_account()
    iam_id = provider.add_person(account_id)
    token = provider.token(iam_id, account_id).token
    owner = interactive(iam_id, account_id, auth_time=clock.now(), token=token)
    credentials.create(ctx, owner, name="Key", source=Generated())
    made = registry.create(ctx, audit.OPERATOR, registry.NewService("engine", ("train",)))
    clock.advance(timedelta(hours=2))
    service = Principal(principal_id(made.service.id), "", Authentication.SERVICE)
    yield Scene(ctx, clock, service, owner)
    ctx.store.engine.dispose()


def crash(scene: Scene, at: int, side: str, work: Callable[[Context], object]) -> bool:
    """Whether `work` came as far as that commit."""
    try:
        work(replace(scene.ctx, store=Fused(scene.ctx.store, at, side)))
    except CrashError:
        scene.clock.advance(timedelta(seconds=20))  # leases of the dead process run out
        return True
    return False


POINTS = pytest.mark.parametrize(
    ("at", "side"), [(at, side) for at in (1, 2, 3) for side in ("before", "after")]
)


@POINTS
@pytest.mark.promise("audited-or-refused")
def test_a_start_happened_with_all_that_belongs_to_it_or_not_at_all(scene: Scene, at: int, side: str) -> None:
    crashed = crash(scene, at, side, scene.start)
    assert crashed == (at == 1)  # a start is one commit
    happened = not crashed or side == "after"
    assert len(runs.list_own(scene.ctx, scene.service)[0]) == happened
    assert scene.audited() == ["run:start"] * happened


@POINTS
@pytest.mark.promise("dead-with-the-run")
def test_a_begin_whose_answer_was_lost_is_asked_again(scene: Scene, at: int, side: str) -> None:
    run_id = scene.start(scene.ctx)
    crashed = crash(scene, at, side, lambda ctx: executions.begin(ctx, scene.service, run_id))
    assert crashed  # the lease, the token, the attempt
    is_begun = (at, side) == (3, "after")
    assert scene.outcomes() == [None] * is_begun
    lost_key = _digests(scene)
    begun = executions.begin(scene.ctx, scene.service, run_id)
    assert scene.is_live(begun)
    assert scene.outcomes() == [AttemptOutcome.LOST] * is_begun + [None]
    with scene.ctx.store.read() as connection:
        holders = [token_store.holder_of(connection, digest) for digest in lost_key]
    assert [holder is not None and holder.may_have_tokens for holder in holders] == [False] * is_begun
    assert scene.audited().count("attempt:begin") == 1 + is_begun


def _digests(scene: Scene) -> list[bytes]:
    with scene.ctx.store.read() as connection:
        return list(connection.execute(sa.select(t.attempts.c.standin_digest)).scalars())


@POINTS
@pytest.mark.parametrize("outcome", [AttemptOutcome.SUCCEEDED, AttemptOutcome.FAILED])
@pytest.mark.promise("dead-with-the-run")
def test_an_end_whose_answer_was_lost_is_said_again(
    scene: Scene, at: int, side: str, outcome: AttemptOutcome
) -> None:
    run_id = scene.start(scene.ctx)
    begun = executions.begin(scene.ctx, scene.service, run_id)

    def end(ctx: Context) -> runs.RunView:
        return executions.end(ctx, scene.service, run_id, begun.attempt_id, outcome)

    crashed = crash(scene, at, side, end)
    assert crashed == (at == 1)  # an end is one commit
    assert scene.is_live(begun) == (crashed and side == "before")
    ended = end(scene.ctx)
    assert (ended.state, scene.outcomes()) == (RunState(outcome.value), [outcome])
    assert not scene.is_live(begun)
    assert scene.audited() == ["attempt:begin", "attempt:end", "run:end", "run:start"]
    assert [event.type for event in events.poll(scene.ctx, scene.service)] == ["run.ended"]


@POINTS
def test_a_heartbeat_whose_answer_was_lost_is_sent_again(scene: Scene, at: int, side: str) -> None:
    run_id = scene.start(scene.ctx)
    begun = executions.begin(scene.ctx, scene.service, run_id)

    def beat(ctx: Context) -> bool:
        return executions.heartbeat(
            ctx, scene.service, run_id, begun.attempt_id, progress=executions.Progress(1, 2)
        )

    assert crash(scene, at, side, beat) == (at == 1)
    assert beat(scene.ctx) is False
    assert runs.get(scene.ctx, scene.owner, run_id).progress_done == 1
