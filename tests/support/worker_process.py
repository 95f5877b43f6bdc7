"""A worker process for tests: `python worker_process.py` with its settings as JSON on standard input."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from taskcred import logs
from taskcred.clock import SystemClock
from taskcred.config import JobSettings, LogSettings, TaskSettings
from taskcred.domain.secret import Secret
from taskcred.jobs.catalogue import load_tasks
from taskcred.jobs.queue import DbosQueue
from taskcred.jobs.worker import Worker, WorkerSettings
from taskcred.store.engine import sqlite_engine
from taskcred.testing import make_context


def main() -> None:
    """Run the worker until it is told to stop."""
    logs.configure(LogSettings(format="text"), "worker")
    told = json.loads(sys.stdin.readline())
    data_dir = Path(told["data_dir"])
    jobs = JobSettings(**told["jobs"])
    tasks = {name: TaskSettings(**task) for name, task in told["tasks"].items()}
    queue = DbosQueue(sqlite_engine(data_dir / "records.db"))
    ctx = make_context(data_dir, clock=SystemClock(), queue=queue, tasks=load_tasks(tasks, jobs.http_allow))
    settings = WorkerSettings(
        name=told["name"],
        credential=Secret(told["credential"]),
        url=told["url"],
        ca_file=None,
        data_dir=data_dir,
        hidden=tuple(map(Path, told["hidden"])),
        jobs=jobs,
    )
    Worker(settings, ctx, queue).run(on_ready=_say_ready)


def _say_ready() -> None:
    sys.stdout.write("ready\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
