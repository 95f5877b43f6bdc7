"""Schedules: an owner's standing order to run a task at times of a cron expression."""

from __future__ import annotations

import uuid
from datetime import datetime
from typing import Any, Final

import sqlalchemy as sa

from taskcred.domain.permissions import Permission, Principal
from taskcred.domain.runs import Misfire, ScheduleView
from taskcred.errors import InvalidRequestError, NotFoundError, StalePreconditionError
from taskcred.services import prompts
from taskcred.services.authorize import actor_of, authorize
from taskcred.services.context import Context
from taskcred.services.cron import is_zone, next_after, next_times, verify_cron
from taskcred.services.cursors import cut, read_cursor, verify_limit
from taskcred.services.parameters import verify_parameters
from taskcred.services.runs import find_task_for_worker
from taskcred.store import audit
from taskcred.store import prompts as prompt_store
from taskcred.store import schedules as store

_MAX_NAME: Final = 256
_MAX_CRON: Final = 128
_MAX_ZONE: Final = 64


def create(
    ctx: Context,
    principal: Principal,
    *,
    name: str,
    task: str,
    parameters: dict[str, Any],
    cron: str,
    timezone: str = "UTC",
    misfire: Misfire = Misfire.RUN_ONCE,
) -> ScheduleView:
    """Plan runs of `task` for the caller. Without a usable credential a prompt opens at once, so that the
    first time does not come upon an owner who is asleep.

    Raises InvalidRequestError (`unknown_task`, `external_task`, `invalid_parameters`, `invalid_cron`,
    `invalid_timezone`).
    """
    authorize(ctx, principal, Permission.SCHEDULE_WRITE, "schedule")
    now = ctx.clock.now()
    _verify_name(name)
    verify_parameters(find_task_for_worker(ctx, task), parameters)
    _verify_times(cron, timezone, now)
    schedule_id = str(uuid.uuid4())
    with ctx.store.write() as connection:
        store.insert(
            connection,
            id=schedule_id,
            account_id=principal.account_id,
            iam_id=principal.iam_id,
            name=name.strip(),
            task=task,
            parameters=parameters,
            cron=" ".join(cron.split()),
            timezone=timezone,
            misfire=misfire,
            next_at=next_after(cron, timezone, now),
            created_at=now,
            created_by=principal.actor_id,
        )
        _prompt_if_needed(ctx, connection, principal)
        details = {"task": task, "cron": cron, "timezone": timezone}
        return _done(ctx, connection, principal, schedule_id, "schedule:create", details)


def update(
    ctx: Context,
    principal: Principal,
    schedule_id: str,
    *,
    if_match: int | None,
    name: str | None = None,
    parameters: dict[str, Any] | None = None,
    cron: str | None = None,
    timezone: str | None = None,
    misfire: Misfire | None = None,
) -> ScheduleView:
    """Change what is given; the next time is reckoned anew where cron or time zone changed.

    Raises StalePreconditionError where `if_match` is not the present revision, else as `create`.
    """
    authorize(ctx, principal, Permission.SCHEDULE_WRITE, "schedule", schedule_id)
    now = ctx.clock.now()
    given: dict[str, Any] = {
        "name": None if name is None else name.strip(),
        "parameters": parameters,
        "cron": None if cron is None else " ".join(cron.split()),
        "timezone": timezone,
        "misfire": misfire,
    }
    with ctx.store.write() as connection:
        row = _own(connection, principal, schedule_id)
        _verify_revision(row, if_match)
        changed = {
            key: value for key, value in given.items() if value is not None and value != getattr(row, key)
        }
        if "name" in changed:
            _verify_name(changed["name"])
        if "parameters" in changed:
            verify_parameters(find_task_for_worker(ctx, row.task), parameters)
        if changed.keys() & {"cron", "timezone"}:
            new_cron, new_zone = changed.get("cron", row.cron), changed.get("timezone", row.timezone)
            _verify_times(new_cron, new_zone, now)
            changed["next_at"] = next_after(new_cron, new_zone, now)
        if not changed:
            return _view(ctx, row)
        store.change(connection, schedule_id, **changed)
        details = {"changed": sorted(changed.keys() - {"next_at"})}
        return _done(ctx, connection, principal, schedule_id, "schedule:update", details)


def pause(
    ctx: Context, principal: Principal, schedule_id: str, *, if_match: int | None = None
) -> ScheduleView:
    """Make no more runs until it is resumed; pausing twice is fine."""
    authorize(ctx, principal, Permission.SCHEDULE_WRITE, "schedule", schedule_id)
    with ctx.store.write() as connection:
        row = _own(connection, principal, schedule_id)
        _verify_revision(row, if_match)
        if row.paused:
            return _view(ctx, row)
        store.change(connection, schedule_id, paused=True)
        _withdraw_prompt(ctx, connection, principal)
        return _done(ctx, connection, principal, schedule_id, "schedule:pause", {})


def resume(
    ctx: Context, principal: Principal, schedule_id: str, *, if_match: int | None = None
) -> ScheduleView:
    """Go on from now: what the pause left out stays out. Resuming twice is fine."""
    authorize(ctx, principal, Permission.SCHEDULE_WRITE, "schedule", schedule_id)
    now = ctx.clock.now()
    with ctx.store.write() as connection:
        row = _own(connection, principal, schedule_id)
        _verify_revision(row, if_match)
        if not row.paused:
            return _view(ctx, row)
        store.change(connection, schedule_id, paused=False, next_at=next_after(row.cron, row.timezone, now))
        _prompt_if_needed(ctx, connection, principal)
        return _done(ctx, connection, principal, schedule_id, "schedule:resume", {})


def delete(ctx: Context, principal: Principal, schedule_id: str, *, if_match: int | None = None) -> None:
    """Remove the schedule; runs it has made go on and stay in the list."""
    authorize(ctx, principal, Permission.SCHEDULE_WRITE, "schedule", schedule_id)
    with ctx.store.write() as connection:
        row = _own(connection, principal, schedule_id)
        _verify_revision(row, if_match)
        store.delete(connection, schedule_id)
        _withdraw_prompt(ctx, connection, principal)
        _audit(ctx, connection, principal, schedule_id, "schedule:delete", {"name": row.name})


def get(ctx: Context, principal: Principal, schedule_id: str) -> ScheduleView:
    """One of the caller's schedules. Raises NotFoundError for other owners' schedules too."""
    authorize(ctx, principal, Permission.SCHEDULE_READ, "schedule", schedule_id)
    with ctx.store.read() as connection:
        row = _own(connection, principal, schedule_id)
    return _view(ctx, row)


def list_own(
    ctx: Context, principal: Principal, *, after: str | None = None, limit: int = 50
) -> tuple[list[ScheduleView], str | None]:
    """The caller's schedules, newest first, and the cursor of the next page (None at the end)."""
    authorize(ctx, principal, Permission.SCHEDULE_READ, "schedule")
    size = verify_limit(limit)
    before = read_cursor(after)
    with ctx.store.read() as connection:
        found = store.of_owner(
            connection, principal.account_id, principal.iam_id, before=before, limit=size + 1
        )
    page, following = cut(found, size, lambda row: (row.created_at, row.id))
    return [_view(ctx, row) for row in page], following


def preview(cron: str, timezone: str, now: datetime, count: int = 5) -> tuple[datetime, ...]:
    """The next `count` times after `now`, in UTC. Raises InvalidRequestError as `create` does."""
    _verify_times(cron, timezone, now)
    return next_times(cron, timezone, now, count)


def _own(connection: sa.Connection, principal: Principal, schedule_id: str) -> sa.Row[Any]:
    row = store.find_own(connection, schedule_id, principal.account_id, principal.iam_id)
    if row is None:
        raise NotFoundError(
            "There is no such schedule.",
            hint="`taskcred schedule list`, or `GET /v1/schedules`, lists your schedules.",
        )
    return row


def _verify_revision(row: sa.Row[Any], if_match: int | None) -> None:
    if if_match is not None and if_match != row.revision:
        raise StalePreconditionError(
            "The schedule has changed since you read it.", hint="Read it again, then repeat your change."
        )


def _verify_name(name: str) -> None:
    if not 1 <= len(name.strip()) <= _MAX_NAME or not name.isprintable():
        raise InvalidRequestError(
            f"A schedule's name has 1 to {_MAX_NAME} characters, on one line.",
            hint="Say what it is for.",
            code="invalid_name",
            field="name",
        )


def _verify_times(cron: str, timezone: str, now: datetime) -> None:
    for field, value, most in (("cron", cron, _MAX_CRON), ("timezone", timezone, _MAX_ZONE)):
        if len(value) > most:
            raise InvalidRequestError(
                f"`{field}` has at most {most} characters.",
                hint='For example "30 6 * * 1-5" in "Europe/Berlin".',
                code=f"invalid_{field}",
                field=field,
            )
    verify_cron(cron, timezone, now)


def _prompt_if_needed(ctx: Context, connection: sa.Connection, principal: Principal) -> None:
    why = prompt_store.standing(connection, principal.account_id, principal.iam_id).why
    if why:
        prompts.open_for(ctx, connection, principal.account_id, principal.iam_id, why, actor_of(principal))


def _withdraw_prompt(ctx: Context, connection: sa.Connection, principal: Principal) -> None:
    prompts.withdraw_unless_awaited(
        ctx, connection, principal.account_id, principal.iam_id, actor_of(principal)
    )


def _done(
    ctx: Context,
    connection: sa.Connection,
    principal: Principal,
    schedule_id: str,
    action: str,
    details: dict[str, Any],
) -> ScheduleView:
    _audit(ctx, connection, principal, schedule_id, action, details)
    return _view(ctx, _own(connection, principal, schedule_id))


def _audit(
    ctx: Context,
    connection: sa.Connection,
    principal: Principal,
    schedule_id: str,
    action: str,
    details: dict[str, Any],
) -> None:
    event = audit.Event(
        action,
        "success",
        actor_of(principal),
        principal.account_id,
        principal.iam_id,
        "schedule",
        schedule_id,
        details=details,
    )
    audit.append(connection, event, ctx.clock.now())


def _view(ctx: Context, row: sa.Row[Any]) -> ScheduleView:
    # The ticker goes by `next_at`; the times after it follow from the expression.
    upcoming: tuple[datetime, ...] = ()
    if not row.paused and row.next_at is not None and is_zone(row.timezone):
        upcoming = (row.next_at, *next_times(row.cron, row.timezone, max(row.next_at, ctx.clock.now()), 4))
    return ScheduleView(
        id=row.id,
        account_id=row.account_id,
        iam_id=row.iam_id,
        name=row.name,
        task=row.task,
        parameters=row.parameters,
        cron=row.cron,
        timezone=row.timezone,
        misfire=Misfire(row.misfire),
        paused=row.paused,
        next_at=None if row.paused else row.next_at,
        next_times=upcoming,
        last_run_id=row.last_run_id,
        last_at=row.last_at,
        created_at=row.created_at,
        revision=row.revision,
    )
