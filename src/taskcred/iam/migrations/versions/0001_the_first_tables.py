"""The first tables"""

import sqlalchemy as sa
from alembic import op

import taskcred.store.types

revision = "0001"
down_revision = None


def upgrade() -> None:
    op.create_table(
        "accounts",
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("name", sa.String(length=128), nullable=False),
        sa.Column("created_at", taskcred.store.types.Instant(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_accounts")),
        sa.UniqueConstraint("name", name=op.f("uq_accounts_name")),
    )
    op.create_table(
        "authorization_codes",
        sa.Column("digest", sa.LargeBinary(length=32), nullable=False),
        sa.Column("sign_in_id", sa.String(length=36), nullable=False),
        sa.Column("client_id", sa.String(length=64), nullable=False),
        sa.Column("redirect_uri", sa.String(length=2048), nullable=False),
        sa.Column("code_challenge", sa.String(length=128), nullable=False),
        sa.Column("nonce", sa.String(length=255), nullable=False),
        sa.Column("scope", sa.String(length=255), nullable=False),
        sa.Column("iam_id", sa.String(length=128), nullable=False),
        sa.Column("account_id", sa.String(length=64), nullable=False),
        sa.Column("auth_time", taskcred.store.types.Instant(), nullable=False),
        sa.Column("expires_at", taskcred.store.types.Instant(), nullable=False),
        sa.Column("used_at", taskcred.store.types.Instant(), nullable=True),
        sa.PrimaryKeyConstraint("digest", name=op.f("pk_authorization_codes")),
    )
    op.create_table(
        "history",
        sa.Column("id", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("at", taskcred.store.types.Instant(), nullable=False),
        sa.Column("target", sa.String(length=128), nullable=False),
        sa.Column("action", sa.String(length=32), nullable=False),
        sa.Column("iam_id", sa.String(length=128), nullable=False),
        sa.Column("account_id", sa.String(length=64), nullable=False),
        sa.Column("params", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_history")),
        sqlite_autoincrement=True,
    )
    with op.batch_alter_table("history", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_history_target"), ["target"], unique=False)

    op.create_table(
        "password_tries",
        sa.Column("subject", sa.LargeBinary(length=32), nullable=False),
        sa.Column("failures", sa.Integer(), nullable=False),
        sa.Column("last_at", taskcred.store.types.Instant(), nullable=False),
        sa.Column("blocked_until", taskcred.store.types.Instant(), nullable=False),
        sa.PrimaryKeyConstraint("subject", name=op.f("pk_password_tries")),
    )
    op.create_table(
        "refresh_tokens",
        sa.Column("digest", sa.LargeBinary(length=32), nullable=False),
        sa.Column("sign_in_id", sa.String(length=36), nullable=False),
        sa.Column("code_digest", sa.LargeBinary(length=32), nullable=False),
        sa.Column("client_id", sa.String(length=64), nullable=False),
        sa.Column("scope", sa.String(length=255), nullable=False),
        sa.Column("iam_id", sa.String(length=128), nullable=False),
        sa.Column("account_id", sa.String(length=64), nullable=False),
        sa.Column("auth_time", taskcred.store.types.Instant(), nullable=False),
        sa.Column("expires_at", taskcred.store.types.Instant(), nullable=False),
        sa.PrimaryKeyConstraint("digest", name=op.f("pk_refresh_tokens")),
    )
    with op.batch_alter_table("refresh_tokens", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_refresh_tokens_code_digest"), ["code_digest"], unique=False)
        batch_op.create_index(batch_op.f("ix_refresh_tokens_sign_in_id"), ["sign_in_id"], unique=False)

    op.create_table(
        "signing_keys",
        sa.Column("kid", sa.String(length=64), nullable=False),
        sa.Column("public", sa.JSON(), nullable=False),
        sa.Column("created_at", taskcred.store.types.Instant(), nullable=False),
        sa.Column("signs_from", taskcred.store.types.Instant(), nullable=True),
        sa.Column("published_until", taskcred.store.types.Instant(), nullable=True),
        sa.PrimaryKeyConstraint("kid", name=op.f("pk_signing_keys")),
    )
    op.create_table(
        "stored_values",
        sa.Column("key_id", sa.String(length=64), nullable=False),
        sa.Column("created_at", taskcred.store.types.Instant(), nullable=False),
        sa.PrimaryKeyConstraint("key_id", name=op.f("pk_stored_values")),
    )
    op.create_table(
        "users",
        sa.Column("iam_id", sa.String(length=128), nullable=False),
        sa.Column("email", sa.String(length=254), nullable=False),
        sa.Column("name", sa.String(length=128), nullable=False),
        sa.Column("password_hash", sa.String(length=255), nullable=True),
        sa.Column("created_at", taskcred.store.types.Instant(), nullable=False),
        sa.PrimaryKeyConstraint("iam_id", name=op.f("pk_users")),
        sa.UniqueConstraint("email", name=op.f("uq_users_email")),
    )
    op.create_table(
        "api_keys",
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("digest", sa.LargeBinary(length=32), nullable=False),
        sa.Column("account_id", sa.String(length=64), nullable=False),
        sa.Column("iam_id", sa.String(length=128), nullable=False),
        sa.Column("name", sa.String(length=128), nullable=False),
        sa.Column("description", sa.String(length=1024), nullable=False),
        sa.Column("locked", sa.Boolean(), nullable=False),
        sa.Column("disabled", sa.Boolean(), nullable=False),
        sa.Column("stored", sa.Boolean(), nullable=False),
        sa.Column("support_sessions", sa.Boolean(), nullable=False),
        sa.Column("action_when_leaked", sa.String(length=16), nullable=False),
        sa.Column("created_at", taskcred.store.types.Instant(), nullable=False),
        sa.Column("created_by", sa.String(length=128), nullable=False),
        sa.Column("modified_at", taskcred.store.types.Instant(), nullable=False),
        sa.Column("expires_at", taskcred.store.types.Instant(), nullable=True),
        sa.Column("authn_count", sa.Integer(), server_default="0", nullable=False),
        sa.Column("last_authn_at", taskcred.store.types.Instant(), nullable=True),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("tag", sa.String(length=32), nullable=False),
        sa.ForeignKeyConstraint(
            ["account_id"], ["accounts.id"], name=op.f("fk_api_keys_account_id_accounts")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_api_keys")),
        sa.UniqueConstraint("digest", name=op.f("uq_api_keys_digest")),
    )
    with op.batch_alter_table("api_keys", schema=None) as batch_op:
        batch_op.create_index("ix_api_keys_owner", ["account_id", "iam_id"], unique=False)

    op.create_table(
        "memberships",
        sa.Column("account_id", sa.String(length=64), nullable=False),
        sa.Column("iam_id", sa.String(length=128), nullable=False),
        sa.Column("administrator", sa.Boolean(), nullable=False),
        sa.Column("created_at", taskcred.store.types.Instant(), nullable=False),
        sa.ForeignKeyConstraint(
            ["account_id"], ["accounts.id"], name=op.f("fk_memberships_account_id_accounts")
        ),
        sa.ForeignKeyConstraint(["iam_id"], ["users.iam_id"], name=op.f("fk_memberships_iam_id_users")),
        sa.PrimaryKeyConstraint("account_id", "iam_id", name=op.f("pk_memberships")),
    )
    with op.batch_alter_table("memberships", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_memberships_iam_id"), ["iam_id"], unique=False)

    op.create_table(
        "service_ids",
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("iam_id", sa.String(length=128), nullable=False),
        sa.Column("account_id", sa.String(length=64), nullable=False),
        sa.Column("name", sa.String(length=128), nullable=False),
        sa.Column("description", sa.String(length=1024), nullable=False),
        sa.Column("group_id", sa.String(length=128), nullable=False),
        sa.Column("unique_instance_crns", sa.JSON(), nullable=False),
        sa.Column("locked", sa.Boolean(), nullable=False),
        sa.Column("created_at", taskcred.store.types.Instant(), nullable=False),
        sa.Column("created_by", sa.String(length=128), nullable=False),
        sa.Column("modified_at", taskcred.store.types.Instant(), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("tag", sa.String(length=32), nullable=False),
        sa.ForeignKeyConstraint(
            ["account_id"], ["accounts.id"], name=op.f("fk_service_ids_account_id_accounts")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_service_ids")),
        sa.UniqueConstraint("iam_id", name=op.f("uq_service_ids_iam_id")),
    )
    with op.batch_alter_table("service_ids", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_service_ids_account_id"), ["account_id"], unique=False)

    op.create_table(
        "sign_in_links",
        sa.Column("digest", sa.LargeBinary(length=32), nullable=False),
        sa.Column("iam_id", sa.String(length=128), nullable=False),
        sa.Column("expires_at", taskcred.store.types.Instant(), nullable=False),
        sa.ForeignKeyConstraint(["iam_id"], ["users.iam_id"], name=op.f("fk_sign_in_links_iam_id_users")),
        sa.PrimaryKeyConstraint("digest", name=op.f("pk_sign_in_links")),
    )
    with op.batch_alter_table("sign_in_links", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_sign_in_links_iam_id"), ["iam_id"], unique=False)

    op.create_table(
        "sign_ins",
        sa.Column("digest", sa.LargeBinary(length=32), nullable=False),
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("iam_id", sa.String(length=128), nullable=False),
        sa.Column("auth_time", taskcred.store.types.Instant(), nullable=False),
        sa.Column("expires_at", taskcred.store.types.Instant(), nullable=False),
        sa.ForeignKeyConstraint(["iam_id"], ["users.iam_id"], name=op.f("fk_sign_ins_iam_id_users")),
        sa.PrimaryKeyConstraint("digest", name=op.f("pk_sign_ins")),
        sa.UniqueConstraint("id", name=op.f("uq_sign_ins_id")),
    )
    with op.batch_alter_table("sign_ins", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_sign_ins_iam_id"), ["iam_id"], unique=False)
