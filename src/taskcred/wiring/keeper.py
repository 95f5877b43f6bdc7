"""The keeper's duties, each with the pause it makes when there is nothing to do."""

from __future__ import annotations

from typing import cast

from taskcred import logs
from taskcred.config import Settings
from taskcred.iam.service import LocalIam
from taskcred.jobs.queue import DbosQueue
from taskcred.notify import ServiceWebhook, build_senders
from taskcred.roles import lifeline
from taskcred.roles.keeper import Duty, Keeper
from taskcred.services import (
    grant_endings,
    idempotency,
    intents,
    notices,
    overdue,
    prompts,
    registry,
    retention,
    sessions,
    ticker,
    tokens,
)
from taskcred.services.context import Context
from taskcred.services.event_delivery import Deliverer
from taskcred.services.reaper import Reaper
from taskcred.store import changes
from taskcred.wiring.trusted import Trusted, open_trusted


def run(settings: Settings) -> None:
    """A keeper process: stands by until it is the active one."""
    lifeline.take_name("keeper")
    logs.configure(settings.log, "keeper")
    trusted = open_trusted(settings)
    build_keeper(settings, trusted).run()
    trusted.iam.close()


def build_keeper(settings: Settings, trusted: Trusted) -> Keeper:
    """A keeper on this machine's records."""
    ctx = trusted.ctx
    # Loading the engine takes half a second: not at the first run that comes due, under the write lock.
    keeper = Keeper(ctx, warm_up=cast("DbosQueue", ctx.queue).load)
    reaper = Reaper(ctx)
    senders = build_senders(settings.notices)
    deliverer = Deliverer(ctx, ServiceWebhook(settings.services.webhook_allow))
    keeper.duties = [
        Duty("intents", lambda: intents.advance_due(ctx, keeper.holder), 0.25),
        Duty("tokens", lambda: tokens.refresh_due(ctx, keeper.holder), 0.25),
        Duty("reaper", reaper.reap, 5.0),
        Duty("overdue", lambda: overdue.tend(ctx), 5.0),
        Duty("ticker", lambda: ticker.tick(ctx), 0.5),
        Duty("reminders", lambda: prompts.remind_due(ctx), 5.0),
        Duty("notices", lambda: notices.deliver_due(ctx, senders), 1.0),
        Duty("events", deliverer.deliver_due, 0.25),
        Duty("grants", lambda: grant_endings.expire_due(ctx) + grant_endings.remind_due(ctx), 5.0),
        Duty("housekeeping", lambda: _housekeep(ctx, trusted.iam, deliverer), 60.0),
    ]
    return keeper


def _housekeep(ctx: Context, iam: LocalIam, deliverer: Deliverer) -> int:
    """Forget what is old; 0, so that the duty rests after each round."""
    deliverer.close_ended()
    retention.sweep(ctx)
    sessions.sweep(ctx)
    idempotency.sweep(ctx)
    registry.tidy(ctx)
    iam.tend()
    with ctx.store.write() as connection:
        changes.prune(connection, ctx.clock.now())
    return 0
