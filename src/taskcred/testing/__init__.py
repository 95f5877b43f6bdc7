"""Fakes that ship: what unit and service tests, ours and our users', run on instead of mocks.

`make_context` gives a `Context` on a migrated SQLite file with an in-memory vault and identity provider, a
clock that stands still, and guards that fail a test when a port is called while a transaction is open.
Every fake lets a test script its failures and look at what was asked of it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import cast

import sqlalchemy as sa

from taskcred.domain.permissions import Authentication, Principal
from taskcred.domain.policy import Policy
from taskcred.domain.secret import Secret
from taskcred.domain.tasks import Task
from taskcred.identity.claims import CLIENT_ID
from taskcred.ports import Clock, IdentityProvider, RevocationLog, Vault
from taskcred.services.context import Context, RunQueue
from taskcred.store import migrate
from taskcred.store.engine import Store, sqlite_engine
from taskcred.store.epoch import Epoch
from taskcred.store.postgresql import postgresql_engine
from taskcred.store.sealer import Sealer
from taskcred.testing.guards import GuardedProvider, GuardedVault
from taskcred.testing.provider import InMemoryIdentityProvider, Person
from taskcred.testing.recording import Enqueued, RecordingQueue, RecordingRevocations, Revoked
from taskcred.testing.scripted import START, Failure, FrozenClock, Scripted
from taskcred.testing.vault import InMemoryVault

__all__ = [
    "CLIENT_ID",
    "START",
    "Enqueued",
    "Failure",
    "FrozenClock",
    "GuardedProvider",
    "GuardedVault",
    "InMemoryIdentityProvider",
    "InMemoryVault",
    "Person",
    "RecordingQueue",
    "RecordingRevocations",
    "Revoked",
    "Scripted",
    "interactive",
    "make_context",
    "programmatic",
    "records_engine",
]


def records_engine(directory: Path) -> sa.Engine:
    """An engine on `directory`/records.db, or on the PostgreSQL database that TASKCRED_DATABASE__URL names: the
    same tests hold on both."""
    url = os.environ.get("TASKCRED_DATABASE__URL", "")
    return postgresql_engine(url) if url else sqlite_engine(directory / "records.db")


def make_context(
    directory: Path,
    *,
    clock: Clock | None = None,
    vault: Vault | None = None,
    provider: IdentityProvider | None = None,
    queue: RunQueue | None = None,
    revocations: RevocationLog | None = None,
    public_url: str = "https://taskcred.test",
    policy: Policy | None = None,
    tasks: Mapping[str, Task] | None = None,
) -> Context:
    """A context on the records of `directory` (see `records_engine`). Called again with the same directory and vault, it is what a
    restarted process would have. `ctx.vault` and `ctx.provider` are guarded and forward what the fakes add
    (`ctx.provider.add_person(...)`)."""
    clock = clock or FrozenClock()
    vault = vault or InMemoryVault()
    provider = provider or InMemoryIdentityProvider(clock, url=public_url)
    engine = records_engine(directory)
    migrate.upgrade(engine)
    if not vault.paths("tokens/keyset"):
        vault.store("tokens/keyset", Sealer.new_keyset())
    return Context(
        store=Store(engine, Epoch(directory / "epoch")),
        vault=cast("Vault", GuardedVault(vault)),
        provider=cast("IdentityProvider", GuardedProvider(provider)),
        clock=clock,
        sealer=Sealer(vault.open("tokens/keyset")),
        queue=queue or RecordingQueue(),
        revocations=revocations or RecordingRevocations(),
        public_url=public_url,
        policy=policy or Policy(),
        tasks=tasks or {},
    )


def interactive(
    iam_id: str,
    account_id: str,
    *,
    auth_time: datetime = START,
    token: Secret | None = None,
    session: bool = False,
) -> Principal:
    """A person who signed in at `auth_time`, by access token or (`session`) on the pages."""
    how = Authentication.SESSION if session else Authentication.INTERACTIVE
    return Principal(iam_id, account_id, how, auth_time=auth_time, token=token)


def programmatic(iam_id: str, account_id: str, *, token: Secret | None = None) -> Principal:
    """A program whose access token was made from an API key."""
    return Principal(iam_id, account_id, Authentication.PROGRAMMATIC, token=token)
