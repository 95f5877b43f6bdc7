"""Prefect: its own server, and a flow in a process."""

from __future__ import annotations

from scripts.adapter_checks.world import World, is_up, say
from tests.support.server import eventually

_API = "http://127.0.0.1:4200/api/health"
# What the page's table says besides: functions that end in each way.
_ALSO = """
import sys, time
from prefect import flow, task
from taskcred.adapters.prefect import TaskcredService


def attempt():
    return TaskcredService.load("taskcred").attempt("nightly-report", owner="ada")


def fail(times):
    with attempt() as begun:
        assert begun.session.token()
        if begun.number <= times:
            raise RuntimeError(f"try {begun.number}")


@task(retries=2)
def retried():
    fail(1)


@task(retries=1)
def exhausted():
    fail(9)


@task(retries=2, retry_condition_fn=lambda task, run, state: False)
def hopeless():
    fail(9)


async def once(task, run, state):
    return run.run_count == 1


@task(retries=2, retry_condition_fn=once)
def hopeless_soon():
    fail(9)


@task(retries=1, timeout_seconds=5)
def slow():
    with attempt() as begun:
        if begun.number == 1:
            time.sleep(30)


@flow(retries=1)
def whole():
    fail(1)


@flow
def one_task(name):
    globals()[name]()


name = sys.argv[1]
whole() if name == "whole" else one_task(name)
"""
# Function -> how its run ends, and its attempts.
_ENDINGS = {
    "retried": ("succeeded", ["failed", "succeeded"]),
    "exhausted": ("failed", ["failed", "failed"]),
    "hopeless": ("failed", ["failed"]),
    "hopeless_soon": ("failed", ["failed", "failed"]),
    "slow": ("succeeded", ["timed_out", "succeeded"]),
    "whole": ("succeeded", ["failed", "succeeded"]),
}


def check(world: World) -> None:
    """The page's steps; the flow must wait before its owner answers."""
    for step in world.steps:
        if step.text.startswith("$ taskcred key create"):
            world.see_prompt_named("the flow's log")
            say("the run is parked, and the flow's log says where its owner answers")
        world.do(step)
        if step.text.startswith("$ prefect server start"):
            eventually(lambda: is_up(_API), "Prefect's server answers", within=300)
    world.run_in("running")
    world.disturb()
    flow = world.background[-1]
    eventually(lambda: flow.poll() is not None, "the flow ends", within=300)
    if flow.returncode:
        raise SystemExit(f"The flow failed:\n{world.background_log(-1)}")
    world.judge(world.run_in("succeeded")["progress_text"])
    (world.machine / "also.py").write_text(_ALSO)
    for name, ending in _ENDINGS.items():
        world.run(f"PREFECT_API_URL={_API.removesuffix('/health')} python also.py {name} || true")
        world.see_ending(name, *ending)
