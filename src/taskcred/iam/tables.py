"""The local IAM's tables, in a database file of their own. Migrations replay to exactly this.

No column holds a password, a key, a code or a link: passwords are argon2id hashes, everything else that
proves something is kept as the SHA-256 digest of a value with full entropy.
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


def _digest() -> sa.Column[bytes]:
    return sa.Column("digest", sa.LargeBinary(32), primary_key=True)


def _revisioned() -> tuple[sa.Column[int], sa.Column[str]]:
    """What makes an entity_tag: `<revision>-<32 hex>`."""
    return (
        sa.Column("revision", sa.Integer, nullable=False),
        sa.Column("tag", sa.String(32), nullable=False),
    )


accounts = sa.Table(
    "accounts",
    metadata,
    sa.Column("id", sa.String(64), primary_key=True),
    sa.Column("name", sa.String(128), nullable=False, unique=True),
    sa.Column("created_at", Instant, nullable=False),
)

users = sa.Table(
    "users",
    metadata,
    sa.Column("iam_id", sa.String(128), primary_key=True),
    sa.Column("email", sa.String(254), nullable=False, unique=True),  # in lower case
    sa.Column("name", sa.String(128), nullable=False),
    sa.Column("password_hash", sa.String(255)),  # none: only a sign-in link lets this person in
    sa.Column("created_at", Instant, nullable=False),
)

memberships = sa.Table(
    "memberships",
    metadata,
    sa.Column("account_id", sa.ForeignKey("accounts.id"), primary_key=True),
    sa.Column("iam_id", sa.ForeignKey("users.iam_id"), primary_key=True, index=True),
    sa.Column("administrator", sa.Boolean, nullable=False),
    sa.Column("created_at", Instant, nullable=False),
)

service_ids = sa.Table(
    "service_ids",
    metadata,
    sa.Column("id", sa.String(64), primary_key=True),
    sa.Column("iam_id", sa.String(128), nullable=False, unique=True),
    sa.Column("account_id", sa.ForeignKey("accounts.id"), nullable=False, index=True),
    sa.Column("name", sa.String(128), nullable=False),
    sa.Column("description", sa.String(1024), nullable=False),
    sa.Column("group_id", sa.String(128), nullable=False),
    sa.Column("unique_instance_crns", sa.JSON, nullable=False),
    sa.Column("locked", sa.Boolean, nullable=False),
    sa.Column("created_at", Instant, nullable=False),
    sa.Column("created_by", sa.String(128), nullable=False),
    sa.Column("modified_at", Instant, nullable=False),
    *_revisioned(),
)

# Persons who may act for a service id (`serviceid:act`). Asked for live by whoever lets somebody act.
actors = sa.Table(
    "actors",
    metadata,
    sa.Column("service_id", sa.ForeignKey("service_ids.id"), primary_key=True),
    sa.Column("iam_id", sa.ForeignKey("users.iam_id"), primary_key=True, index=True),
    sa.Column("given_at", Instant, nullable=False),
    sa.Column("given_by", sa.String(128), nullable=False),
)

# A key's iam_id is a user's or a service id's: two tables, so no foreign key. Deleting a service id
# deletes its keys in the same transaction, and an exchange joins both tables.
api_keys = sa.Table(
    "api_keys",
    metadata,
    sa.Column("id", sa.String(64), primary_key=True),
    sa.Column("digest", sa.LargeBinary(32), nullable=False, unique=True),
    sa.Column("account_id", sa.ForeignKey("accounts.id"), nullable=False),
    sa.Column("iam_id", sa.String(128), nullable=False),
    sa.Column("name", sa.String(128), nullable=False),
    sa.Column("description", sa.String(1024), nullable=False),
    sa.Column("locked", sa.Boolean, nullable=False),
    sa.Column("disabled", sa.Boolean, nullable=False),
    sa.Column("stored", sa.Boolean, nullable=False),  # its value lies in the vault (store_value)
    sa.Column("support_sessions", sa.Boolean, nullable=False),
    sa.Column("action_when_leaked", sa.String(16), nullable=False),
    sa.Column("created_at", Instant, nullable=False),
    sa.Column("created_by", sa.String(128), nullable=False),
    sa.Column("modified_at", Instant, nullable=False),
    sa.Column("expires_at", Instant),
    sa.Column("authn_count", sa.Integer, nullable=False, server_default="0"),
    sa.Column("last_authn_at", Instant),
    *_revisioned(),
)
sa.Index("ix_api_keys_owner", api_keys.c.account_id, api_keys.c.iam_id)

# Values sealed for keys with store_value. A row is written before the vault is, and taken away after, so
# what a crash left in the vault is always found from here.
stored_values = sa.Table(
    "stored_values",
    metadata,
    sa.Column("key_id", sa.String(64), primary_key=True),
    sa.Column("created_at", Instant, nullable=False),
)

# What was done to keys, service ids, users and sign-ins, written in the transaction that did it.
history = sa.Table(
    "history",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("at", Instant, nullable=False),
    sa.Column("target", sa.String(128), nullable=False, index=True),
    sa.Column("action", sa.String(32), nullable=False),
    sa.Column("iam_id", sa.String(128), nullable=False),
    sa.Column("account_id", sa.String(64), nullable=False),
    sa.Column("params", sa.JSON, nullable=False),
    sqlite_autoincrement=True,
)

# The private half of each is the vault record iam/signing/<kid>.
signing_keys = sa.Table(
    "signing_keys",
    metadata,
    sa.Column("kid", sa.String(64), primary_key=True),
    sa.Column("public", sa.JSON, nullable=False),
    sa.Column("created_at", Instant, nullable=False),
    sa.Column("signs_from", Instant),  # none: the vault may not hold the private half yet
    sa.Column("published_until", Instant),  # none while it is the newest
)

sign_ins = sa.Table(
    "sign_ins",
    metadata,
    _digest(),
    sa.Column("id", sa.String(36), nullable=False, unique=True),
    sa.Column("iam_id", sa.ForeignKey("users.iam_id"), nullable=False, index=True),
    sa.Column("auth_time", Instant, nullable=False),
    sa.Column("expires_at", Instant, nullable=False),
)

authorization_codes = sa.Table(
    "authorization_codes",
    metadata,
    _digest(),
    sa.Column("sign_in_id", sa.String(36), nullable=False),
    sa.Column("client_id", sa.String(64), nullable=False),
    sa.Column("redirect_uri", sa.String(2048), nullable=False),
    sa.Column("code_challenge", sa.String(128), nullable=False),
    sa.Column("nonce", sa.String(255), nullable=False),
    sa.Column("scope", sa.String(255), nullable=False),
    sa.Column("iam_id", sa.String(128), nullable=False),
    sa.Column("account_id", sa.String(64), nullable=False),
    sa.Column("auth_time", Instant, nullable=False),
    sa.Column("expires_at", Instant, nullable=False),
    sa.Column("used_at", Instant),
)

refresh_tokens = sa.Table(
    "refresh_tokens",
    metadata,
    _digest(),
    sa.Column("sign_in_id", sa.String(36), nullable=False, index=True),
    sa.Column("code_digest", sa.LargeBinary(32), nullable=False, index=True),  # authorization or device code
    sa.Column("grant_type", sa.String(64), nullable=False, server_default="authorization_code"),
    sa.Column("client_id", sa.String(64), nullable=False),
    sa.Column("scope", sa.String(255), nullable=False),
    sa.Column("iam_id", sa.String(128), nullable=False),
    sa.Column("account_id", sa.String(64), nullable=False),
    sa.Column("auth_time", Instant, nullable=False),
    sa.Column("expires_at", Instant, nullable=False),
)

# Programs without a browser that ask to sign in (RFC 8628). The user code is no secret that proves anything:
# who knows it can only sign in for the program that shows it.
device_codes = sa.Table(
    "device_codes",
    metadata,
    _digest(),
    sa.Column("user_code", sa.String(16), nullable=False, unique=True),
    sa.Column("client_id", sa.String(64), nullable=False),
    sa.Column("scope", sa.String(255), nullable=False),
    sa.Column(
        "account_id", sa.String(64), nullable=False
    ),  # as asked for, then as signed in to; may be empty
    sa.Column("address", sa.String(64), nullable=False, index=True),  # where it was asked from
    sa.Column("state", sa.String(16), nullable=False),  # pending, allowed, denied, used
    sa.Column("sign_in_id", sa.String(36), nullable=False, server_default="", index=True),
    sa.Column("iam_id", sa.String(128), nullable=False, server_default=""),
    sa.Column("auth_time", Instant),
    sa.Column("interval", sa.Integer, nullable=False),  # seconds; grows when the program asks too often
    sa.Column("polled_at", Instant),
    sa.Column("created_at", Instant, nullable=False),
    sa.Column("expires_at", Instant, nullable=False),
)

sign_in_links = sa.Table(
    "sign_in_links",
    metadata,
    _digest(),
    sa.Column("iam_id", sa.ForeignKey("users.iam_id"), nullable=False, index=True),
    sa.Column("expires_at", Instant, nullable=False),
)

# Failed passwords and user codes by subject: a digest of an e-mail address or of a network address.
password_tries = sa.Table(
    "password_tries",
    metadata,
    sa.Column("subject", sa.LargeBinary(32), primary_key=True),
    sa.Column("failures", sa.Integer, nullable=False),
    sa.Column("last_at", Instant, nullable=False),
    sa.Column("blocked_until", Instant, nullable=False),
)
