"""Services and grants"""

import sqlalchemy as sa
from alembic import op

import taskcred.store.types

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.create_table(
        "services",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("title", sa.String(length=128), server_default="", nullable=False),
        sa.Column("description", sa.String(length=1024), server_default="", nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("tasks", sa.JSON(), nullable=False),
        sa.Column("executors", sa.JSON(), nullable=False),
        sa.Column("starts_per_minute", sa.Integer(), nullable=False),
        sa.Column("callback_urls", sa.JSON(), nullable=False),
        sa.Column("webhook_url", sa.String(length=2048), server_default="", nullable=False),
        sa.Column("old_webhook_secret_ends_at", taskcred.store.types.Instant(), nullable=True),
        sa.Column("created_at", taskcred.store.types.Instant(), nullable=False),
        sa.Column("created_by", sa.String(length=128), nullable=False),
        sa.Column("ended_at", taskcred.store.types.Instant(), nullable=True),
        sa.Column("revision", sa.Integer(), server_default="1", nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_services")),
        sa.UniqueConstraint("name", name=op.f("uq_services_name")),
    )
    op.create_table(
        "grants",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("account_id", sa.String(length=64), nullable=False),
        sa.Column("iam_id", sa.String(length=128), nullable=False),
        sa.Column("acting_iam_id", sa.String(length=128), server_default="", nullable=False),
        sa.Column("service_id", sa.String(length=36), nullable=False),
        sa.Column("tasks", sa.JSON(), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("created_at", taskcred.store.types.Instant(), nullable=False),
        sa.Column("expires_at", taskcred.store.types.Instant(), nullable=False),
        sa.Column("remind_at", taskcred.store.types.Instant(), nullable=True),
        sa.Column("last_used_at", taskcred.store.types.Instant(), nullable=True),
        sa.Column("ended_at", taskcred.store.types.Instant(), nullable=True),
        sa.Column("end_reason", sa.String(length=32), nullable=True),
        sa.Column("revision", sa.Integer(), server_default="1", nullable=False),
        sa.ForeignKeyConstraint(["service_id"], ["services.id"], name=op.f("fk_grants_service_id_services")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_grants")),
    )
    with op.batch_alter_table("grants", schema=None) as batch_op:
        batch_op.create_index(
            "ix_grants_expires",
            ["expires_at"],
            unique=False,
            sqlite_where=sa.text("state = 'active'"),
            postgresql_where=sa.text("state = 'active'"),
        )
        batch_op.create_index("ix_grants_service", ["service_id", "created_at", "id"], unique=False)
        batch_op.create_index("ix_grants_owner", ["account_id", "iam_id", "created_at"], unique=False)
        batch_op.create_index(
            "uq_grants_one_active",
            ["service_id", "account_id", "iam_id"],
            unique=True,
            sqlite_where=sa.text("state = 'active'"),
            postgresql_where=sa.text("state = 'active'"),
        )

    op.create_table(
        "service_administrators",
        sa.Column("service_id", sa.String(length=36), nullable=False),
        sa.Column("iam_id", sa.String(length=128), nullable=False),
        sa.Column("email", sa.String(length=320), server_default="", nullable=False),
        sa.Column("given_at", taskcred.store.types.Instant(), nullable=False),
        sa.Column("given_by", sa.String(length=128), nullable=False),
        sa.ForeignKeyConstraint(
            ["service_id"], ["services.id"], name=op.f("fk_service_administrators_service_id_services")
        ),
        sa.PrimaryKeyConstraint("service_id", "iam_id", name=op.f("pk_service_administrators")),
    )
    with op.batch_alter_table("service_administrators", schema=None) as batch_op:
        batch_op.create_index("ix_service_administrators_iam_id", ["iam_id"], unique=False)

    op.create_table(
        "service_events",
        sa.Column(
            "id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False
        ),
        sa.Column("service_id", sa.String(length=36), nullable=False),
        sa.Column("type", sa.String(length=64), nullable=False),
        sa.Column("data", sa.JSON(), nullable=False),
        sa.Column("created_at", taskcred.store.types.Instant(), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("attempts", sa.Integer(), server_default="0", nullable=False),
        sa.Column("next_try_at", taskcred.store.types.Instant(), nullable=True),
        sa.Column("error", sa.String(length=512), nullable=True),
        sa.Column("closed_at", taskcred.store.types.Instant(), nullable=True),
        sa.ForeignKeyConstraint(
            ["service_id"], ["services.id"], name=op.f("fk_service_events_service_id_services")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_service_events")),
        sqlite_autoincrement=True,
    )
    with op.batch_alter_table("service_events", schema=None) as batch_op:
        batch_op.create_index(
            "ix_service_events_open",
            ["service_id", "next_try_at"],
            unique=False,
            sqlite_where=sa.text("state = 'open'"),
            postgresql_where=sa.text("state = 'open'"),
        )
        batch_op.create_index("ix_service_events_service", ["service_id", "id"], unique=False)

    op.create_table(
        "service_secrets",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("service_id", sa.String(length=36), nullable=False),
        sa.Column("digest", sa.LargeBinary(length=32), nullable=False),
        sa.Column("last_four", sa.String(length=4), nullable=False),
        sa.Column("created_at", taskcred.store.types.Instant(), nullable=False),
        sa.Column("last_used_at", taskcred.store.types.Instant(), nullable=True),
        sa.Column("ends_at", taskcred.store.types.Instant(), nullable=True),
        sa.ForeignKeyConstraint(
            ["service_id"], ["services.id"], name=op.f("fk_service_secrets_service_id_services")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_service_secrets")),
        sa.UniqueConstraint("digest", name=op.f("uq_service_secrets_digest")),
    )
    with op.batch_alter_table("service_secrets", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_service_secrets_service_id"), ["service_id"], unique=False)

    op.create_table(
        "service_trusts",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("service_id", sa.String(length=36), nullable=False),
        sa.Column("issuer", sa.String(length=512), nullable=False),
        sa.Column("subject", sa.String(length=512), nullable=False),
        sa.Column("audience", sa.String(length=512), nullable=False),
        sa.Column("jwks_url", sa.String(length=2048), server_default="", nullable=False),
        sa.Column("ca_file", sa.String(length=1024), server_default="", nullable=False),
        sa.Column("last_used_at", taskcred.store.types.Instant(), nullable=True),
        sa.Column("created_at", taskcred.store.types.Instant(), nullable=False),
        sa.Column("created_by", sa.String(length=128), nullable=False),
        sa.ForeignKeyConstraint(
            ["service_id"], ["services.id"], name=op.f("fk_service_trusts_service_id_services")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_service_trusts")),
        sa.UniqueConstraint(
            "issuer", "subject", "audience", name=op.f("uq_service_trusts_issuer_subject_audience")
        ),
    )
    with op.batch_alter_table("service_trusts", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_service_trusts_service_id"), ["service_id"], unique=False)

    with op.batch_alter_table("attempts", schema=None) as batch_op:
        batch_op.add_column(sa.Column("addresses", sa.JSON(), nullable=True))

    with op.batch_alter_table("runs", schema=None) as batch_op:
        batch_op.add_column(
            sa.Column("executor", sa.String(length=16), server_default="worker", nullable=False)
        )
        batch_op.add_column(sa.Column("service_id", sa.String(length=36), nullable=True))
        batch_op.add_column(sa.Column("grant_id", sa.String(length=36), nullable=True))
        batch_op.add_column(
            sa.Column("acting_iam_id", sa.String(length=128), server_default="", nullable=False)
        )
        batch_op.add_column(sa.Column("reference", sa.String(length=256), server_default="", nullable=False))
        batch_op.create_index("ix_runs_grant", ["grant_id"], unique=False)
        batch_op.create_index("ix_runs_service", ["service_id", "created_at", "id"], unique=False)

    with op.batch_alter_table("sessions", schema=None) as batch_op:
        batch_op.add_column(
            sa.Column("acting_iam_id", sa.String(length=128), server_default="", nullable=False)
        )
