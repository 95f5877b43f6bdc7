"""The keeper: advances intents, refreshes tokens, ticks schedules, sends notices, forgets what is old.

One keeper is active, others stand by: a lease in the records says which, and a keeper that cannot renew
it stops at once rather than do a thing twice. Each duty has a thread of its own, so that an identity
provider or a mail server that hangs delays that duty only.
"""

from __future__ import annotations

import os
import signal
import threading
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

import structlog

from taskcred.errors import TaskcredError, UnavailableError
from taskcred.roles import lifeline
from taskcred.services.context import Context
from taskcred.store import leases

log = structlog.get_logger("keeper")

LEASE: Final = "keeper"
LEASE_TTL: Final = timedelta(seconds=10)
_RENEW_EVERY: Final = 2.0
_STAND_BY: Final = 0.25


@dataclass(frozen=True, slots=True)
class Duty:
    """Something to do again and again: `work` returns how much it did; at 0 it rests for `period` seconds."""

    name: str
    work: Callable[[], int]
    period: float


class Keeper:
    """Does `duties` while it holds the keeper's lease; they are set after it has its name, `holder`.
    `warm_up` is called once before, by a keeper that stands by as well."""

    def __init__(self, ctx: Context, warm_up: Callable[[], object]) -> None:
        self._ctx = ctx
        self._warm_up = warm_up
        self.duties: list[Duty] = []
        self._stop = threading.Event()
        self.holder = f"keeper-{uuid.uuid4()}"

    def run(self) -> None:
        """Stand by until the lease is ours, then do the duties until stopped."""
        lifeline.watch(lambda: os._exit(1))  # nothing to finish: whatever is half-done is an intent
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: self._stop.set())
        lifeline.tell_ready()
        self._warm_up()
        while not self._take():
            if self._stop.wait(_STAND_BY):
                return
        log.info("active", holder=self.holder)
        threads = [
            threading.Thread(target=self._repeat, args=(duty,), name=duty.name, daemon=True)
            for duty in self.duties
        ]
        for thread in threads:
            thread.start()
        self._renew_until_stopped()
        for thread in threads:
            thread.join(timeout=5)
        with self._ctx.store.write() as connection:
            leases.release(connection, LEASE, self.holder)
        log.info("stopped", holder=self.holder)

    def _take(self) -> bool:
        now = self._ctx.clock.now()
        try:
            with self._ctx.store.write() as connection:
                return leases.take(connection, LEASE, self.holder, now, LEASE_TTL)
        except UnavailableError:
            return False

    def _renew_until_stopped(self) -> None:
        clock = self._ctx.clock
        held_until = clock.monotonic() + LEASE_TTL.total_seconds()
        while not self._stop.wait(_RENEW_EVERY):
            asked = clock.monotonic()
            if self._take():
                held_until = asked + LEASE_TTL.total_seconds()
            elif clock.monotonic() > held_until - _RENEW_EVERY:
                log.error("lease lost", holder=self.holder)
                os._exit(3)  # another keeper may be active: not one more step, not even a clean one

    def _repeat(self, duty: Duty) -> None:
        while not self._stop.is_set():
            try:
                done = duty.work()
            except TaskcredError as error:
                log.warning("duty delayed", duty=duty.name, code=error.error_code, why=error.message)
                done = 0
            except Exception:
                log.exception("duty failed", duty=duty.name)
                done = 0
            if not done:
                self._stop.wait(duty.period)
