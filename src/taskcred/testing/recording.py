"""A queue and a revocation log that remember what they were given."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta

import sqlalchemy as sa


@dataclass(frozen=True, slots=True)
class Enqueued:
    """What was put in line, once its transaction committed."""

    run_id: str
    dispatch_no: int
    owner: str
    delay: timedelta


@dataclass(slots=True)
class RecordingQueue:
    """A queue that remembers; what was rolled back was never in it."""

    enqueued: list[Enqueued] = field(default_factory=list)

    def enqueue(
        self,
        connection: sa.Connection,
        run_id: str,
        dispatch_no: int,
        owner: str,
        delay: timedelta = timedelta(0),
    ) -> None:
        """See `services.context.RunQueue`."""
        item = Enqueued(run_id, dispatch_no, owner, delay)

        def committed(_connection: sa.Connection) -> None:
            if all((e.run_id, e.dispatch_no) != (run_id, dispatch_no) for e in self.enqueued):
                self.enqueued.append(item)

        sa.event.listen(connection, "commit", committed)


@dataclass(frozen=True, slots=True)
class Revoked:
    """One entry of the revocation log."""

    kind: str
    ref: str
    account_id: str
    iam_id: str


@dataclass(slots=True)
class RecordingRevocations:
    """A revocation log that remembers."""

    entries: list[Revoked] = field(default_factory=list)

    def append(self, kind: str, ref: str, account_id: str, iam_id: str) -> None:
        """See `ports.RevocationLog`."""
        self.entries.append(Revoked(kind, ref, account_id, iam_id))
