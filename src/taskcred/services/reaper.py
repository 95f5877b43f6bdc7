"""Attempts whose executor fell silent for good are lost: their runs must not stay "running" for ever.

A worker that starts again finds its own attempts and reports them lost; this is for one that does not.
Silence is measured by our monotonic clock, from when we first saw a heartbeat to when it is still the
last one: a clock that jumps, or a host that slept, makes nobody silent.
"""

from __future__ import annotations

from datetime import datetime

from taskcred.services import endings
from taskcred.services.context import Context
from taskcred.store import attempts as store
from taskcred.store import audit


class Reaper:
    """Remembers each live attempt's last heartbeat and when it was first seen; one for each keeper."""

    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx
        self._seen: dict[str, tuple[datetime, float]] = {}

    def reap(self) -> int:
        """End what has been silent for `attempt_silence`; call it every few seconds. Answers how many.

        The stand-in key dies with the attempt, and an executor that comes back hears at its next heartbeat
        that the attempt is over.
        """
        before_this, self._seen = self._seen, {}  # where this round fails, silence is measured anew
        # A write transaction, as a heartbeat is one: while nobody can write, nobody is silent.
        with self._ctx.store.write() as connection:
            beats = store.heartbeats(connection)
        now = self._ctx.clock.monotonic()
        patience = self._ctx.policy.runs.attempt_silence.total_seconds()
        reaped = 0
        seen: dict[str, tuple[datetime, float]] = {}
        for attempt_id, beat_at in beats.items():
            before = before_this.get(attempt_id)
            since = before[1] if before is not None and before[0] == beat_at else now
            if now - since >= patience:
                endings.lost(self._ctx, attempt_id, audit.KEEPER)
                reaped += 1
            else:
                seen[attempt_id] = (beat_at, since)
        self._seen = seen
        return reaped
