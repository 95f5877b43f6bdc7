"""Airflow: `airflow standalone` with its scheduler, triggerer and local executor."""

from __future__ import annotations

import sqlite3

from scripts.adapter_checks.world import World, is_up, say
from tests.support.server import eventually

# What the page's table says besides: two DAGs that lie there from the start, paused.
_ALSO = """
import datetime, pathlib, time
from airflow.sdk import dag, task

OWNER = {"owner": "ada", "retries": 1, "retry_delay": datetime.timedelta(seconds=1)}
MARK = pathlib.Path.home() / "cleared"


@dag(schedule="@once", default_args=OWNER)
def retried():
    @task.taskcred(taskcred_task="nightly-report")
    def fail_once(session, ti=None):
        assert session.token()
        if ti.try_number == 1:
            raise RuntimeError("the first try")

    fail_once()


@dag(schedule="@once", default_args=OWNER)
def cleared():
    @task.taskcred(taskcred_task="nightly-report")
    def wait_once(session):
        assert session.token()
        if not MARK.exists():
            MARK.touch()
            time.sleep(600)

    wait_once()


retried()
cleared()
"""
_PAGES = "http://127.0.0.1:8080/api/v2/version"
_ENDED = "Airflow ended the task."


def check(world: World) -> None:
    """The page's steps; the task must be deferred before its owner answers."""
    for step in world.steps:
        if step.text.startswith("$ taskcred key create"):
            world.run_in("waiting_for_credential")
            eventually(lambda: _state(world) == "deferred", "the task is deferred", within=180)
            say("the run is parked and the task deferred: no worker slot is held")
        if step.place == "background":
            (world.machine / "airflow" / "dags" / "also.py").write_text(_ALSO)
        world.do(step)
        if step.place == "background":
            eventually(lambda: is_up(_PAGES), "Airflow answers", within=300)
            eventually(
                lambda: "nightly_report" in world.run("airflow dags list"), "the DAG is read", within=60
            )
    world.run_in("running")
    world.disturb()
    eventually(lambda: _state(world) in {"success", "failed"}, "the task ends", within=300)
    logs = world.machine.glob("airflow/logs/dag_id=nightly_report/**/*.log")
    world.judge("\n".join(log.read_text() for log in logs))
    _retry(world)
    _clear(world)


def _retry(world: World) -> None:
    """A retry is another attempt of the same run."""
    world.run("airflow dags unpause retried --yes")
    eventually(lambda: _state(world, "retried") in {"success", "failed"}, "the retried task ends", within=300)
    run = world.run_in("succeeded")
    if run["attempts_made"] != 2:
        raise SystemExit(f"The retry was no second attempt of its run: {run}")
    say("a retry was the second attempt of the same run")


def _clear(world: World) -> None:
    """A task that is cleared while it runs ends its run, and the next try is another run."""
    world.run("airflow dags unpause cleared --yes")
    eventually(lambda: (world.machine / "cleared").exists(), "the task waits", within=300)
    first = world.run_in("running")
    world.run("airflow tasks clear --yes cleared")
    eventually(lambda: _state(world, "cleared") in {"success", "failed"}, "the cleared task ends", within=300)
    second = world.run_in("succeeded")
    ended = world.answer("GET", f"/v1/runs/{first['id']}")
    if second["id"] == first["id"] or (ended["state"], ended["reason"]) != ("failed", _ENDED):
        raise SystemExit(f"Clearing did not end the run and start another:\n{ended}\n{second}")
    say("clearing ended the run, and the next try was another")


def _state(world: World, dag: str = "nightly_report") -> str | None:
    """The task's, as Airflow has it in its records; its command line takes seconds to say it."""
    with sqlite3.connect(f"file:{world.machine}/airflow/airflow.db?mode=ro", uri=True) as records:
        rows = records.execute("SELECT state FROM task_instance WHERE dag_id = ?", (dag,)).fetchall()
    return rows[0][0] if rows else None
