"""Workers and launchers that die, and a web that is away: no run is lost, none is doubled."""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from taskcred.domain.runs import AttemptOutcome, RunState
from taskcred.jobs.launcher import process_started
from tests.support.jobs import JobsHost

WAIT = 20


def sh(script: str, **more: Any) -> dict[str, Any]:
    return {"kind": "command", "argv": ["sh", "-c", script], **more}


@pytest.fixture
def host(make_host: Callable[..., JobsHost], tmp_path: Path) -> JobsHost:
    # The first attempt hangs, each later one succeeds. flock tells if two are ever alive at once.
    guard = f"exec flock -n {tmp_path}/lock sh -c"
    once = f"if [ -e {tmp_path}/flag ]; then exit 0; fi; echo $$ >{tmp_path}/flag; trap : TERM; "
    hang = "while true; do sleep 60 & wait; done"
    return make_host(
        {
            "hangs_once": sh(f"{guard} '{once}{hang}'"),
            "hangs_once_final": sh(f"{once}{hang}", retry={"on_lost": False}),
            "counted": sh(f"echo $TASKCRED_RUN_ID >>{tmp_path}/done"),
            "short": sh("sleep 1.5"),
            "alone": sh(f"{guard} 'sleep 0.4'"),
        },
        {"per_owner": 2},
    )


def started(host: JobsHost, tmp_path: Path) -> int:
    flag = tmp_path / "flag"
    return int(host.until(lambda: flag.exists() and flag.read_text().strip()))


def is_gone(pid: int) -> bool:
    return process_started(pid) is None


def kill(worker: subprocess.Popen[str]) -> None:
    worker.kill()
    worker.wait(WAIT)


def test_a_killed_workers_job_ends_and_the_run_is_tried_again(host: JobsHost, tmp_path: Path) -> None:
    worker = host.start_worker()
    run_id = host.start("hangs_once")
    job = started(host, tmp_path)
    kill(worker)
    host.start_worker()
    run = host.wait(run_id)
    assert run.state is RunState.SUCCEEDED, host.output(run_id).text + host.log()
    assert is_gone(job)
    assert [a.outcome for a in host.attempts(run_id)] == [AttemptOutcome.LOST, AttemptOutcome.SUCCEEDED]


def test_a_run_is_tried_again_though_web_is_away_while_its_lost_attempt_is_found(
    host: JobsHost, tmp_path: Path
) -> None:
    worker = host.start_worker()
    run_id = host.start("hangs_once")
    started(host, tmp_path)
    kill(worker)
    host.is_away = True
    host.start_worker()
    # The dispatch that found the loss waits for web when the next dispatch of the same run is taken.
    host.until(lambda: was_taken(host, f"{run_id}.2"))
    host.is_away = False
    assert host.wait(run_id).state is RunState.SUCCEEDED


def was_taken(host: JobsHost, dispatch: str) -> bool:
    with host.ctx.store.read() as connection:
        status = connection.exec_driver_sql(
            "select status from workflow_status where workflow_uuid = ?", (dispatch,)
        ).scalar_one_or_none()
    return status == "SUCCESS"


def test_a_task_may_prefer_failure_to_a_second_try(host: JobsHost, tmp_path: Path) -> None:
    worker = host.start_worker()
    run_id = host.start("hangs_once_final")
    started(host, tmp_path)
    kill(worker)
    host.start_worker()
    run = host.wait(run_id)
    assert run.state is RunState.FAILED
    assert [a.outcome for a in host.attempts(run_id)] == [AttemptOutcome.LOST]


def test_a_killed_launcher_takes_the_job_with_it(host: JobsHost, tmp_path: Path) -> None:
    host.start_worker()
    run_id = host.start("hangs_once")
    job = started(host, tmp_path)
    with host.ctx.store.read() as connection:
        launcher = connection.exec_driver_sql(
            "select json_extract(launcher, '$.pid') from attempts"
        ).scalar_one()
    os.kill(launcher, signal.SIGKILL)
    assert host.wait(run_id).state is RunState.SUCCEEDED
    assert is_gone(job)
    assert [a.outcome for a in host.attempts(run_id)] == [AttemptOutcome.LOST, AttemptOutcome.SUCCEEDED]


def test_an_outage_of_web_queues_runs_instead_of_failing_them(host: JobsHost) -> None:
    host.is_away = True
    host.start_worker()
    run_id = host.start("short")
    host.until(lambda: "attempt not begun yet" in host.log())
    assert host.get(run_id).state is RunState.QUEUED
    host.is_away = False
    assert host.wait(run_id).state is RunState.SUCCEEDED


def test_a_drained_worker_finishes_its_jobs_and_takes_no_more(host: JobsHost) -> None:
    worker = host.start_worker()
    run_id = host.start("short")
    host.wait(run_id, [RunState.RUNNING])
    worker.terminate()
    host.until(lambda: "worker drains" in host.log())
    later = host.start("counted")
    assert worker.wait(WAIT) == 0
    assert host.get(run_id).state is RunState.SUCCEEDED
    assert host.get(later).state is RunState.QUEUED
    host.start_worker()
    assert host.wait(later).state is RunState.SUCCEEDED


def test_a_drain_does_not_wait_for_a_web_that_is_away(host: JobsHost) -> None:
    host.is_away = True
    worker = host.start_worker()
    run_id = host.start("counted")
    host.until(lambda: "attempt not begun yet" in host.log())
    worker.terminate()
    assert worker.wait(WAIT) == 0
    host.is_away = False
    host.start_worker()
    assert host.wait(run_id).state is RunState.SUCCEEDED
    assert len(host.attempts(run_id)) == 1


def test_a_second_signal_ends_the_jobs_at_once(host: JobsHost, tmp_path: Path) -> None:
    worker = host.start_worker()
    run_id = host.start("hangs_once")
    job = started(host, tmp_path)
    worker.terminate()
    host.until(lambda: "worker drains" in host.log())
    worker.terminate()
    assert worker.wait(WAIT) == 0
    assert is_gone(job)
    assert host.get(run_id).state is RunState.QUEUED
    host.start_worker()
    assert host.wait(run_id).state is RunState.SUCCEEDED


def test_a_worker_that_ends_while_it_takes_work_begins_or_leaves_it(host: JobsHost) -> None:
    worker = host.start_worker()
    host.wait(host.start("counted"))
    later = host.start("counted")
    with closing(sqlite3.connect(host.data_dir / "records.db", isolation_level=None)) as writer:
        writer.execute("BEGIN IMMEDIATE")
        time.sleep(0.5)  # by now its look at the queue waits for us
        worker.send_signal(signal.SIGINT)
        host.until(lambda: "worker drains" in host.log())
        time.sleep(0.5)
        writer.execute("ROLLBACK")
    assert worker.wait(WAIT) == 0
    # The engine's lines are warnings and errors: here, of work that it took and could not begin.
    assert [line for line in host.log().splitlines() if "DBOS" in line] == []
    host.start_worker()
    assert host.wait(later).state is RunState.SUCCEEDED


def test_a_retiring_worker_works_on_until_it_has_no_job(host: JobsHost) -> None:
    worker = host.start_worker()
    run_id = host.start("short")
    host.wait(run_id, [RunState.RUNNING])
    worker.send_signal(signal.SIGUSR1)
    later = host.start("counted")
    assert host.wait(later).state is RunState.SUCCEEDED
    assert worker.wait(WAIT) == 0
    assert host.get(run_id).state is RunState.SUCCEEDED


def test_a_second_worker_waits_for_the_first_to_go(host: JobsHost) -> None:
    first = host.start_worker()
    second = host.spawn_worker()
    host.until(lambda: "waiting for the worker before this one" in host.log())
    kill(first)
    assert second.stdout is not None
    assert second.stdout.readline() == "ready\n"


def test_an_owner_has_only_so_many_jobs_at_once_and_others_do_not_wait(
    make_host: Callable[..., JobsHost], tmp_path: Path
) -> None:
    gate = f"while [ ! -e {tmp_path}/open ]; do sleep 0.1; done"
    host = make_host(
        {"alone": sh(f"exec flock -n {tmp_path}/lock sh -c '{gate}'"), "quick": sh("true")}, {"per_owner": 1}
    )
    other, _ = host.add_owner()
    host.start_worker()
    runs = [host.start("alone") for _ in range(3)]
    host.until(lambda: any(host.get(run_id).state is RunState.RUNNING for run_id in runs))
    quick = host.start("quick", other)
    host.until(lambda: host.get(quick, other).state is RunState.SUCCEEDED)
    states = Counter(host.get(run_id).state for run_id in runs)
    assert states == {RunState.RUNNING: 1, RunState.QUEUED: 2}
    (tmp_path / "open").touch()
    assert [host.wait(run_id).state for run_id in runs] == [RunState.SUCCEEDED] * 3


def test_nothing_is_lost_or_doubled_however_often_the_worker_dies(host: JobsHost, tmp_path: Path) -> None:
    seed = int.from_bytes(os.urandom(4))
    rng = random.Random(seed)
    runs = [host.start("counted") for _ in range(12)]
    for _ in range(5):
        worker = host.start_worker()
        with pytest.raises(subprocess.TimeoutExpired):
            worker.wait(rng.uniform(0.2, 2.0))
        kill(worker)
    host.start_worker()
    ended = [host.wait(run_id, timeout=60) for run_id in runs]
    assert {run.state for run in ended} == {RunState.SUCCEEDED}, f"seed {seed}"
    outcomes = {run.id: Counter(a.outcome for a in host.attempts(run.id)) for run in ended}
    assert all(counted[AttemptOutcome.SUCCEEDED] == 1 for counted in outcomes.values()), f"seed {seed}"
    # A job ran once for each attempt that was begun, and at most once for each that was lost.
    executed = Counter((tmp_path / "done").read_text().split())
    for run_id, counted in outcomes.items():
        assert 1 <= executed[run_id] <= 1 + counted[AttemptOutcome.LOST], f"seed {seed}"
