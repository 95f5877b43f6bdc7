"""The engine: DBOS Transact on the worker's side. With `jobs.queue` the only module that imports it.

What DBOS gives us: the queue with its limit for each owner, the atomic claim, and after a crash the same
workflow again. Retries are new dispatches, parking is a row with nothing behind it, schedules are our own
table (design section 4, Engine).
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Final

import sqlalchemy as sa
from dbos import DBOS
from dbos._serialization import DBOSPortableJSON

from taskcred.jobs.queue import APPLICATION, QUEUE, VERSION, WORKFLOW, quiet_logs

EXECUTOR: Final = "solo"  # there is one worker process, and it recovers what the one before it left
_POLL: Final = 0.2  # seconds between two looks at the queue

_TAKER: Final = f"queue-worker-{QUEUE}"  # DBOS's name for the thread that looks at our queue
_LONGEST_LOOK: Final = 10.0  # seconds; one look takes milliseconds where the database answers

Execute = Callable[[str, int, str], None]
"""What a worker does with a dispatch: run id, dispatch number, owner."""


class Engine:
    """The worker's side: takes dispatches from the queue and calls `execute` in a thread for each.

    `execute` must return normally; whatever happened to the run is in our own tables by then. Where the
    process dies in it, the next `start` calls it again with the same arguments.
    """

    def __init__(self, engine: sa.Engine, execute: Execute, *, concurrency: int, per_owner: int) -> None:
        quiet_logs()
        self._dbos = DBOS(
            config={
                "name": APPLICATION,
                "system_database_engine": engine,
                "run_migrations": False,
                "application_version": VERSION,
                "executor_id": EXECUTOR,
                "serializer": DBOSPortableJSON,
                "log_level": "WARNING",
                "max_executor_threads": concurrency + 32,
                "scheduler_polling_interval_sec": 3600,  # its schedules are not used
                "use_listen_notify": False,
            }
        )
        quiet_logs()
        self._concurrency = concurrency
        self._per_owner = per_owner

        # A crash loop of the host is no reason to drop a run; ours count lost attempts (LOST_LIMIT).
        @DBOS.workflow(name=WORKFLOW, max_recovery_attempts=1_000_000)
        def _dispatch(run_id: str, dispatch_no: int, owner: str) -> None:
            execute(run_id, dispatch_no, owner)

    def start(self) -> None:
        """Begin taking dispatches; what an earlier process left half done comes first."""
        DBOS.launch()
        DBOS.register_queue(
            QUEUE,
            worker_concurrency=self._concurrency,
            partition_concurrency=self._per_owner,
            polling_interval_sec=_POLL,
            on_conflict="always_update",
        )

    def stop_taking(self) -> None:
        """Take nothing more; what is being executed goes on."""
        # DBOS's public way to stop the queue also abandons what runs, so its stop events are set by hand.
        for event in self._dbos.background_thread_stop_events:
            event.set()
        # A look at the queue that is under way goes on to begin what it claims, and could not any more once
        # `stop` has taken its threads away: the claim would wait for the next start, with an error in the log.
        for thread in threading.enumerate():
            if thread.name == _TAKER:
                thread.join(_LONGEST_LOOK)

    def stop(self) -> None:
        """Let go of the database; call it when nothing is being executed."""
        DBOS.destroy(destroy_registry=True)
