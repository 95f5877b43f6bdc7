"""The queue: putting dispatches in line for the engine, DBOS Transact (`jobs.engine` takes them out again).

One workflow is one dispatch of one run: (run id, number). Its id is made of both, so enqueueing it twice is
enqueueing it once. It carries references only. DBOS is imported where it is first used: loading it takes
half a second, which no start has to wait for.
"""

from __future__ import annotations

import logging
import threading
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final

import sqlalchemy as sa

# DBOS loads this too, and then in the middle of requests: while it loads, it answers other threads' questions
# about values half-ready, and their statements fail. So it is loaded before there are threads.
import sqlalchemy.orm

if TYPE_CHECKING:
    from dbos import DBOSClient, EnqueueOptions

APPLICATION: Final = "taskcred"
# A workflow is taken up only by the version that enqueued it. Ours is constant: a dispatch is one call with
# two references, and must outlive every upgrade.
VERSION: Final = "1"
QUEUE: Final = "runs"
WORKFLOW: Final = "dispatch"
_ENDED: Final = ["SUCCESS", "ERROR", "CANCELLED", "MAX_RECOVERY_ATTEMPTS_EXCEEDED"]
_AT_ONCE: Final = 500  # rows deleted in one transaction
_MIGRATED: Final = 30400  # SQLite's user_version once the tables of DBOS 3.4.0 are there
_MIGRATED_COMMENT: Final = "DBOS 3.4.0"  # the same on PostgreSQL: said of the schema that holds them


def quiet_logs() -> None:
    """DBOS's own lines below WARNING are noise, and its handler would bypass our redaction."""
    logger = logging.getLogger("dbos")
    logger.setLevel(logging.WARNING)
    logger.handlers.clear()
    logger.propagate = True


def migrate_engine(engine: sa.Engine) -> None:
    """Bring DBOS's tables in the database of `engine` to the version this release needs; safe to repeat.

    DBOS migrates on an engine of its own: it begins the transaction itself, which our BEGIN IMMEDIATE would
    forbid. Where the tables are there already it is not even loaded.
    """
    is_sqlite = engine.dialect.name == "sqlite"
    with engine.begin() as connection:
        if is_sqlite:
            is_current = connection.exec_driver_sql("PRAGMA user_version").scalar_one() == _MIGRATED
        else:
            said = "SELECT obj_description(to_regnamespace('dbos'), 'pg_namespace')"
            is_current = connection.exec_driver_sql(said).scalar() == _MIGRATED_COMMENT
    if is_current:
        return
    from dbos import DBOS

    quiet_logs()
    DBOS.migrate(engine.url.render_as_string(hide_password=False))
    with engine.begin() as connection:
        connection.exec_driver_sql(
            f"PRAGMA user_version = {_MIGRATED}"
            if is_sqlite
            else f"COMMENT ON SCHEMA dbos IS '{_MIGRATED_COMMENT}'"
        )


class DbosQueue:
    """`services.context.RunQueue` on DBOS: enqueues within the caller's transaction."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine
        self._lock = threading.Lock()
        self._made: DBOSClient | None = None

    def load(self) -> DBOSClient:
        """DBOS's client, made at the first call; call it ahead of time to have the first run not wait."""
        with self._lock:
            if self._made is None:
                from dbos import DBOSClient
                from dbos._serialization import DBOSPortableJSON

                quiet_logs()
                self._made = DBOSClient(
                    system_database_engine=self._engine,
                    serializer=DBOSPortableJSON,
                    application_name=APPLICATION,
                    lazy=True,
                    retry_connection_errors=False,  # a database that is away is an answer (503), not a wait
                )
            return self._made

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
        self.load().enqueue_in_transaction(connection, options, run_id, dispatch_no, owner)

    def forget_finished(self, before: datetime) -> int:
        """Delete the engine's rows of dispatches that ended before `before`; how many.

        The runs themselves are ours and have a retention of their own.
        """
        forgotten = 0
        while True:
            finished = self.load().list_workflows(
                status=_ENDED,
                completed_before=before.isoformat(),
                limit=_AT_ONCE,
                load_input=False,
                load_output=False,
            )
            self.load().delete_workflows([workflow.workflow_id for workflow in finished])
            forgotten += len(finished)
            if len(finished) < _AT_ONCE:
                return forgotten
