"""What every role builds the same way."""

from __future__ import annotations

import sqlalchemy as sa

from taskcred.clock import SystemClock
from taskcred.config import Settings
from taskcred.data_dir import DataDir
from taskcred.domain.policy import NoticePolicy, Policy, RunPolicy, SessionPolicy, TokenPolicy
from taskcred.jobs.catalogue import load_tasks
from taskcred.jobs.queue import DbosQueue
from taskcred.ports import IdentityProvider, Vault
from taskcred.revocations import FileRevocationLog, directory_of
from taskcred.services.context import Context
from taskcred.store import migrate
from taskcred.store.engine import Store, sqlite_engine
from taskcred.store.epoch import Epoch
from taskcred.store.postgresql import postgresql_engine
from taskcred.store.sealer import Sealer

TOKEN_KEYSET = "tokens/keyset"  # noqa: S105 - a vault path
COOKIE_KEY = "web/session-key"


def policy_of(settings: Settings) -> Policy:
    """The settings as services decide by them."""
    return Policy(
        tokens=TokenPolicy(
            outage_grace=settings.tokens.outage_grace,
            standin_rate=settings.tokens.standin_rate,
            standin_burst=settings.tokens.standin_burst,
        ),
        runs=RunPolicy(retention=settings.retention.runs),
        sessions=SessionPolicy(),
        notices=NoticePolicy(
            repeat_prompt=settings.notices.repeat_prompt,
            mail=bool(settings.notices.smtp_host),
            webhook=bool(settings.notices.webhook_url),
        ),
    )


def open_records(settings: Settings) -> sa.Engine:
    """The engine of the records: on PostgreSQL where `database.url` says so, else on the SQLite file."""
    database = settings.database
    if database.url:
        return postgresql_engine(database.url, database.password_file, connections=database.connections)
    return sqlite_engine(DataDir(settings.data_dir).records, pool_size=settings.server.threads)


def has_records(settings: Settings) -> bool:
    """Whether there are records: a first start has laid their tables. Raises StoreBusyError."""
    if not settings.database.url:
        return DataDir(settings.data_dir).records.exists()
    engine = open_records(settings)
    try:
        return migrate.is_laid(engine)
    finally:
        engine.dispose()


def build_context(settings: Settings, vault: Vault, provider: IdentityProvider, sealer: Sealer) -> Context:
    """The context of a role on this machine's records."""
    files = DataDir(settings.data_dir)
    engine = open_records(settings)
    clock = SystemClock()
    return Context(
        store=Store(engine, Epoch(files.epoch)),
        vault=vault,
        provider=provider,
        clock=clock,
        sealer=sealer,
        queue=DbosQueue(engine),
        revocations=FileRevocationLog(directory_of(settings), clock),
        public_url=settings.server.public_url,
        policy=policy_of(settings),
        tasks=load_tasks(settings.tasks, settings.jobs.http_allow),
    )
