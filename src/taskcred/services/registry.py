"""Services: registered by the operator, looked after by their administrators.

What a service may (tasks, executors, starts a minute) is the operator's to say; names for people and URLs
are also its administrators' to change.

A service lives in two stores: its row, and its webhook secret in the vault. The row comes first, as
`creating`, and names the record's path; it becomes `active` once the record is there. What a crash leaves is
a row that nobody can use, and `tidy` ends it. An ended service's record goes the same way.
"""

from __future__ import annotations

import uuid
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError

from taskcred.domain.permissions import Permission, Principal
from taskcred.domain.runs import Executor
from taskcred.domain.secret import Secret
from taskcred.domain.services import STARTS_PER_MINUTE, ServiceState, ServiceView, id_of
from taskcred.domain.tasks import TaskKind
from taskcred.errors import (
    ConflictError,
    ForbiddenError,
    InvalidRequestError,
    NotFoundError,
    TaskcredError,
)
from taskcred.services import grant_endings, service_fields, service_secrets, service_stops
from taskcred.services.authorize import authorize
from taskcred.services.context import Context
from taskcred.services.service_door import (
    By,
    enter,
    for_change,
    looks_after,
    not_found,
    record,
    seen,
    to_read,
    verify_revision,
)
from taskcred.store import audit, changes, events
from taskcred.store import services as store
from taskcred.store.events import StoredEvent

_ABANDONED: Final = timedelta(minutes=1)  # a vault call has long timed out by then
_LIMITS: Final = ("tasks", "executors", "starts_per_minute")
_LONGEST_IAM_ID: Final = 128
_DELIVERIES: Final = 50
_KEPT: Final = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class NewService:
    """What the operator says of a new service. By default its runs are carried out as its tasks need."""

    name: str
    tasks: tuple[str, ...]
    executors: tuple[Executor, ...] = ()  # none: those that its tasks need
    starts_per_minute: int = STARTS_PER_MINUTE
    callback_urls: tuple[str, ...] = ()
    webhook_url: str = ""
    title: str = ""
    description: str = ""


@dataclass(frozen=True, slots=True)
class Change:
    """What to change; None: leave it. The first three are the operator's alone."""

    tasks: tuple[str, ...] | None = None
    executors: tuple[Executor, ...] | None = None
    starts_per_minute: int | None = None
    callback_urls: tuple[str, ...] | None = None
    webhook_url: str | None = None
    title: str | None = None
    description: str | None = None


@dataclass(frozen=True, slots=True)
class Created:
    """A new service and its two secrets, shown this once."""

    service: ServiceView
    secret: Secret
    webhook_secret: Secret


def create(ctx: Context, operator: audit.Actor, new: NewService) -> Created:
    """Register a service. Raises InvalidRequestError (`unknown_task`, `invalid_url`, …) and ConflictError
    (`service_exists`)."""
    values = _values(new)
    values["executors"] = values["executors"] or _needed(ctx, new.tasks)
    service_fields.verify(ctx.tasks, values)
    service_id, now = str(uuid.uuid4()), ctx.clock.now()
    values |= {"id": service_id, "created_at": now, "created_by": operator.id}
    try:
        with ctx.store.write() as connection:
            _free_abandoned_name(connection, new.name, now)
            store.insert(connection, state=ServiceState.CREATING, **values)
    except IntegrityError:
        raise ConflictError(
            f"There is a service {new.name!r}.",
            hint="Choose another name; `taskcred admin service list` shows those there are.",
            code="service_exists",
        ) from None
    webhook_secret = service_secrets.draw_webhook_secret()
    try:
        ctx.vault.store(service_secrets.webhook_path(service_id), webhook_secret)
    except TaskcredError:
        with ctx.store.write() as connection:
            let_go(connection, service_id, now)
        raise
    secret = service_secrets.draw_secret()
    with ctx.store.write() as connection:
        row = store.find_for_change(connection, service_id)
        if row is None or row.state != ServiceState.CREATING:
            raise ConflictError(
                "The vault took so long that the registration was given up.", hint="Repeat it."
            )
        store.change(connection, service_id, state=ServiceState.ACTIVE)
        service_secrets.add(connection, service_id, secret, now)
        details = {"name": new.name, "tasks": values["tasks"], "executors": values["executors"]}
        record(ctx, connection, operator, "service:create", service_id, **details)
        return Created(seen(ctx, connection, service_id), secret, webhook_secret)


def update(
    ctx: Context, by: By, service_id: str, change: Change, *, if_match: int | None = None
) -> ServiceView:
    """Change what is given. Raises StalePreconditionError where `if_match` is not the present revision,
    else as `create`."""
    actor = enter(ctx, by, service_id)
    if isinstance(by, Principal) and any(getattr(change, name) is not None for name in _LIMITS):
        raise ForbiddenError("What a service may is the operator's to say.", hint="Ask the operator.")
    given = {name: value for name, value in _values(change).items() if value is not None}
    with ctx.store.write() as connection:
        row = for_change(connection, by, service_id)
        verify_revision(row, if_match)
        # What stays as it is was fine when it was written; a task may have left the catalogue since.
        changed = {name: value for name, value in given.items() if value != getattr(row, name)}
        if changed:
            service_fields.verify(ctx.tasks, changed)
            store.change(connection, service_id, **changed)
            record(ctx, connection, actor, "service:update", service_id, changed=sorted(changed))
        return seen(ctx, connection, service_id)


def disable(ctx: Context, by: By, service_id: str, *, if_match: int | None = None) -> ServiceView:
    """Refuse the service from now on, reversibly: what its own engine carries out is taken away from it, its
    grants wait. Twice is fine."""
    actor = enter(ctx, by, service_id)
    with ctx.store.write() as connection:
        row = for_change(connection, by, service_id)
        verify_revision(row, if_match)
        if row.state != ServiceState.DISABLED:
            store.change(connection, service_id, state=ServiceState.DISABLED)
            changes.append(connection, "service", service_id, ctx.clock.now())
            service_stops.pause(ctx, connection, service_id, actor)
            record(ctx, connection, actor, "service:disable", service_id)
        return seen(ctx, connection, service_id)


def enable(ctx: Context, by: By, service_id: str, *, if_match: int | None = None) -> ServiceView:
    """Let a disabled service in again; twice is fine."""
    actor = enter(ctx, by, service_id)
    with ctx.store.write() as connection:
        row = for_change(connection, by, service_id)
        verify_revision(row, if_match)
        if row.state != ServiceState.ACTIVE:
            store.change(connection, service_id, state=ServiceState.ACTIVE)
            record(ctx, connection, actor, "service:enable", service_id)
        return seen(ctx, connection, service_id)


def end(ctx: Context, operator: audit.Actor, service_id: str) -> None:
    """End the service for good, with its secrets, trusts and grants. Its name is free again."""
    now = ctx.clock.now()
    with ctx.store.write() as connection:
        row = for_change(connection, operator, service_id)
        ctx.revocations.append("service", service_id, "", "")
        grant_endings.end_of_service(ctx, connection, service_id, actor=operator)
        service_stops.end(ctx, connection, service_id, operator)
        events.close_all(connection, service_id, "no_webhook", now)  # nobody is there to be told
        let_go(connection, service_id, now)
        changes.append(connection, "service", service_id, now)
        record(ctx, connection, operator, "service:end", service_id, name=row.name)


def add_administrator(
    ctx: Context, operator: audit.Actor, service_id: str, iam_id: str, email: str = ""
) -> ServiceView:
    """Let someone look after the service; `email` only says who that was. Twice is fine."""
    if not (0 < len(iam_id) <= _LONGEST_IAM_ID and iam_id.isprintable()):
        raise InvalidRequestError("This is no iam_id.", hint="It looks like IBMid-….", field="iam_id")
    with ctx.store.write() as connection:
        for_change(connection, operator, service_id)
        if store.put_administrator(connection, service_id, iam_id, email, ctx.clock.now(), operator.id):
            record(ctx, connection, operator, "service:add_administrator", service_id, administrator=iam_id)
        return seen(ctx, connection, service_id)


def remove_administrator(ctx: Context, operator: audit.Actor, service_id: str, iam_id: str) -> ServiceView:
    """Let someone look after the service no more. Raises NotFoundError where they do not."""
    with ctx.store.write() as connection:
        for_change(connection, operator, service_id)
        if not store.remove_administrator(connection, service_id, iam_id):
            raise NotFoundError(
                "They do not look after this service.", hint="`taskcred admin service show` lists who does."
            )
        changes.append(connection, "service", service_id, ctx.clock.now())
        record(ctx, connection, operator, "service:remove_administrator", service_id, administrator=iam_id)
        return seen(ctx, connection, service_id)


def get(ctx: Context, by: By, service_id: str) -> tuple[ServiceView, bool]:
    """The service, and whether `by` looks after it: what others may see of it is its name, title and
    description. Raises NotFoundError where there is none, or it ended."""
    if isinstance(by, Principal):
        authorize(ctx, by, Permission.SERVICE_READ, "service", service_id)
    with ctx.store.read() as connection:
        view = store.view(connection, to_read(connection, service_id), ctx.clock.now())
        return view, looks_after(connection, by, service_id)


def itself(ctx: Context, principal: Principal) -> ServiceView:
    """The service that is calling."""
    authorize(ctx, principal, Permission.SERVICE_READ_SELF, "service", principal.iam_id)
    with ctx.store.read() as connection:
        row = to_read(connection, id_of(principal.iam_id))
        return store.view(connection, row, ctx.clock.now())


def deliveries(ctx: Context, by: By, service_id: str) -> list[StoredEvent]:
    """The latest events that could not be delivered to the service, newest first: given up, or tried again.
    Raises NotFoundError where `by` does not look after it."""
    if isinstance(by, Principal):
        authorize(ctx, by, Permission.SERVICE_READ, "service", service_id)
    with ctx.store.read() as connection:
        to_read(connection, service_id)
        if not looks_after(connection, by, service_id):
            raise not_found()
        return events.in_trouble(connection, service_id, _DELIVERIES)


def looks_after_any(ctx: Context, principal: Principal) -> bool:
    """Whether there is a service that this person looks after: for what to offer them."""
    with ctx.store.read() as connection:
        return store.administers_any(connection, principal.iam_id)


def list_own(ctx: Context, by: By) -> list[ServiceView]:
    """The services that a person looks after; all of them for the operator."""
    if isinstance(by, Principal):
        authorize(ctx, by, Permission.SERVICE_READ, "service")
    administrator = by.iam_id if isinstance(by, Principal) else None
    with ctx.store.read() as connection:
        rows = store.list_all(connection, administrator=administrator)
        return [store.view(connection, row, ctx.clock.now()) for row in rows]


def find_by_name(ctx: Context, name: str) -> str:
    """The id of the service of this name or id, for the operator. Raises NotFoundError."""
    with ctx.store.read() as connection:
        row = store.find_by_name(connection, name)
        if row is None:
            return str(to_read(connection, name).id)
        return str(row.id)


def tidy(ctx: Context) -> int:
    """Finish what crashes and ends left, for the keeper: rows that never came to be, and webhook secrets in
    the vault whose service is no more. Answers how many."""
    now = ctx.clock.now()
    with ctx.store.write() as connection:
        abandoned = store.never_made(connection, now - _ABANDONED)
        for row in abandoned:
            let_go(connection, row.id, now)
        store.forget_ended_secrets(connection, now - _KEPT)
    records = {path.split("/")[1]: path for path in ctx.vault.paths("services/")}
    with ctx.store.read() as connection:
        gone = [path for service_id, path in records.items() if _is_gone(connection, service_id)]
    for path in gone:
        ctx.vault.destroy(path)
    return len(abandoned) + len(gone)


def _is_gone(connection: sa.Connection, service_id: str) -> bool:
    row = store.find(connection, service_id)
    return row is None or row.state == ServiceState.ENDED


def _free_abandoned_name(connection: sa.Connection, name: str, now: datetime) -> None:
    """A registration that a crash cut off keeps nobody from this name until the keeper comes by."""
    for row in store.never_made(connection, now - _ABANDONED):
        if row.name == name:
            let_go(connection, row.id, now)


def let_go(connection: sa.Connection, service_id: str, now: datetime) -> None:
    """The row stays, for what refers to it; nothing can use it, and its name is free. Nothing happens where it
    has ended."""
    row = store.find_for_change(connection, service_id)
    if row is None or row.state == ServiceState.ENDED:
        return
    for secret in store.valid_secrets(connection, service_id, now):
        store.end_secret(connection, secret.id, now)
    store.remove_trusts(connection, service_id)
    free = f"{row.name[:20]} ended {service_id}"
    store.change(connection, service_id, state=ServiceState.ENDED, name=free, ended_at=now)


def _needed(ctx: Context, tasks: Collection[str]) -> list[Executor]:
    """Who carries out these tasks; the service itself where none is named yet."""
    kinds = {ctx.tasks[name].kind for name in tasks if name in ctx.tasks}
    needed = [Executor.SERVICE] if not kinds or TaskKind.EXTERNAL in kinds else []
    return [*needed, *([Executor.WORKER] if kinds - {TaskKind.EXTERNAL} else [])]


def _values(said: NewService | Change) -> dict[str, Any]:
    """By column; tuples as the lists that JSON has."""
    values = {name: getattr(said, name) for name in said.__dataclass_fields__}
    return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}
