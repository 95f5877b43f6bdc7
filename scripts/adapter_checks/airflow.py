"""Airflow: `airflow standalone` with its scheduler, triggerer and local executor."""

from __future__ import annotations

import json
import sqlite3

import httpx

from scripts.adapter_checks.world import World, is_up, say
from tests.support.server import eventually

# What the page's table says besides: DAGs that lie there from the start, paused.
_ALSO = """
import datetime, pathlib, time
from airflow.sdk import dag, task
from airflow.sdk.definitions.retry_policy import ExceptionRetryPolicy, RetryAction, RetryRule

FINAL = RetryRule(exception=KeyError, action=RetryAction.FAIL)
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
def refused():
    @task.taskcred(taskcred_task="nightly-report", retry_policy=ExceptionRetryPolicy(rules=[FINAL]))
    def fail():
        raise KeyError

    fail()


@dag(schedule="@once", default_args=OWNER)
def cleared():
    @task.taskcred(taskcred_task="nightly-report")
    def wait_once(session):
        assert session.token()
        if not MARK.exists():
            MARK.touch()
            time.sleep(600)

    wait_once()


@dag(schedule="@once", default_args=OWNER)
def timed_out():
    @task.taskcred(taskcred_task="nightly-report", execution_timeout=datetime.timedelta(seconds=5))
    def be_slow_once(ti=None):
        if ti.try_number == 1:
            time.sleep(600)

    be_slow_once()


@dag(schedule="@once", default_args=OWNER)
def marked():
    @task.taskcred(taskcred_task="nightly-report")
    def wait():
        time.sleep(600)

    wait()


@dag(schedule="@once", default_args=OWNER)
def withdrawn():
    @task.taskcred(taskcred_task="nightly-report")
    def use_token(session):
        while True:
            session.token()
            time.sleep(0.25)

    use_token()


retried()
refused()
cleared()
timed_out()
marked()
withdrawn()
"""
_URL = "http://127.0.0.1:8080"
_PASSWORDS = "airflow/simple_auth_manager_passwords.json.generated"
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
            eventually(lambda: is_up(f"{_URL}/api/v2/version"), "Airflow answers", within=300)
            eventually(
                lambda: "nightly_report" in world.run("airflow dags list"), "the DAG is read", within=300
            )
    world.run_in("running")
    world.disturb()
    eventually(lambda: _state(world) in {"success", "failed"}, "the task ends", within=300)
    logs = world.machine.glob("airflow/logs/dag_id=nightly_report/**/*.log")
    world.judge("\n".join(log.read_text() for log in logs))
    _retry(world)
    _time_out(world)
    _clear(world)
    _mark(world)
    _withdraw(world)


def _retry(world: World) -> None:
    """A retry is another attempt of the same run, where there is one."""
    _let_go(world, "retried")
    _see_end(world, "retried", "success")
    world.see_ending("a retry", "succeeded", ["failed", "succeeded"])
    _let_go(world, "refused")
    _see_end(world, "refused", "failed")
    world.see_ending("a retry that its policy does not allow", "failed", ["failed"])


def _time_out(world: World) -> None:
    """So it is after `execution_timeout`."""
    _let_go(world, "timed_out")
    _see_end(world, "timed_out", "success")
    world.see_ending("execution_timeout", "succeeded", ["timed_out", "succeeded"])


def _clear(world: World) -> None:
    """A task that is cleared while it runs ends its run, and the next try is another run."""
    _let_go(world, "cleared")
    eventually(lambda: (world.machine / "cleared").exists(), "the task waits", within=300)
    first = world.run_in("running")
    world.run("airflow tasks clear --yes cleared")
    _see_end(world, "cleared", "success")
    second = world.run_in("succeeded")
    ended = world.answer("GET", f"/v1/runs/{first['id']}")
    if second["id"] == first["id"] or (ended["state"], ended["reason"]) != ("failed", _ENDED):
        raise SystemExit(f"Clearing did not end the run and start another:\n{ended}\n{second}")
    say("clearing ended the run, and the next try was another")


def _mark(world: World) -> None:
    """A person marks a task as failed while it runs."""
    _let_go(world, "marked")
    run = world.run_in("running")
    passwords = json.loads((world.machine / _PASSWORDS).read_text())
    (user,) = passwords
    with httpx.Client(base_url=_URL) as pages:
        signed_in = pages.post("/auth/token", json={"username": user, "password": passwords[user]})
        pages.headers["Authorization"] = f"Bearer {signed_in.raise_for_status().json()['access_token']}"
        (dag_run,) = pages.get("/api/v2/dags/marked/dagRuns").raise_for_status().json()["dag_runs"]
        task = f"/api/v2/dags/marked/dagRuns/{dag_run['dag_run_id']}/taskInstances/wait"
        pages.patch(task, json={"new_state": "failed"}).raise_for_status()
    world.see_ending("marked as failed", "failed", ["failed"])
    if (ended := world.answer("GET", f"/v1/runs/{run['id']}"))["reason"] != _ENDED:
        raise SystemExit(f"The run does not say who ended it: {ended}")


def _withdraw(world: World) -> None:
    """The owner ends the grant, after which nothing can begin: the key is refused and the task fails."""
    _let_go(world, "withdrawn")
    run = world.run_in("running")
    world.answer("POST", f"/v1/grants/{run['grant_id']}/end")
    _see_end(world, "withdrawn", "failed")
    world.see_ending("its grant ended", "cancelled", ["cancelled"])


def _let_go(world: World, dag: str) -> None:
    """Begin the only run of a DAG, and wait until Airflow has its task in a process."""
    world.run(f"airflow dags unpause {dag} --yes")
    eventually(lambda: _state(world, dag) not in {None, "scheduled", "queued"}, f"{dag} begins", within=300)


def _see_end(world: World, dag: str, state: str) -> None:
    eventually(lambda: _state(world, dag) in {"success", "failed"}, f"the task of {dag} ends", within=300)
    if _state(world, dag) != state:
        raise SystemExit(f"The task of {dag} is {_state(world, dag)}, not {state}.")


def _state(world: World, dag: str = "nightly_report") -> str | None:
    """The task's, as Airflow has it in its records; its command line takes seconds to say it."""
    with sqlite3.connect(f"file:{world.machine}/airflow/airflow.db?mode=ro", uri=True) as records:
        rows = records.execute("SELECT state FROM task_instance WHERE dag_id = ?", (dag,)).fetchall()
    return rows[0][0] if rows else None
