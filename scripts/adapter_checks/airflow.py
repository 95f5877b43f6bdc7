"""Airflow: `airflow standalone` with its scheduler, triggerer and local executor."""

from __future__ import annotations

import sqlite3

from scripts.adapter_checks.world import World, is_up, say
from tests.support.server import eventually

_PAGES = "http://127.0.0.1:8080/api/v2/version"


def check(world: World) -> None:
    """The page's steps; the task must be deferred before its owner answers."""
    for step in world.steps:
        if step.text.startswith("$ taskcred key create"):
            world.run_in("waiting_for_credential")
            eventually(lambda: _state(world) == "deferred", "the task is deferred", within=60)
            say("the run is parked and the task deferred: no worker slot is held")
        world.do(step)
        if step.place == "background":
            eventually(lambda: is_up(_PAGES), "Airflow answers", within=120)
            eventually(
                lambda: "nightly_report" in world.run("airflow dags list"), "the DAG is read", within=60
            )
    world.run_in("running")
    world.disturb()
    eventually(lambda: _state(world) in {"success", "failed"}, "the task ends", within=120)
    logs = world.machine.glob("airflow/logs/dag_id=nightly_report/**/*.log")
    world.judge("\n".join(log.read_text() for log in logs))


def _state(world: World) -> str | None:
    """The task's, as Airflow has it in its records; its command line takes seconds to say it."""
    with sqlite3.connect(f"file:{world.machine}/airflow/airflow.db?mode=ro", uri=True) as records:
        rows = records.execute("SELECT state FROM task_instance").fetchall()
    return rows[0][0] if rows else None
