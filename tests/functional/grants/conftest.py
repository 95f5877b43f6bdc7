"""An owner, a few services, and a context on a real SQLite file."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from taskcred.domain.permissions import Authentication, Principal
from taskcred.domain.tasks import Task, TaskKind
from taskcred.services import events
from taskcred.services.context import Context
from taskcred.store.events import StoredEvent
from taskcred.store.service_tables import services
from taskcred.testing import (
    FrozenClock,
    InMemoryIdentityProvider,
    RecordingQueue,
    interactive,
    make_context,
)

TASKS = {
    "report": Task("report", TaskKind.COMMAND, title="Nightly report", argv=("true",)),
    "train": Task("train", TaskKind.EXTERNAL),
    "hidden": Task("hidden", TaskKind.COMMAND, argv=("true",)),
}


@dataclass(frozen=True)
class Room:
    """A context with its fakes, and what tests ask again and again."""

    ctx: Context
    clock: FrozenClock
    queue: RecordingQueue
    provider: InMemoryIdentityProvider
    account_id: str

    def owner(self) -> Principal:
        """A new person, signed in just now."""
        return self.signed_in(self.provider.add_person(self.account_id))

    def signed_in(self, iam_id: str) -> Principal:
        """The person, signed in just now."""
        token = self.provider.token(iam_id, self.account_id).token
        return interactive(iam_id, self.account_id, auth_time=self.clock.now(), token=token)

    def service(self, **values: Any) -> str:
        """A registered service that may start "report" and "train"; its id."""
        service_id = str(uuid.uuid4())
        row = {
            "id": service_id,
            "name": f"service-{service_id[:8]}",
            "title": "Notebook server",
            "state": "active",
            "tasks": ["report", "train"],
            "executors": ["worker", "service"],
            "starts_per_minute": 60,
            "callback_urls": ["https://notebooks.example.test/back"],
            "created_at": self.clock.now(),
            "created_by": "operator",
        }
        with self.ctx.store.write() as connection:
            connection.execute(services.insert().values(row | values))
        return service_id

    def told(self, service_id: str) -> list[StoredEvent]:
        """What the service was told, oldest first."""
        return events.poll(self.ctx, as_service(service_id))

    def count(self, table: sa.Table) -> int:
        """Rows of a table."""
        with self.ctx.store.read() as connection:
            return int(connection.execute(sa.select(sa.func.count()).select_from(table)).scalar_one())


def as_service(service_id: str) -> Principal:
    """The service as a caller."""
    return Principal(f"service:{service_id}", "", Authentication.SERVICE)


@pytest.fixture
def room(tmp_path: Path) -> Iterator[Room]:
    """A catalogue of three tasks."""
    clock, queue = FrozenClock(), RecordingQueue()
    provider = InMemoryIdentityProvider(clock)
    ctx = make_context(tmp_path, clock=clock, queue=queue, provider=provider, tasks=dict(TASKS))
    yield Room(ctx, clock, queue, provider, provider.add_account())
    ctx.store.engine.dispose()
