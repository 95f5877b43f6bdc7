"""Device codes and actors"""

import sqlalchemy as sa
from alembic import op

import taskcred.store.types

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.create_table(
        "device_codes",
        sa.Column("digest", sa.LargeBinary(length=32), nullable=False),
        sa.Column("user_code", sa.String(length=16), nullable=False),
        sa.Column("client_id", sa.String(length=64), nullable=False),
        sa.Column("scope", sa.String(length=255), nullable=False),
        sa.Column("account_id", sa.String(length=64), nullable=False),
        sa.Column("address", sa.String(length=64), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("sign_in_id", sa.String(length=36), server_default="", nullable=False),
        sa.Column("iam_id", sa.String(length=128), server_default="", nullable=False),
        sa.Column("auth_time", taskcred.store.types.Instant(), nullable=True),
        sa.Column("interval", sa.Integer(), nullable=False),
        sa.Column("polled_at", taskcred.store.types.Instant(), nullable=True),
        sa.Column("created_at", taskcred.store.types.Instant(), nullable=False),
        sa.Column("expires_at", taskcred.store.types.Instant(), nullable=False),
        sa.PrimaryKeyConstraint("digest", name=op.f("pk_device_codes")),
        sa.UniqueConstraint("user_code", name=op.f("uq_device_codes_user_code")),
    )
    with op.batch_alter_table("device_codes", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_device_codes_address"), ["address"], unique=False)
        batch_op.create_index(batch_op.f("ix_device_codes_sign_in_id"), ["sign_in_id"], unique=False)
    op.create_table(
        "actors",
        sa.Column("service_id", sa.String(length=64), nullable=False),
        sa.Column("iam_id", sa.String(length=128), nullable=False),
        sa.Column("given_at", taskcred.store.types.Instant(), nullable=False),
        sa.Column("given_by", sa.String(length=128), nullable=False),
        sa.ForeignKeyConstraint(
            ["service_id"], ["service_ids.id"], name=op.f("fk_actors_service_id_service_ids")
        ),
        sa.ForeignKeyConstraint(["iam_id"], ["users.iam_id"], name=op.f("fk_actors_iam_id_users")),
        sa.PrimaryKeyConstraint("service_id", "iam_id", name=op.f("pk_actors")),
    )
    with op.batch_alter_table("actors", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_actors_iam_id"), ["iam_id"], unique=False)
    with op.batch_alter_table("refresh_tokens", schema=None) as batch_op:
        batch_op.add_column(
            sa.Column("grant_type", sa.String(length=64), server_default="authorization_code", nullable=False)
        )
