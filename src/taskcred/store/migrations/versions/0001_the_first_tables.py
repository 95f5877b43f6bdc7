"""The first tables"""

import sqlalchemy as sa
from alembic import op

import taskcred.store.types

revision = "0001"
down_revision = None


def upgrade() -> None:
    op.create_table(
        "audit_events",
        sa.Column(
            "id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False
        ),
        sa.Column("at", taskcred.store.types.Instant(), nullable=False),
        sa.Column("action", sa.String(length=64), nullable=False),
        sa.Column("outcome", sa.String(length=16), nullable=False),
        sa.Column("actor", sa.String(length=128), nullable=False),
        sa.Column("actor_kind", sa.String(length=16), nullable=False),
        sa.Column("account_id", sa.String(length=64), nullable=False),
        sa.Column("iam_id", sa.String(length=128), nullable=False),
        sa.Column("target_type", sa.String(length=32), nullable=False),
        sa.Column("target_id", sa.String(length=128), nullable=False),
        sa.Column("run_id", sa.String(length=36), nullable=True),
        sa.Column("details", sa.JSON(), nullable=False),
        sa.Column("request_id", sa.String(length=64), server_default="", nullable=False),
        sa.Column("address", sa.String(length=64), server_default="", nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_audit_events")),
        sqlite_autoincrement=True,
    )
    with op.batch_alter_table("audit_events", schema=None) as batch_op:
        batch_op.create_index("ix_audit_events_owner", ["account_id", "iam_id", "id"], unique=False)

    op.create_table(
        "changes",
        sa.Column(
            "id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False
        ),
        sa.Column("at", taskcred.store.types.Instant(), nullable=False),
        sa.Column("kind", sa.String(length=32), nullable=False),
        sa.Column("ref", sa.String(length=128), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_changes")),
        sqlite_autoincrement=True,
    )
    with op.batch_alter_table("changes", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_changes_at"), ["at"], unique=False)

    op.create_table(
        "idempotency",
        sa.Column("account_id", sa.String(length=64), nullable=False),
        sa.Column("iam_id", sa.String(length=128), nullable=False),
        sa.Column("route", sa.String(length=64), nullable=False),
        sa.Column("key", sa.String(length=255), nullable=False),
        sa.Column("request_digest", sa.LargeBinary(length=32), nullable=False),
        sa.Column("status", sa.Integer(), nullable=True),
        sa.Column("body", sa.JSON(), nullable=True),
        sa.Column("created_at", taskcred.store.types.Instant(), nullable=False),
        sa.PrimaryKeyConstraint("account_id", "iam_id", "route", "key", name=op.f("pk_idempotency")),
    )
    with op.batch_alter_table("idempotency", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_idempotency_created_at"), ["created_at"], unique=False)

    op.create_table(
        "leases",
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("holder", sa.String(length=64), nullable=False),
        sa.Column("until", taskcred.store.types.Instant(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_leases")),
    )
    op.create_table(
        "notices",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("account_id", sa.String(length=64), nullable=False),
        sa.Column("iam_id", sa.String(length=128), nullable=False),
        sa.Column("kind", sa.String(length=64), nullable=False),
        sa.Column("channel", sa.String(length=16), nullable=False),
        sa.Column("payload", sa.JSON(), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("attempts", sa.Integer(), server_default="0", nullable=False),
        sa.Column("next_try_at", taskcred.store.types.Instant(), nullable=True),
        sa.Column("error", sa.String(length=512), nullable=True),
        sa.Column("created_at", taskcred.store.types.Instant(), nullable=False),
        sa.Column("closed_at", taskcred.store.types.Instant(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_notices")),
    )
    with op.batch_alter_table("notices", schema=None) as batch_op:
        batch_op.create_index("ix_notices_due", ["state", "next_try_at"], unique=False)
        batch_op.create_index("ix_notices_owner", ["account_id", "iam_id", "created_at"], unique=False)

    op.create_table(
        "owners",
        sa.Column("iam_id", sa.String(length=128), nullable=False),
        sa.Column("email", sa.String(length=320), server_default="", nullable=False),
        sa.Column("name", sa.String(length=256), server_default="", nullable=False),
        sa.Column("seen_at", taskcred.store.types.Instant(), nullable=False),
        sa.PrimaryKeyConstraint("iam_id", name=op.f("pk_owners")),
    )
    op.create_table(
        "prompts",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("account_id", sa.String(length=64), nullable=False),
        sa.Column("iam_id", sa.String(length=128), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("why", sa.String(length=64), nullable=False),
        sa.Column("opened_at", taskcred.store.types.Instant(), nullable=False),
        sa.Column("closed_at", taskcred.store.types.Instant(), nullable=True),
        sa.Column("notify_at", taskcred.store.types.Instant(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_prompts")),
    )
    with op.batch_alter_table("prompts", schema=None) as batch_op:
        batch_op.create_index("ix_prompts_notify", ["notify_at"], unique=False)
        batch_op.create_index(
            "uq_prompts_one_open",
            ["account_id", "iam_id"],
            unique=True,
            sqlite_where=sa.text("state = 'open'"),
            postgresql_where=sa.text("state = 'open'"),
        )

    op.create_table(
        "run_tokens",
        sa.Column("digest", sa.LargeBinary(length=32), nullable=False),
        sa.Column("credential_id", sa.String(length=36), nullable=False),
        sa.Column("expires_at", taskcred.store.types.Instant(), nullable=False),
        sa.PrimaryKeyConstraint("digest", name=op.f("pk_run_tokens")),
    )
    with op.batch_alter_table("run_tokens", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_run_tokens_credential_id"), ["credential_id"], unique=False)
        batch_op.create_index(batch_op.f("ix_run_tokens_expires_at"), ["expires_at"], unique=False)

    op.create_table(
        "runs",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("account_id", sa.String(length=64), nullable=False),
        sa.Column("iam_id", sa.String(length=128), nullable=False),
        sa.Column("task", sa.String(length=64), nullable=False),
        sa.Column("parameters", sa.JSON(), nullable=False),
        sa.Column("state", sa.String(length=32), nullable=False),
        sa.Column("reason", sa.String(length=512), server_default="", nullable=False),
        sa.Column("schedule_id", sa.String(length=36), nullable=True),
        sa.Column("scheduled_for", taskcred.store.types.Instant(), nullable=True),
        sa.Column("started_by", sa.String(length=128), nullable=False),
        sa.Column("dispatch_no", sa.Integer(), server_default="0", nullable=False),
        sa.Column("attempts_made", sa.Integer(), server_default="0", nullable=False),
        sa.Column("lost_attempts", sa.Integer(), server_default="0", nullable=False),
        sa.Column("progress_done", sa.Integer(), nullable=True),
        sa.Column("progress_total", sa.Integer(), nullable=True),
        sa.Column("progress_text", sa.String(length=256), server_default="", nullable=False),
        sa.Column("exit_code", sa.Integer(), nullable=True),
        sa.Column("isolation", sa.String(length=16), nullable=True),
        sa.Column("cancel_requested_at", taskcred.store.types.Instant(), nullable=True),
        sa.Column("created_at", taskcred.store.types.Instant(), nullable=False),
        sa.Column("queued_at", taskcred.store.types.Instant(), nullable=True),
        sa.Column("started_at", taskcred.store.types.Instant(), nullable=True),
        sa.Column("ended_at", taskcred.store.types.Instant(), nullable=True),
        sa.Column("revision", sa.Integer(), server_default="1", nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_runs")),
        sa.UniqueConstraint("schedule_id", "scheduled_for", name=op.f("uq_runs_schedule_id_scheduled_for")),
    )
    with op.batch_alter_table("runs", schema=None) as batch_op:
        batch_op.create_index("ix_runs_ended", ["ended_at"], unique=False)
        batch_op.create_index("ix_runs_owner", ["account_id", "iam_id", "created_at", "id"], unique=False)
        batch_op.create_index("ix_runs_state", ["state", "account_id", "iam_id"], unique=False)

    op.create_table(
        "schedules",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("account_id", sa.String(length=64), nullable=False),
        sa.Column("iam_id", sa.String(length=128), nullable=False),
        sa.Column("name", sa.String(length=256), nullable=False),
        sa.Column("task", sa.String(length=64), nullable=False),
        sa.Column("parameters", sa.JSON(), nullable=False),
        sa.Column("cron", sa.String(length=128), nullable=False),
        sa.Column("timezone", sa.String(length=64), nullable=False),
        sa.Column("misfire", sa.String(length=16), nullable=False),
        sa.Column("paused", sa.Boolean(), server_default=sa.false(), nullable=False),
        sa.Column("next_at", taskcred.store.types.Instant(), nullable=True),
        sa.Column("last_at", taskcred.store.types.Instant(), nullable=True),
        sa.Column("last_run_id", sa.String(length=36), nullable=True),
        sa.Column("created_at", taskcred.store.types.Instant(), nullable=False),
        sa.Column("created_by", sa.String(length=128), nullable=False),
        sa.Column("revision", sa.Integer(), server_default="1", nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_schedules")),
    )
    with op.batch_alter_table("schedules", schema=None) as batch_op:
        batch_op.create_index(
            "ix_schedules_due",
            ["next_at"],
            unique=False,
            sqlite_where=sa.text("paused = 0"),
            postgresql_where=sa.text("paused = false"),
        )
        batch_op.create_index(
            "ix_schedules_owner", ["account_id", "iam_id", "created_at", "id"], unique=False
        )

    op.create_table(
        "sessions",
        sa.Column("digest", sa.LargeBinary(length=32), nullable=False),
        sa.Column("account_id", sa.String(length=64), nullable=False),
        sa.Column("iam_id", sa.String(length=128), nullable=False),
        sa.Column("name", sa.String(length=256), server_default="", nullable=False),
        sa.Column("email", sa.String(length=320), server_default="", nullable=False),
        sa.Column("auth_time", taskcred.store.types.Instant(), nullable=False),
        sa.Column("created_at", taskcred.store.types.Instant(), nullable=False),
        sa.Column("last_seen_at", taskcred.store.types.Instant(), nullable=False),
        sa.Column("token_expires_at", taskcred.store.types.Instant(), nullable=False),
        sa.Column("sealed_token", sa.LargeBinary(), nullable=False),
        sa.Column("sealed_refresh_token", sa.LargeBinary(), nullable=True),
        sa.PrimaryKeyConstraint("digest", name=op.f("pk_sessions")),
    )
    with op.batch_alter_table("sessions", schema=None) as batch_op:
        batch_op.create_index("ix_sessions_last_seen", ["last_seen_at"], unique=False)

    op.create_table(
        "task_credentials",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("account_id", sa.String(length=64), nullable=False),
        sa.Column("iam_id", sa.String(length=128), nullable=False),
        sa.Column("name", sa.String(length=256), nullable=False),
        sa.Column("description", sa.String(length=1024), server_default="", nullable=False),
        sa.Column("scope", sa.JSON(), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("state_reason", sa.String(length=512), nullable=True),
        sa.Column("created_at", taskcred.store.types.Instant(), nullable=False),
        sa.Column("created_by", sa.String(length=128), nullable=False),
        sa.Column("updated_at", taskcred.store.types.Instant(), nullable=False),
        sa.Column("ended_at", taskcred.store.types.Instant(), nullable=True),
        sa.Column("end_reason", sa.String(length=32), nullable=True),
        sa.Column("revision", sa.Integer(), server_default="1", nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_task_credentials")),
    )
    with op.batch_alter_table("task_credentials", schema=None) as batch_op:
        batch_op.create_index(
            "uq_task_credentials_one_per_owner",
            ["account_id", "iam_id"],
            unique=True,
            sqlite_where=sa.text("state != 'ended'"),
            postgresql_where=sa.text("state != 'ended'"),
        )

    op.create_table(
        "workers",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("secret_digest", sa.LargeBinary(length=32), nullable=False),
        sa.Column("created_at", taskcred.store.types.Instant(), nullable=False),
        sa.Column("ended_at", taskcred.store.types.Instant(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_workers")),
        sa.UniqueConstraint("name", name=op.f("uq_workers_name")),
    )
    op.create_table(
        "attempts",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("run_id", sa.String(length=36), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("credential_id", sa.String(length=36), nullable=False),
        sa.Column("executor", sa.String(length=64), nullable=False),
        sa.Column("standin_digest", sa.LargeBinary(length=32), nullable=False),
        sa.Column("standin_last_four", sa.String(length=4), nullable=False),
        sa.Column("outcome", sa.String(length=16), nullable=True),
        sa.Column("reason", sa.String(length=512), server_default="", nullable=False),
        sa.Column("exit_code", sa.Integer(), nullable=True),
        sa.Column("launcher", sa.JSON(), nullable=True),
        sa.Column("output_bytes", sa.Integer(), server_default="0", nullable=False),
        sa.Column("output_truncated", sa.Boolean(), server_default=sa.false(), nullable=False),
        sa.Column("started_at", taskcred.store.types.Instant(), nullable=False),
        sa.Column("heartbeat_at", taskcred.store.types.Instant(), nullable=False),
        sa.Column("ended_at", taskcred.store.types.Instant(), nullable=True),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"], name=op.f("fk_attempts_run_id_runs")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_attempts")),
        sa.UniqueConstraint("run_id", "number", name=op.f("uq_attempts_run_id_number")),
        sa.UniqueConstraint("standin_digest", name=op.f("uq_attempts_standin_digest")),
    )
    with op.batch_alter_table("attempts", schema=None) as batch_op:
        batch_op.create_index(
            "ix_attempts_live",
            ["credential_id"],
            unique=False,
            sqlite_where=sa.text("outcome IS NULL"),
            postgresql_where=sa.text("outcome IS NULL"),
        )

    op.create_table(
        "intents",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("kind", sa.String(length=32), nullable=False),
        sa.Column("credential_id", sa.String(length=36), nullable=True),
        sa.Column("account_id", sa.String(length=64), nullable=False),
        sa.Column("iam_id", sa.String(length=128), nullable=False),
        sa.Column("stage", sa.String(length=32), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("data", sa.JSON(), nullable=False),
        sa.Column("attempts", sa.Integer(), server_default="0", nullable=False),
        sa.Column("next_try_at", taskcred.store.types.Instant(), nullable=False),
        sa.Column("lease_holder", sa.String(length=64), nullable=True),
        sa.Column("lease_until", taskcred.store.types.Instant(), nullable=True),
        sa.Column("error", sa.String(length=512), nullable=True),
        sa.Column("created_at", taskcred.store.types.Instant(), nullable=False),
        sa.Column("updated_at", taskcred.store.types.Instant(), nullable=False),
        sa.ForeignKeyConstraint(
            ["credential_id"], ["task_credentials.id"], name=op.f("fk_intents_credential_id_task_credentials")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_intents")),
    )
    with op.batch_alter_table("intents", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_intents_credential_id"), ["credential_id"], unique=False)
        batch_op.create_index(
            "ix_intents_closed",
            ["updated_at"],
            unique=False,
            sqlite_where=sa.text("state != 'open'"),
            postgresql_where=sa.text("state != 'open'"),
        )
        batch_op.create_index(
            "ix_intents_open",
            ["next_try_at"],
            unique=False,
            sqlite_where=sa.text("state = 'open'"),
            postgresql_where=sa.text("state = 'open'"),
        )

    op.create_table(
        "keys",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("credential_id", sa.String(length=36), nullable=False),
        sa.Column("name", sa.String(length=256), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("origin", sa.String(length=16), nullable=False),
        sa.Column("last_four", sa.String(length=4), nullable=False),
        sa.Column("digest", sa.LargeBinary(length=32), nullable=True),
        sa.Column("provider_key_id", sa.String(length=128), nullable=True),
        sa.Column("created_at", taskcred.store.types.Instant(), nullable=False),
        sa.Column("last_used_at", taskcred.store.types.Instant(), nullable=True),
        sa.Column("expires_at", taskcred.store.types.Instant(), nullable=True),
        sa.Column("end_at", taskcred.store.types.Instant(), nullable=True),
        sa.Column("drain", sa.String(length=16), nullable=True),
        sa.Column("ended_at", taskcred.store.types.Instant(), nullable=True),
        sa.Column("reason", sa.String(length=32), nullable=True),
        sa.Column("last_token_expires_at", taskcred.store.types.Instant(), nullable=True),
        sa.ForeignKeyConstraint(
            ["credential_id"], ["task_credentials.id"], name=op.f("fk_keys_credential_id_task_credentials")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_keys")),
    )
    with op.batch_alter_table("keys", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_keys_credential_id"), ["credential_id"], unique=False)
        batch_op.create_index(
            "ix_keys_active_expires",
            ["expires_at"],
            unique=False,
            sqlite_where=sa.text("state = 'active'"),
            postgresql_where=sa.text("state = 'active'"),
        )
        batch_op.create_index(
            "ix_keys_phased_out",
            ["end_at"],
            unique=False,
            sqlite_where=sa.text("state = 'phased_out'"),
            postgresql_where=sa.text("state = 'phased_out'"),
        )
        batch_op.create_index(
            "uq_keys_one_active",
            ["credential_id"],
            unique=True,
            sqlite_where=sa.text("state = 'active'"),
            postgresql_where=sa.text("state = 'active'"),
        )

    op.create_table(
        "access_tokens",
        sa.Column("credential_id", sa.String(length=36), nullable=False),
        sa.Column("key_id", sa.String(length=36), nullable=True),
        sa.Column("sealed", sa.LargeBinary(), nullable=True),
        sa.Column("digest", sa.LargeBinary(length=32), nullable=True),
        sa.Column("issued_at", taskcred.store.types.Instant(), nullable=True),
        sa.Column("expires_at", taskcred.store.types.Instant(), nullable=True),
        sa.Column("refresh_at", taskcred.store.types.Instant(), nullable=True),
        sa.Column("lease_holder", sa.String(length=64), nullable=True),
        sa.Column("lease_until", taskcred.store.types.Instant(), nullable=True),
        sa.Column("failures", sa.Integer(), server_default="0", nullable=False),
        sa.Column("retry_at", taskcred.store.types.Instant(), nullable=True),
        sa.ForeignKeyConstraint(
            ["credential_id"],
            ["task_credentials.id"],
            name=op.f("fk_access_tokens_credential_id_task_credentials"),
        ),
        sa.ForeignKeyConstraint(["key_id"], ["keys.id"], name=op.f("fk_access_tokens_key_id_keys")),
        sa.PrimaryKeyConstraint("credential_id", name=op.f("pk_access_tokens")),
    )

    op.create_table(
        "attempt_tokens",
        sa.Column("attempt_id", sa.String(length=36), nullable=False),
        sa.Column("token_digest", sa.LargeBinary(length=32), nullable=False),
        sa.Column("key_id", sa.String(length=36), nullable=False),
        sa.Column("first_at", taskcred.store.types.Instant(), nullable=False),
        sa.Column("last_at", taskcred.store.types.Instant(), nullable=False),
        sa.Column("uses", sa.BigInteger(), nullable=False),
        sa.Column("expires_at", taskcred.store.types.Instant(), nullable=False),
        sa.ForeignKeyConstraint(
            ["attempt_id"], ["attempts.id"], name=op.f("fk_attempt_tokens_attempt_id_attempts")
        ),
        sa.PrimaryKeyConstraint("attempt_id", "token_digest", name=op.f("pk_attempt_tokens")),
    )
    op.create_table(
        "run_output",
        sa.Column("attempt_id", sa.String(length=36), nullable=False),
        sa.Column("seq", sa.Integer(), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["attempt_id"], ["attempts.id"], name=op.f("fk_run_output_attempt_id_attempts")
        ),
        sa.PrimaryKeyConstraint("attempt_id", "seq", name=op.f("pk_run_output")),
    )
