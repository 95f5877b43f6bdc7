"""Owners, a small catalogue, and a context on a real SQLite file."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from taskcred.domain.credentials import Generated
from taskcred.domain.permissions import Authentication, Principal
from taskcred.domain.policy import NoticePolicy, Policy, RunPolicy
from taskcred.domain.runs import RetryRule, RunView
from taskcred.domain.services import EXECUTORS, principal_id
from taskcred.domain.tasks import Task, TaskKind
from taskcred.services import attempts, credentials, events, registry, runs, starting
from taskcred.services.context import Context
from taskcred.store import audit
from taskcred.store import tables as t
from taskcred.testing import (
    FrozenClock,
    InMemoryIdentityProvider,
    RecordingQueue,
    interactive,
    make_context,
)

REPORT: dict[str, Any] = {
    "type": "object",
    "properties": {
        "epochs": {"type": "integer", "minimum": 1},
        "title": {"type": "string", "maxLength": 20},
        "tags": {"type": "array", "items": {"type": "string"}},
    },
    "required": ["epochs"],
    "additionalProperties": False,
}
TASKS = {
    "report": Task("report", TaskKind.COMMAND, parameters=REPORT, argv=("true",), output_limit=1000),
    "plain": Task("plain", TaskKind.COMMAND, argv=("true",)),
    "stubborn": Task(
        "stubborn",
        TaskKind.COMMAND,
        argv=("true",),
        retry=RetryRule(max_attempts=3, delay=timedelta(seconds=10)),
    ),
    "once": Task("once", TaskKind.COMMAND, argv=("true",), retry=RetryRule(on_lost=False)),
    "train": Task("train", TaskKind.EXTERNAL, output_limit=1000),
    "deploy": Task("deploy", TaskKind.EXTERNAL, retry=RetryRule(on_lost=False), timeout=timedelta(hours=1)),
}
_IN_ALL = {"run_id", "reference"}
WORKER = Principal("worker:one", "", Authentication.WORKER)


@dataclass
class Explained:
    """Statements in order, and the steps of SQLite's plans for those that read or change rows."""

    statements: list[str] = field(default_factory=list)
    plans: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Room:
    """A context with its fakes, and what tests ask again and again."""

    ctx: Context
    clock: FrozenClock
    queue: RecordingQueue
    provider: InMemoryIdentityProvider
    account_id: str

    def owner(self, mail: str = "ann@example.test") -> Principal:
        """A new person of the identity provider, signed in just now; their sign-in told us `mail`."""
        iam_id = self.provider.add_person(self.account_id)
        if mail:
            told = t.owners.insert().values(iam_id=iam_id, email=mail, seen_at=self.clock.now())
            with self.ctx.store.write() as connection:
                connection.execute(told)
        return self.signed_in(iam_id)

    def signed_in(self, iam_id: str) -> Principal:
        """The person, signed in just now."""
        token = self.provider.token(iam_id, self.account_id).token
        return interactive(iam_id, self.account_id, auth_time=self.clock.now(), token=token)

    def give_credential(self, owner: Principal) -> str:
        """The owner makes a task credential; its id."""
        return credentials.create(self.ctx, owner, name="Key", source=Generated()).credential.id

    def run(self, owner: Principal, task: str = "plain") -> RunView:
        """The owner starts a run."""
        return runs.start(self.ctx, owner, task=task, parameters={})

    def service(self, **said: Any) -> Principal:
        """A new service that may start every task, as it calls."""
        given: dict[str, Any] = {"tasks": tuple(TASKS), "executors": EXECUTORS} | said
        new = registry.NewService(f"service-{uuid.uuid4().hex[:8]}", **given)
        service_id = registry.create(self.ctx, audit.OPERATOR, new).service.id
        return Principal(principal_id(service_id), "", Authentication.SERVICE)

    def start(self, service: Principal, owner: Principal, task: str = "train", **more: Any) -> RunView:
        """The service starts a run for the owner, whose token it shows."""
        return starting.start(self.ctx, service, task=task, parameters={}, subject=owner, **more)

    def told(self, service: Principal) -> list[tuple[str, dict[str, Any]]]:
        """What the service was told of its runs, oldest first, without what is in all of it."""
        found = events.poll(self.ctx, service)
        return [
            (each.type, {name: value for name, value in each.data.items() if name not in _IN_ALL})
            for each in found
        ]

    def begin(self, run_id: str) -> attempts.Begun:
        """The worker begins the run's latest dispatch."""
        dispatch_no = max(each.dispatch_no for each in self.queue.enqueued if each.run_id == run_id)
        begun = attempts.begin(self.ctx, WORKER, run_id, dispatch_no)
        assert isinstance(begun, attempts.Begun)
        return begun

    def actions(self, owner: Principal) -> list[str]:
        """The owner's audit trail, oldest first: "action outcome"."""
        with self.ctx.store.read() as connection:
            found = audit.of_owner(connection, owner.account_id, owner.iam_id, limit=500)
        return [f"{each.event.action} {each.event.outcome}" for each in reversed(found)]

    def count(self, table: sa.Table) -> int:
        """Rows of a table."""
        with self.ctx.store.read() as connection:
            return int(connection.execute(sa.select(sa.func.count()).select_from(table)).scalar_one())

    @contextmanager
    def explained(self) -> Iterator[Explained]:
        """What the block asks of the database, and how it is carried out."""
        explained = Explained()

        def record(_conn: Any, cursor: Any, statement: str, parameters: Any, *_rest: Any) -> None:
            explained.statements.append(statement.split(" VALUES")[0])
            if statement.startswith(("SELECT", "UPDATE")):
                plan = cursor.connection.execute(f"EXPLAIN QUERY PLAN {statement}", parameters)
                explained.plans.extend(row[3] for row in plan)

        sa.event.listen(self.ctx.store.engine, "before_cursor_execute", record)
        yield explained
        sa.event.remove(self.ctx.store.engine, "before_cursor_execute", record)

    def park_many(self, number: int, owners: int = 100) -> None:
        """Parked runs of other owners, written directly: how they came to be does not matter here."""
        now = self.clock.now()
        with self.ctx.store.write() as connection:
            connection.execute(
                t.runs.insert(),
                [
                    {
                        "id": str(uuid.uuid4()),
                        "account_id": self.account_id,
                        "iam_id": f"IBMid-other-{index % owners}",
                        "task": "plain",
                        "parameters": {},
                        "state": "waiting_for_credential",
                        "started_by": "x",
                        "created_at": now,
                    }
                    for index in range(number)
                ],
            )


@pytest.fixture
def room(tmp_path: Path) -> Iterator[Room]:
    """Notices go to mail and webhook, too; an owner may have five parked runs."""
    clock, queue = FrozenClock(), RecordingQueue()
    provider = InMemoryIdentityProvider(clock)
    policy = Policy(runs=RunPolicy(max_parked=5), notices=NoticePolicy(mail=True, webhook=True))
    ctx = make_context(
        tmp_path, clock=clock, queue=queue, provider=provider, policy=policy, tasks=dict(TASKS)
    )
    yield Room(ctx, clock, queue, provider, provider.add_account())
    ctx.store.engine.dispose()
