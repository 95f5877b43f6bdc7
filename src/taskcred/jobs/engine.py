"""The engine: DBOS Transact behind one module. Nothing else imports it.

One workflow is one dispatch of one run: (run id, number). Its id is made of both, so enqueueing it twice is
enqueueing it once. It carries references only. What DBOS gives us: the queue with its limit for each
owner, the atomic claim, and after a crash the same workflow again. Retries are new dispatches, parking is a
row with nothing behind it, schedules are our own table (design section 4, Engine).
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Final

import sqlalchemy as sa
from dbos import DBOS, DBOSClient, EnqueueOptions
from dbos._serialization import DBOSPortableJSON

APPLICATION: Final = "taskcred"
# A workflow is taken up only by the version that enqueued it. Ours is constant: a dispatch is one call with
# two references, and must outlive every upgrade.
VERSION: Final = "1"
EXECUTOR: Final = "solo"  # on SQLite there is one worker process, and it recovers what the one before it left
QUEUE: Final = "runs"
WORKFLOW: Final = "dispatch"
_ENDED: Final = ["SUCCESS", "ERROR", "CANCELLED", "MAX_RECOVERY_ATTEMPTS_EXCEEDED"]
_AT_ONCE: Final = 500  # rows deleted in one transaction
_POLL: Final = 0.2  # seconds between two looks at the queue

Execute = Callable[[str, int, str], None]
"""What a worker does with a dispatch: run id, dispatch number, owner."""


def quiet_logs() -> None:
    """DBOS's own lines below WARNING are noise, and its handler would bypass our redaction."""
    logger = logging.getLogger("dbos")
    logger.setLevel(logging.WARNING)
    logger.handlers.clear()
    logger.propagate = True


def migrate_engine(database_url: str) -> None:
    """Bring DBOS's tables in `database_url` to the version this release needs; safe to repeat.

    On an engine of its own: DBOS begins its migration itself, which our BEGIN IMMEDIATE would forbid.
    """
    quiet_logs()
    DBOS.migrate(database_url)


class DbosQueue:
    """`services.context.RunQueue` on DBOS: enqueues within the caller's transaction."""

    def __init__(self, engine: sa.Engine) -> None:
        quiet_logs()
        self._client = DBOSClient(
            system_database_engine=engine,
            serializer=DBOSPortableJSON,
            application_name=APPLICATION,
            lazy=True,
            retry_connection_errors=False,  # a database that is away is an answer (503), not a wait
        )

    def enqueue(
        self,
        connection: sa.Connection,
        run_id: str,
        dispatch_no: int,
        owner: str,
        delay: timedelta = timedelta(0),
    ) -> None:
        """Put a dispatch in line; see `RunQueue`. The delay is kept to the second."""
        self._put(connection, f"{run_id}.{dispatch_no}", run_id, dispatch_no, owner, delay)

    def put_back(
        self,
        connection: sa.Connection,
        run_id: str,
        dispatch_no: int,
        owner: str,
        again: str,
        delay: timedelta,
    ) -> None:
        """Put a dispatch that was taken and not begun in line again. `again` makes its id new."""
        self._put(connection, f"{run_id}.{dispatch_no}.{again}", run_id, dispatch_no, owner, delay)

    def _put(
        self,
        connection: sa.Connection,
        workflow_id: str,
        run_id: str,
        dispatch_no: int,
        owner: str,
        delay: timedelta,
    ) -> None:
        options: EnqueueOptions = {
            "queue_name": QUEUE,
            "workflow_name": WORKFLOW,
            "workflow_id": workflow_id,
            "app_version": VERSION,
            "queue_partition_key": owner,
        }
        if delay > timedelta(0):
            options["delay_seconds"] = delay.total_seconds()
        self._client.enqueue_in_transaction(connection, options, run_id, dispatch_no, owner)

    def forget_finished(self, before: datetime) -> int:
        """Delete the engine's rows of dispatches that ended before `before`; how many.

        The runs themselves are ours and have a retention of their own.
        """
        forgotten = 0
        while True:
            finished = self._client.list_workflows(
                status=_ENDED,
                completed_before=before.isoformat(),
                limit=_AT_ONCE,
                load_input=False,
                load_output=False,
            )
            self._client.delete_workflows([workflow.workflow_id for workflow in finished])
            forgotten += len(finished)
            if len(finished) < _AT_ONCE:
                return forgotten


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

    def stop(self) -> None:
        """Let go of the database; call it when nothing is being executed."""
        DBOS.destroy(destroy_registry=True)
