"""What becomes of what a service's own engine carries out, when the service is disabled or ends."""

from __future__ import annotations

from typing import Final

import sqlalchemy as sa

from taskcred.domain.runs import AttemptOutcome
from taskcred.services import endings, prompts
from taskcred.services.context import Context
from taskcred.store import attempts as attempt_store
from taskcred.store import audit
from taskcred.store import services as store

_DISABLED: Final = "The service carrying it out was disabled."
_ENDED: Final = "The service carrying it out was ended."


def pause(ctx: Context, connection: sa.Connection, service_id: str, actor: audit.Actor) -> None:
    """End the service's live attempts, and the keys they hold, in the caller's transaction. Their runs wait
    for the service to begin them again, as after a loss; their owners can cancel them."""
    for run in store.unfinished_runs(connection, service_id):
        live = attempt_store.live_of_run(connection, run.id)
        if live is not None:
            endings.end(ctx, connection, live, AttemptOutcome.LOST, _DISABLED, actor=actor, is_taken=True)


def end(ctx: Context, connection: sa.Connection, service_id: str, actor: audit.Actor) -> None:
    """Cancel whatever the service was to carry out, live or not, in the caller's transaction."""
    stopped = store.unfinished_runs(connection, service_id)
    for run in stopped:
        endings.cancel(ctx, connection, run, _ENDED, actor)
    for account_id, iam_id in {(run.account_id, run.iam_id) for run in stopped}:
        prompts.withdraw_unless_awaited(ctx, connection, account_id, iam_id, actor)
