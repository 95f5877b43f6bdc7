"""Letting a service in that has proved itself, by whichever means."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Any, Final

import sqlalchemy as sa

from taskcred.domain.permissions import Authentication, Principal
from taskcred.domain.services import ServiceState, principal_id
from taskcred.errors import ForbiddenError, StoreBusyError
from taskcred.services.authorize import actor_of
from taskcred.services.context import Context
from taskcred.services.service_door import record
from taskcred.services.sessions import Visit

_NOTED_EVERY: Final = timedelta(minutes=1)  # a write for each request would be too many


def let_in(
    ctx: Context,
    row: sa.Row[Any],
    visit: Visit,
    last_used_at: datetime | None,
    note_use: Callable[[sa.Connection], None],
) -> Principal:
    """The service of this row. What it proved itself with was used last at `last_used_at`; once a minute that
    is noted by `note_use`, and for a service that is disabled the refusal recorded.

    Raises ForbiddenError (`service_disabled`).
    """
    is_active = row.state == ServiceState.ACTIVE
    principal = Principal(
        principal_id(row.id),
        "",
        Authentication.SERVICE,
        name=row.title or row.name,
        request_id=visit.request_id,
        address=visit.address,
    )
    if last_used_at is None or ctx.clock.now() - last_used_at >= _NOTED_EVERY:
        # A request must not fail because it could not be counted.
        with suppress(StoreBusyError), ctx.store.write(shared=True) as connection:
            note_use(connection)
            if not is_active:
                record(ctx, connection, actor_of(principal), "service:enter", row.id, "refused")
    if not is_active:
        raise ForbiddenError(
            f"The service {row.name!r} is disabled.",
            hint="An administrator of the service, or the operator, enables it again.",
            code="service_disabled",
        )
    return principal
