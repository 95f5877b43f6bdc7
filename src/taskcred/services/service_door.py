"""Who may change a service: the operator, and its administrators, who signed in lately."""

from __future__ import annotations

from typing import Any, Final

import sqlalchemy as sa

from taskcred.domain.permissions import Permission, Principal
from taskcred.domain.services import ServiceState, ServiceView, principal_id
from taskcred.errors import NotFoundError, StalePreconditionError
from taskcred.services.authorize import actor_of, authorize
from taskcred.services.context import Context
from taskcred.store import audit
from taskcred.store import services as store

By = Principal | audit.Actor  # a service administrator; or the operator, who proved nothing but being here

_GOOD: Final = frozenset({ServiceState.ACTIVE, ServiceState.DISABLED})


def enter(ctx: Context, by: By, service_id: str) -> audit.Actor:
    """Let in who may change services at all; `for_change` sees whether this one is theirs."""
    if isinstance(by, audit.Actor):
        return by
    authorize(ctx, by, Permission.SERVICE_MANAGE, "service", service_id)
    return actor_of(by)


def for_change(connection: sa.Connection, by: By, service_id: str) -> sa.Row[Any]:
    """The service's row, locked until the transaction ends. Raises NotFoundError where it is not there, or is
    not `by`'s to look after."""
    row = store.find_for_change(connection, service_id)
    if row is None or row.state not in _GOOD or not looks_after(connection, by, service_id):
        raise not_found()
    return row


def to_read(connection: sa.Connection, service_id: str) -> sa.Row[Any]:
    """The row of a service that did not end. Raises NotFoundError."""
    row = store.find(connection, service_id)
    if row is None or row.state not in _GOOD:
        raise not_found()
    return row


def not_found() -> NotFoundError:
    """One answer for unknown, ended and not yours."""
    return NotFoundError(
        "There is no such service.",
        hint="`GET /v1/services` lists those you look after; for the operator, `taskcred admin service list`.",
    )


def verify_revision(row: sa.Row[Any], if_match: int | None) -> None:
    """Raises StalePreconditionError where `if_match` is not the present revision."""
    if if_match is not None and if_match != row.revision:
        raise StalePreconditionError(
            "The service has changed since you read it.", hint="Read it again, then repeat your change."
        )


def seen(ctx: Context, connection: sa.Connection, service_id: str) -> ServiceView:
    """The service as it is now, after a change in this transaction."""
    return store.view(connection, to_read(connection, service_id), ctx.clock.now())


def record(
    ctx: Context,
    connection: sa.Connection,
    actor: audit.Actor,
    action: str,
    service_id: str,
    outcome: audit.Outcome = "success",
    **details: Any,
) -> None:
    """An audit event about a service, which is its own owner there."""
    event = audit.Event(
        action, outcome, actor, "", principal_id(service_id), "service", service_id, details=details
    )
    audit.append(connection, event, ctx.clock.now())


def looks_after(connection: sa.Connection, by: By, service_id: str) -> bool:
    """Whether the service is `by`'s to look after."""
    return isinstance(by, audit.Actor) or store.is_administrator(connection, service_id, by.iam_id)
