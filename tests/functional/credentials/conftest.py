"""A context on real SQLite with the shipped fakes, and an owner signed in to it."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa

from taskcred.domain import keytext
from taskcred.domain.permissions import Principal
from taskcred.domain.secret import Secret
from taskcred.services import intents
from taskcred.services.context import Context
from taskcred.store import changes
from taskcred.store import tables as t
from taskcred.testing import (
    FrozenClock,
    InMemoryIdentityProvider,
    InMemoryVault,
    RecordingRevocations,
    interactive,
    make_context,
)


@dataclass
class World:
    """A context with the fakes behind it within reach."""

    ctx: Context
    clock: FrozenClock
    vault: InMemoryVault
    provider: InMemoryIdentityProvider
    revocations: RecordingRevocations
    account_id: str
    iam_id: str

    @property
    def owner(self) -> Principal:
        """The owner, who signed in just now."""
        return self.principal(self.iam_id)

    def principal(self, iam_id: str) -> Principal:
        """Somebody who signed in just now."""
        token = self.provider.token(iam_id, self.account_id)
        return interactive(iam_id, self.account_id, auth_time=self.clock.now(), token=token.token)

    def rows(self, table: sa.Table, **where: object) -> list[sa.Row[tuple[object, ...]]]:
        """Rows of a table."""
        with self.ctx.store.read() as connection:
            query = sa.select(table).where(*(table.c[name] == value for name, value in where.items()))
            return list(connection.execute(query))

    def events(self, action: str) -> list[sa.Row[tuple[object, ...]]]:
        """Audit events with this action."""
        return self.rows(t.audit_events, action=action)

    def keys_in_vault(self) -> list[str]:
        """Paths of key material."""
        return [path for path in self.vault.records if path.startswith("credentials/")]

    def keep(self, *, rounds: int = 30, step: timedelta = timedelta(seconds=31)) -> None:
        """The keeper's rounds, time passing between them, until no intent is open."""
        for _ in range(rounds):
            intents.advance_due(self.ctx, "keeper")
            if not self.rows(t.intents, state="open"):
                return
            self.clock.advance(step)
        raise AssertionError("intents are still open")


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    clock = FrozenClock()
    vault = InMemoryVault()
    provider = InMemoryIdentityProvider(clock)
    revocations = RecordingRevocations()
    ctx = make_context(tmp_path, clock=clock, vault=vault, provider=provider, revocations=revocations)
    account_id = provider.add_account()
    iam_id = provider.add_person(account_id)
    yield World(ctx, clock, vault, provider, revocations, account_id, iam_id)
    ctx.store.engine.dispose()


@dataclass
class Attempt:
    """A live attempt and the stand-in key only its job knows."""

    id: str
    run_id: str
    standin: Secret

    @property
    def key(self) -> bytes:
        """The stand-in key as it goes over the wire."""
        return self.standin.reveal().encode()


def add_attempt(world: World, credential_id: str) -> Attempt:
    """A run of the owner with one live attempt, as the executor's side leaves it."""
    attempt = Attempt(str(uuid.uuid4()), str(uuid.uuid4()), keytext.new_key(keytext.STANDIN_KEY_PREFIX))
    now = world.clock.now()
    with world.ctx.store.write() as connection:
        connection.execute(
            t.runs.insert().values(
                id=attempt.run_id,
                account_id=world.account_id,
                iam_id=world.iam_id,
                task="report",
                parameters={},
                state="running",
                started_by=world.iam_id,
                created_at=now,
            )
        )
        connection.execute(
            t.attempts.insert().values(
                id=attempt.id,
                run_id=attempt.run_id,
                number=1,
                credential_id=credential_id,
                executor="worker:one",
                standin_digest=attempt.standin.digest(),
                standin_last_four=attempt.standin.last_four,
                started_at=now,
                heartbeat_at=now,
            )
        )
    return attempt


def end_attempt(world: World, attempt: Attempt) -> None:
    """What the executor's side does when the job has ended."""
    now = world.clock.now()
    with world.ctx.store.write() as connection:
        connection.execute(
            t.attempts.update().where(t.attempts.c.id == attempt.id).values(outcome="succeeded", ended_at=now)
        )
        changes.append(connection, "attempt", attempt.id, now)
