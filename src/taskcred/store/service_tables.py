"""The tables of services, of what they are told, and of the grants that owners gave them; see tables.py."""

from __future__ import annotations

import sqlalchemy as sa

from taskcred.store.tables import id_column, metadata, owner_columns
from taskcred.store.types import Instant

services = sa.Table(
    "services",  # registered consumers; the id is the client id
    metadata,
    id_column(),
    sa.Column("name", sa.String(64), nullable=False, unique=True),
    sa.Column("title", sa.String(128), nullable=False, server_default=""),  # as owners read it
    sa.Column("description", sa.String(1024), nullable=False, server_default=""),
    sa.Column("state", sa.String(16), nullable=False),  # creating | active | disabled | ended
    sa.Column("tasks", sa.JSON, nullable=False),  # names; none: it may start nothing
    sa.Column("executors", sa.JSON, nullable=False),  # of "worker", "service"
    sa.Column("starts_per_minute", sa.Integer, nullable=False),
    sa.Column("callback_urls", sa.JSON, nullable=False),  # where a browser may be led back to
    sa.Column("webhook_url", sa.String(2048), nullable=False, server_default=""),
    sa.Column(
        "old_webhook_secret_ends_at", Instant
    ),  # until then webhooks are signed with the one before too
    sa.Column("created_at", Instant, nullable=False),
    sa.Column("created_by", sa.String(128), nullable=False),
    sa.Column("ended_at", Instant),
    sa.Column("revision", sa.Integer, nullable=False, server_default="1"),
)

service_secrets = sa.Table(
    "service_secrets",  # more than one is valid while a secret is being rotated
    metadata,
    id_column(),
    sa.Column("service_id", sa.ForeignKey("services.id"), nullable=False, index=True),
    sa.Column("digest", sa.LargeBinary(32), nullable=False, unique=True),
    sa.Column("last_four", sa.String(4), nullable=False),
    sa.Column("created_at", Instant, nullable=False),
    sa.Column("last_used_at", Instant),
    sa.Column("ends_at", Instant),
)

service_trusts = sa.Table(
    "service_trusts",  # workloads that log in as the service by a token of another issuer (OIDC federation)
    metadata,
    id_column(),
    sa.Column("service_id", sa.ForeignKey("services.id"), nullable=False, index=True),
    sa.Column("issuer", sa.String(512), nullable=False),
    sa.Column("subject", sa.String(512), nullable=False),
    sa.Column("audience", sa.String(512), nullable=False),
    sa.Column("jwks_url", sa.String(2048), nullable=False, server_default=""),  # empty: by discovery
    sa.Column(
        "ca_file", sa.String(1024), nullable=False, server_default=""
    ),  # empty: the system's authorities
    sa.Column("last_used_at", Instant),
    sa.Column("created_at", Instant, nullable=False),
    sa.Column("created_by", sa.String(128), nullable=False),
    sa.UniqueConstraint("issuer", "subject", "audience"),
)

service_administrators = sa.Table(
    "service_administrators",
    metadata,
    sa.Column("service_id", sa.ForeignKey("services.id"), primary_key=True),
    sa.Column("iam_id", sa.String(128), primary_key=True),
    sa.Column("email", sa.String(320), nullable=False, server_default=""),  # as resolved when it was given
    sa.Column("given_at", Instant, nullable=False),
    sa.Column("given_by", sa.String(128), nullable=False),
)
sa.Index("ix_service_administrators_iam_id", service_administrators.c.iam_id)

service_events = sa.Table(
    "service_events",  # what a service is told: by polling, and by webhook where it has one
    metadata,
    sa.Column("id", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True, autoincrement=True),
    sa.Column("service_id", sa.ForeignKey("services.id"), nullable=False),
    sa.Column("type", sa.String(64), nullable=False),  # "run.queued"
    sa.Column("data", sa.JSON, nullable=False),
    sa.Column("created_at", Instant, nullable=False),
    sa.Column("state", sa.String(16), nullable=False),  # open | sent | given_up | no_webhook
    sa.Column("attempts", sa.Integer, nullable=False, server_default="0"),
    sa.Column("next_try_at", Instant),
    sa.Column("error", sa.String(512)),
    sa.Column("closed_at", Instant),
    sqlite_autoincrement=True,
)
sa.Index("ix_service_events_service", service_events.c.service_id, service_events.c.id)
sa.Index(
    "ix_service_events_open",  # has all that the keeper asks for every second
    service_events.c.service_id,
    service_events.c.next_try_at,
    sqlite_where=service_events.c.state == "open",
)

grants = sa.Table(
    "grants",
    metadata,
    id_column(),
    *owner_columns(),
    sa.Column("acting_iam_id", sa.String(128), nullable=False, server_default=""),
    sa.Column("service_id", sa.ForeignKey("services.id"), nullable=False),
    sa.Column("tasks", sa.JSON, nullable=False),
    sa.Column("state", sa.String(16), nullable=False),  # active | ended | expired
    sa.Column("created_at", Instant, nullable=False),
    sa.Column("expires_at", Instant, nullable=False),
    sa.Column("remind_at", Instant),  # when the owner is told that it expires soon; none: told, or not to be
    sa.Column("last_used_at", Instant),
    sa.Column("ended_at", Instant),
    sa.Column("end_reason", sa.String(32)),  # owner | replaced | service_ended | operator
    sa.Column("revision", sa.Integer, nullable=False, server_default="1"),
)
sa.Index(
    "uq_grants_one_active",  # for each service and owner: a new consent replaces the old one
    grants.c.service_id,
    grants.c.account_id,
    grants.c.iam_id,
    unique=True,
    sqlite_where=grants.c.state == "active",
)
sa.Index("ix_grants_service", grants.c.service_id, grants.c.created_at, grants.c.id)
sa.Index("ix_grants_owner", grants.c.account_id, grants.c.iam_id, grants.c.created_at)
sa.Index(
    "ix_grants_expires",
    grants.c.expires_at,
    sqlite_where=grants.c.state == "active",
)
