"""The records' tables; service_tables.py has those of services and grants. Migrations replay to exactly this.

Ids are UUID texts made by us. JSON columns hold small documents we never query into. No column holds
key material or a token in the clear: `sealed` columns are ciphertext under the token keyset.

Partial indexes name their condition for SQLite only: naming it for PostgreSQL, which the migrations do, would
load that dialect into every process, a sixteenth of a start.
"""

from __future__ import annotations

import sqlalchemy as sa

from taskcred.store.types import Instant

metadata = sa.MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
        "pk": "pk_%(table_name)s",
    }
)


def id_column() -> sa.Column[str]:
    """A UUID text of ours."""
    return sa.Column("id", sa.String(36), primary_key=True)


def owner_columns() -> tuple[sa.Column[str], sa.Column[str]]:
    """Whose it is."""
    return (
        sa.Column("account_id", sa.String(64), nullable=False),
        sa.Column("iam_id", sa.String(128), nullable=False),
    )


task_credentials = sa.Table(
    "task_credentials",
    metadata,
    id_column(),
    *owner_columns(),
    sa.Column("name", sa.String(256), nullable=False),
    sa.Column("description", sa.String(1024), nullable=False, server_default=""),
    sa.Column("scope", sa.JSON, nullable=False),
    sa.Column("state", sa.String(16), nullable=False),
    sa.Column("state_reason", sa.String(512)),
    sa.Column("created_at", Instant, nullable=False),
    sa.Column("created_by", sa.String(128), nullable=False),
    sa.Column("updated_at", Instant, nullable=False),
    sa.Column("ended_at", Instant),
    sa.Column("end_reason", sa.String(32)),
    sa.Column("revision", sa.Integer, nullable=False, server_default="1"),
)
# one-per-owner: the database refuses the second one, however the two raced.
sa.Index(
    "uq_task_credentials_one_per_owner",
    task_credentials.c.account_id,
    task_credentials.c.iam_id,
    unique=True,
    sqlite_where=task_credentials.c.state != "ended",
)

keys = sa.Table(
    "keys",
    metadata,
    id_column(),
    sa.Column("credential_id", sa.ForeignKey("task_credentials.id"), nullable=False, index=True),
    sa.Column("name", sa.String(256), nullable=False),
    sa.Column("state", sa.String(16), nullable=False),
    sa.Column("origin", sa.String(16), nullable=False),
    sa.Column("last_four", sa.String(4), nullable=False),
    sa.Column("digest", sa.LargeBinary(32)),  # keyed (token keyset), to recognise a key given twice
    sa.Column("provider_key_id", sa.String(128)),
    sa.Column("created_at", Instant, nullable=False),
    sa.Column("last_used_at", Instant),
    sa.Column("expires_at", Instant),
    sa.Column("end_at", Instant),
    sa.Column("drain", sa.String(16)),  # "tokens" | "at" while phased out
    sa.Column("ended_at", Instant),
    sa.Column("reason", sa.String(32)),
    sa.Column("last_token_expires_at", Instant),
)
sa.Index(
    "uq_keys_one_active",
    keys.c.credential_id,
    unique=True,
    sqlite_where=keys.c.state == "active",
)
sa.Index(
    "ix_keys_active_expires",
    keys.c.expires_at,
    sqlite_where=keys.c.state == "active",
)
sa.Index(
    "ix_keys_phased_out",
    keys.c.end_at,
    sqlite_where=keys.c.state == "phased_out",
)

intents = sa.Table(
    "intents",
    metadata,
    id_column(),
    sa.Column("kind", sa.String(32), nullable=False),  # create | rotate | delete | end_key
    sa.Column("credential_id", sa.ForeignKey("task_credentials.id"), index=True),
    *owner_columns(),
    sa.Column("stage", sa.String(32), nullable=False),
    sa.Column("state", sa.String(16), nullable=False),  # open | done | given_up | rolled_back
    sa.Column("data", sa.JSON, nullable=False),  # references only
    sa.Column("attempts", sa.Integer, nullable=False, server_default="0"),
    sa.Column("next_try_at", Instant, nullable=False),
    sa.Column("lease_holder", sa.String(64)),
    sa.Column("lease_until", Instant),
    sa.Column("error", sa.String(512)),
    sa.Column("created_at", Instant, nullable=False),
    sa.Column("updated_at", Instant, nullable=False),
)
sa.Index(
    "ix_intents_open",
    intents.c.next_try_at,
    sqlite_where=intents.c.state == "open",
)
sa.Index(
    "ix_intents_closed",
    intents.c.updated_at,
    sqlite_where=intents.c.state != "open",
)

access_tokens = sa.Table(
    "access_tokens",  # the sealed token cache: at most one current token for each credential
    metadata,
    sa.Column("credential_id", sa.ForeignKey("task_credentials.id"), primary_key=True),
    sa.Column("key_id", sa.ForeignKey("keys.id")),
    sa.Column("sealed", sa.LargeBinary),
    sa.Column("digest", sa.LargeBinary(32)),
    sa.Column("issued_at", Instant),
    sa.Column("expires_at", Instant),
    sa.Column("refresh_at", Instant),
    # single flight: whoever holds the lease talks to the provider, the others wait for the row to change
    sa.Column("lease_holder", sa.String(64)),
    sa.Column("lease_until", Instant),
    sa.Column("failures", sa.Integer, nullable=False, server_default="0"),
    sa.Column("retry_at", Instant),
)

run_tokens = sa.Table(
    "run_tokens",  # digests of tokens handed to runs, until they expire: dead-with-the-run
    metadata,
    sa.Column("digest", sa.LargeBinary(32), primary_key=True),
    sa.Column("credential_id", sa.String(36), nullable=False, index=True),
    sa.Column("expires_at", Instant, nullable=False, index=True),
)

runs = sa.Table(
    "runs",
    metadata,
    id_column(),
    *owner_columns(),
    sa.Column("task", sa.String(64), nullable=False),
    sa.Column("parameters", sa.JSON, nullable=False),
    sa.Column("state", sa.String(32), nullable=False),
    sa.Column("reason", sa.String(512), nullable=False, server_default=""),
    sa.Column("schedule_id", sa.String(36)),
    sa.Column("scheduled_for", Instant),
    sa.Column("started_by", sa.String(128), nullable=False),
    sa.Column("executor", sa.String(16), nullable=False, server_default="worker"),
    sa.Column("service_id", sa.String(36)),
    sa.Column("grant_id", sa.String(36)),
    sa.Column("acting_iam_id", sa.String(128), nullable=False, server_default=""),
    sa.Column("reference", sa.String(256), nullable=False, server_default=""),
    sa.Column("return_to", sa.String(2048), nullable=False, server_default=""),
    sa.Column("dispatch_no", sa.Integer, nullable=False, server_default="0"),  # grows at each enqueue
    sa.Column("attempts_made", sa.Integer, nullable=False, server_default="0"),
    sa.Column("lost_attempts", sa.Integer, nullable=False, server_default="0"),
    sa.Column("progress_done", sa.Integer),
    sa.Column("progress_total", sa.Integer),
    sa.Column("progress_text", sa.String(256), nullable=False, server_default=""),
    sa.Column("exit_code", sa.Integer),
    sa.Column("isolation", sa.String(16)),
    sa.Column("cancel_requested_at", Instant),
    sa.Column("created_at", Instant, nullable=False),
    sa.Column("queued_at", Instant),
    sa.Column("started_at", Instant),
    sa.Column("ended_at", Instant),
    sa.Column("revision", sa.Integer, nullable=False, server_default="1"),
    sa.UniqueConstraint("schedule_id", "scheduled_for"),  # exactly one run for each scheduled time
)
sa.Index("ix_runs_owner", runs.c.account_id, runs.c.iam_id, runs.c.created_at, runs.c.id)
sa.Index("ix_runs_state", runs.c.state, runs.c.account_id, runs.c.iam_id)
sa.Index("ix_runs_ended", runs.c.ended_at)
sa.Index("ix_runs_service", runs.c.service_id, runs.c.created_at, runs.c.id)
sa.Index("ix_runs_grant", runs.c.grant_id)

attempts = sa.Table(
    "attempts",
    metadata,
    id_column(),
    sa.Column("run_id", sa.ForeignKey("runs.id"), nullable=False),
    sa.Column("number", sa.Integer, nullable=False),
    sa.Column("credential_id", sa.String(36), nullable=False),
    sa.Column("executor", sa.String(64), nullable=False),
    sa.Column("standin_digest", sa.LargeBinary(32), nullable=False, unique=True),
    sa.Column("standin_last_four", sa.String(4), nullable=False),
    sa.Column("outcome", sa.String(16)),  # null: live
    sa.Column("reason", sa.String(512), nullable=False, server_default=""),
    sa.Column("exit_code", sa.Integer),
    sa.Column("addresses", sa.JSON),  # networks the stand-in key works from; null: from anywhere
    sa.Column("launcher", sa.JSON),  # {"pid", "started"}: the process to see gone before a retry
    sa.Column("output_bytes", sa.Integer, nullable=False, server_default="0"),
    sa.Column("output_truncated", sa.Boolean, nullable=False, server_default=sa.false()),
    sa.Column("started_at", Instant, nullable=False),
    sa.Column("heartbeat_at", Instant, nullable=False),
    sa.Column("ended_at", Instant),
    sa.UniqueConstraint("run_id", "number"),
)
sa.Index(
    "ix_attempts_live",
    attempts.c.credential_id,
    sqlite_where=attempts.c.outcome.is_(None),
)

attempt_tokens = sa.Table(
    "attempt_tokens",  # which attempt received which token, when and how often
    metadata,
    sa.Column("attempt_id", sa.ForeignKey("attempts.id"), primary_key=True),
    sa.Column("token_digest", sa.LargeBinary(32), primary_key=True),
    sa.Column("key_id", sa.String(36), nullable=False),
    sa.Column("first_at", Instant, nullable=False),
    sa.Column("last_at", Instant, nullable=False),
    sa.Column("uses", sa.BigInteger, nullable=False),
    sa.Column("expires_at", Instant, nullable=False),
)

run_output = sa.Table(
    "run_output",
    metadata,
    sa.Column("attempt_id", sa.ForeignKey("attempts.id"), primary_key=True),
    sa.Column("seq", sa.Integer, primary_key=True),
    sa.Column("text", sa.Text, nullable=False),
)

schedules = sa.Table(
    "schedules",
    metadata,
    id_column(),
    *owner_columns(),
    sa.Column("name", sa.String(256), nullable=False),
    sa.Column("task", sa.String(64), nullable=False),
    sa.Column("parameters", sa.JSON, nullable=False),
    sa.Column("cron", sa.String(128), nullable=False),
    sa.Column("timezone", sa.String(64), nullable=False),
    sa.Column("misfire", sa.String(16), nullable=False),
    sa.Column("paused", sa.Boolean, nullable=False, server_default=sa.false()),
    sa.Column("next_at", Instant),
    sa.Column("last_at", Instant),
    sa.Column("last_run_id", sa.String(36)),
    sa.Column("created_at", Instant, nullable=False),
    sa.Column("created_by", sa.String(128), nullable=False),
    sa.Column("revision", sa.Integer, nullable=False, server_default="1"),
)
sa.Index(
    "ix_schedules_owner", schedules.c.account_id, schedules.c.iam_id, schedules.c.created_at, schedules.c.id
)
sa.Index(
    "ix_schedules_due",
    schedules.c.next_at,
    sqlite_where=schedules.c.paused == sa.false(),
)

prompts = sa.Table(
    "prompts",
    metadata,
    id_column(),
    *owner_columns(),
    sa.Column("state", sa.String(16), nullable=False),
    sa.Column("why", sa.String(64), nullable=False),  # missing | locked | unusable
    sa.Column("opened_at", Instant, nullable=False),
    sa.Column("closed_at", Instant),
    sa.Column("notify_at", Instant),  # when the owner is told next; null once closed
)
sa.Index(
    "uq_prompts_one_open",
    prompts.c.account_id,
    prompts.c.iam_id,
    unique=True,
    sqlite_where=prompts.c.state == "open",
)
sa.Index("ix_prompts_notify", prompts.c.notify_at)

notices = sa.Table(
    "notices",  # the outbox: committed with what it tells of, delivered by the keeper
    metadata,
    id_column(),
    *owner_columns(),
    sa.Column("kind", sa.String(64), nullable=False),
    sa.Column("channel", sa.String(16), nullable=False),  # page | mail | webhook
    sa.Column("payload", sa.JSON, nullable=False),
    sa.Column("state", sa.String(16), nullable=False),  # open | sent | read | withdrawn | given_up
    sa.Column("attempts", sa.Integer, nullable=False, server_default="0"),
    sa.Column("next_try_at", Instant),
    sa.Column("error", sa.String(512)),
    sa.Column("created_at", Instant, nullable=False),
    sa.Column("closed_at", Instant),
)
sa.Index("ix_notices_due", notices.c.state, notices.c.next_try_at)
sa.Index("ix_notices_owner", notices.c.account_id, notices.c.iam_id, notices.c.created_at)

owners = sa.Table(
    "owners",  # what a sign-in told us about a person, for notices and greetings; never matched by e-mail
    metadata,
    sa.Column("iam_id", sa.String(128), primary_key=True),
    sa.Column("email", sa.String(320), nullable=False, server_default=""),
    sa.Column("name", sa.String(256), nullable=False, server_default=""),
    sa.Column("seen_at", Instant, nullable=False),
)

sessions = sa.Table(
    "sessions",
    metadata,
    sa.Column("digest", sa.LargeBinary(32), primary_key=True),  # of a random id only the browser holds
    *owner_columns(),
    sa.Column("name", sa.String(256), nullable=False, server_default=""),
    sa.Column("email", sa.String(320), nullable=False, server_default=""),
    sa.Column("acting_iam_id", sa.String(128), nullable=False, server_default=""),
    sa.Column("auth_time", Instant, nullable=False),
    sa.Column("created_at", Instant, nullable=False),
    sa.Column("last_seen_at", Instant, nullable=False),
    sa.Column("token_expires_at", Instant, nullable=False),
    sa.Column("sealed_token", sa.LargeBinary, nullable=False),
    sa.Column("sealed_refresh_token", sa.LargeBinary),
)
sa.Index("ix_sessions_last_seen", sessions.c.last_seen_at)

idempotency = sa.Table(
    "idempotency",  # answers by Idempotency-Key, so that a replay is recognised
    metadata,
    *owner_columns(),
    sa.Column("route", sa.String(64), nullable=False),
    sa.Column("key", sa.String(255), nullable=False),
    sa.Column("request_digest", sa.LargeBinary(32), nullable=False),
    sa.Column("status", sa.Integer),  # null: the first request is still being worked on
    sa.Column("body", sa.JSON),
    sa.Column("created_at", Instant, nullable=False, index=True),
    sa.PrimaryKeyConstraint("account_id", "iam_id", "route", "key"),
)

workers = sa.Table(
    "workers",  # worker credentials
    metadata,
    id_column(),
    sa.Column("name", sa.String(64), nullable=False, unique=True),
    sa.Column("secret_digest", sa.LargeBinary(32), nullable=False),
    sa.Column("created_at", Instant, nullable=False),
    sa.Column("ended_at", Instant),
)

audit_events = sa.Table(
    "audit_events",
    metadata,
    sa.Column("id", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True, autoincrement=True),
    sa.Column("at", Instant, nullable=False),
    sa.Column("action", sa.String(64), nullable=False),  # "credential:rotate"
    sa.Column("outcome", sa.String(16), nullable=False),  # success | refused | given_up
    sa.Column("actor", sa.String(128), nullable=False),  # an iam_id, "worker:<name>", "keeper", "operator"
    sa.Column("actor_kind", sa.String(16), nullable=False),
    *owner_columns(),  # whose it is: the owner reads their own
    sa.Column("target_type", sa.String(32), nullable=False),
    sa.Column("target_id", sa.String(128), nullable=False),
    sa.Column("run_id", sa.String(36)),
    sa.Column("details", sa.JSON, nullable=False),
    sa.Column("request_id", sa.String(64), nullable=False, server_default=""),
    sa.Column("address", sa.String(64), nullable=False, server_default=""),
    sqlite_autoincrement=True,
)
sa.Index("ix_audit_events_owner", audit_events.c.account_id, audit_events.c.iam_id, audit_events.c.id)

changes = sa.Table(
    "changes",  # what was taken away, in commit order; every process reads on from the last it saw
    metadata,
    sa.Column("id", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True, autoincrement=True),
    sa.Column("at", Instant, nullable=False, index=True),
    sa.Column("kind", sa.String(32), nullable=False),  # attempt | credential | worker | service
    sa.Column("ref", sa.String(128), nullable=False),
    sqlite_autoincrement=True,
)

leases = sa.Table(
    "leases",  # who is the one active keeper; who replaces a page session's tokens
    metadata,
    sa.Column("name", sa.String(64), primary_key=True),
    sa.Column("holder", sa.String(64), nullable=False),
    sa.Column("until", Instant, nullable=False),
)
