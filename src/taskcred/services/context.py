"""What every use case is given: the records, the ports, the numbers to decide by."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Protocol

import sqlalchemy as sa

from taskcred.domain.policy import Policy
from taskcred.domain.tasks import Task
from taskcred.ports import Clock, IdentityProvider, RevocationLog, Vault
from taskcred.store.engine import Store
from taskcred.store.sealer import Sealer


class RunQueue(Protocol):
    """The engine as services see it: put a run in line, within the caller's transaction."""

    def enqueue(
        self,
        connection: sa.Connection,
        run_id: str,
        dispatch_no: int,
        owner: str,
        delay: timedelta = timedelta(0),
    ) -> None:
        """Commits with `connection`'s transaction. One (run_id, dispatch_no) is taken up at most once;
        `owner` is the partition whose concurrency is limited."""
        ...


@dataclass(frozen=True, slots=True)
class Context:
    """`public_url` has no trailing slash."""

    store: Store
    vault: Vault
    provider: IdentityProvider
    clock: Clock
    sealer: Sealer
    queue: RunQueue
    revocations: RevocationLog
    public_url: str
    policy: Policy = field(default_factory=Policy)
    tasks: Mapping[str, Task] = field(default_factory=dict)
