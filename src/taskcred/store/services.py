"""Queries on services, their secrets, their administrators and the workloads trusted to be them."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from taskcred.domain.runs import FINAL_STATES, Executor
from taskcred.domain.services import (
    AdministratorView,
    SecretView,
    ServiceState,
    ServiceView,
    TrustView,
)
from taskcred.store import service_tables as t
from taskcred.store.tables import runs


def insert(connection: sa.Connection, **values: Any) -> None:
    """A new service. Raises IntegrityError (the database's) where its name is taken."""
    connection.execute(t.services.insert().values(**values))


def find(connection: sa.Connection, service_id: str) -> sa.Row[Any] | None:
    """The row of the service, whatever its state; None where there is none."""
    return connection.execute(sa.select(t.services).where(t.services.c.id == service_id)).one_or_none()


def find_for_change(connection: sa.Connection, service_id: str) -> sa.Row[Any] | None:
    """The same, locked until the transaction ends."""
    query = sa.select(t.services).where(t.services.c.id == service_id)
    return connection.execute(query.with_for_update()).one_or_none()


def find_by_name(connection: sa.Connection, name: str) -> sa.Row[Any] | None:
    """The row of the service of this name; ended ones have given theirs up."""
    return connection.execute(sa.select(t.services).where(t.services.c.name == name)).one_or_none()


def list_all(connection: sa.Connection, *, administrator: str | None = None) -> list[sa.Row[Any]]:
    """Services that did not end, by name: all, or those that `administrator` looks after."""
    c, a = t.services.c, t.service_administrators.c
    query = sa.select(t.services).where(c.state.in_([ServiceState.ACTIVE, ServiceState.DISABLED]))
    if administrator is not None:
        query = query.where(c.id.in_(sa.select(a.service_id).where(a.iam_id == administrator)))
    return list(connection.execute(query.order_by(c.name)))


def change(connection: sa.Connection, service_id: str, **values: Any) -> None:
    """Set `values`; the revision grows."""
    c = t.services.c
    connection.execute(
        t.services.update().where(c.id == service_id).values(revision=c.revision + 1, **values)
    )


def disable_all(connection: sa.Connection) -> int:
    """Disable every active service; how many."""
    is_active = t.services.c.state == ServiceState.ACTIVE
    disabled = t.services.update().where(is_active).values(state=ServiceState.DISABLED)
    return connection.execute(disabled).rowcount


def never_made(connection: sa.Connection, before: datetime) -> list[sa.Row[Any]]:
    """Registrations that began before `before` and did not come to their end."""
    c = t.services.c
    query = sa.select(t.services).where(c.state == ServiceState.CREATING, c.created_at < before)
    return list(connection.execute(query))


def unfinished_runs(connection: sa.Connection, service_id: str) -> list[sa.Row[Any]]:
    """Rows of the runs that the service itself is to carry out and that have not ended, oldest first."""
    c = runs.c
    query = sa.select(runs).where(
        c.service_id == service_id, c.executor == Executor.SERVICE, c.state.not_in(FINAL_STATES)
    )
    return list(connection.execute(query.order_by(c.created_at, c.id)))


def add_secret(
    connection: sa.Connection,
    *,
    secret_id: str,
    service_id: str,
    digest: bytes,
    last_four: str,
    created_at: datetime,
) -> None:
    """A client secret, by its digest."""
    connection.execute(
        t.service_secrets.insert().values(
            id=secret_id, service_id=service_id, digest=digest, last_four=last_four, created_at=created_at
        )
    )


def valid_secrets(connection: sa.Connection, service_id: str, now: datetime) -> list[sa.Row[Any]]:
    """The rows of the secrets that are good at `now`, newest first."""
    c = t.service_secrets.c
    query = sa.select(t.service_secrets).where(
        c.service_id == service_id, sa.or_(c.ends_at.is_(None), c.ends_at > now)
    )
    return list(connection.execute(query.order_by(c.created_at.desc(), c.id)))


def phase_out_secrets(connection: sa.Connection, service_id: str, ends_at: datetime) -> None:
    """Let the service's secrets end at `ends_at`, if they do not end earlier."""
    c = t.service_secrets.c
    later = sa.or_(c.ends_at.is_(None), c.ends_at > ends_at)
    connection.execute(
        t.service_secrets.update().where(c.service_id == service_id, later).values(ends_at=ends_at)
    )


def end_secret(connection: sa.Connection, secret_id: str, now: datetime) -> None:
    """End one secret, whosever it is."""
    connection.execute(
        t.service_secrets.update().where(t.service_secrets.c.id == secret_id).values(ends_at=now)
    )


def forget_ended_secrets(connection: sa.Connection, before: datetime) -> None:
    """Delete the digests of secrets that ended before `before`."""
    connection.execute(t.service_secrets.delete().where(t.service_secrets.c.ends_at < before))


def note_secret_use(connection: sa.Connection, secret_id: str, now: datetime) -> None:
    """The secret was used."""
    connection.execute(
        t.service_secrets.update().where(t.service_secrets.c.id == secret_id).values(last_used_at=now)
    )


def add_trust(connection: sa.Connection, **values: Any) -> None:
    """A trust. Raises IntegrityError (the database's) where its issuer, subject and audience are trusted
    already."""
    connection.execute(t.service_trusts.insert().values(**values))


def remove_trust(connection: sa.Connection, service_id: str, trust_id: str) -> int:
    """Delete one trust of the service; 0 where it has none such."""
    c = t.service_trusts.c
    gone = t.service_trusts.delete().where(c.service_id == service_id, c.id == trust_id)
    return connection.execute(gone).rowcount


def remove_trusts(connection: sa.Connection, service_id: str) -> None:
    """Delete all trusts of the service."""
    connection.execute(t.service_trusts.delete().where(t.service_trusts.c.service_id == service_id))


def note_trust_use(connection: sa.Connection, trust_id: str, now: datetime) -> None:
    """A token was let in by the trust."""
    connection.execute(
        t.service_trusts.update().where(t.service_trusts.c.id == trust_id).values(last_used_at=now)
    )


def forget_trust(connection: sa.Connection, trust_id: str) -> None:
    """Delete one trust, whosever it is."""
    connection.execute(t.service_trusts.delete().where(t.service_trusts.c.id == trust_id))


def trusts_of_issuer(connection: sa.Connection, issuer: str) -> list[tuple[str, TrustView]]:
    """(service id, trust) of everything said about this issuer."""
    rows = connection.execute(sa.select(t.service_trusts).where(t.service_trusts.c.issuer == issuer))
    return [(row.service_id, _trust(row)) for row in rows]


def put_administrator(
    connection: sa.Connection, service_id: str, iam_id: str, email: str, now: datetime, by: str
) -> bool:
    """Let them look after the service; False where they do already."""
    if is_administrator(connection, service_id, iam_id):
        return False
    connection.execute(
        t.service_administrators.insert().values(
            service_id=service_id, iam_id=iam_id, email=email, given_at=now, given_by=by
        )
    )
    return True


def remove_administrator(connection: sa.Connection, service_id: str, iam_id: str) -> int:
    """They no longer look after the service; 0 where they did not."""
    c = t.service_administrators.c
    gone = t.service_administrators.delete().where(c.service_id == service_id, c.iam_id == iam_id)
    return connection.execute(gone).rowcount


def administers_any(connection: sa.Connection, iam_id: str) -> bool:
    """Whether they look after any service that did not end."""
    a, s = t.service_administrators.c, t.services.c
    mine = sa.select(a.service_id).join(t.services, s.id == a.service_id)
    query = mine.where(a.iam_id == iam_id, s.state != ServiceState.ENDED).limit(1)
    return connection.execute(query).first() is not None


def is_administrator(connection: sa.Connection, service_id: str, iam_id: str) -> bool:
    """Whether they look after the service."""
    c = t.service_administrators.c
    query = sa.select(c.iam_id).where(c.service_id == service_id, c.iam_id == iam_id)
    return connection.execute(query).first() is not None


def titles(connection: sa.Connection, service_ids: Collection[str]) -> dict[str, str]:
    """id -> name as owners read it; ended services too."""
    c = t.services.c
    query = sa.select(c.id, c.title, c.name).where(c.id.in_(service_ids))
    return {row.id: row.title or row.name for row in connection.execute(query)}


def view(connection: sa.Connection, row: sa.Row[Any], now: datetime) -> ServiceView:
    """The service of this row with its secrets, trusts and administrators."""
    trusts = sa.select(t.service_trusts).where(t.service_trusts.c.service_id == row.id)
    a = t.service_administrators
    administrators = sa.select(a).where(a.c.service_id == row.id).order_by(a.c.given_at, a.c.iam_id)
    return ServiceView(
        id=row.id,
        name=row.name,
        title=row.title,
        description=row.description,
        state=ServiceState(row.state),
        tasks=tuple(row.tasks),
        executors=tuple(Executor(word) for word in row.executors),
        starts_per_minute=row.starts_per_minute,
        callback_urls=tuple(row.callback_urls),
        webhook_url=row.webhook_url,
        created_at=row.created_at,
        created_by=row.created_by,
        ended_at=row.ended_at,
        revision=row.revision,
        secrets=tuple(
            SecretView(secret.id, secret.last_four, secret.created_at, secret.last_used_at, secret.ends_at)
            for secret in valid_secrets(connection, row.id, now)
        ),
        trusts=tuple(
            _trust(trust)
            for trust in connection.execute(
                trusts.order_by(t.service_trusts.c.created_at, t.service_trusts.c.id)
            )
        ),
        administrators=tuple(
            AdministratorView(person.iam_id, person.email, person.given_at, person.given_by)
            for person in connection.execute(administrators)
        ),
    )


def _trust(row: sa.Row[Any]) -> TrustView:
    return TrustView(
        id=row.id,
        issuer=row.issuer,
        subject=row.subject,
        audience=row.audience,
        jwks_url=row.jwks_url,
        ca_file=row.ca_file,
        created_at=row.created_at,
        created_by=row.created_by,
        last_used_at=row.last_used_at,
    )
