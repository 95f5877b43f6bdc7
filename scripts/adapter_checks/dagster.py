"""Dagster: an asset, materialized in a process of its own with its records in a new home."""

from __future__ import annotations

from scripts.adapter_checks.world import World, say
from tests.support.server import eventually

# What the page's table says besides: assets that end in each way.
_ALSO = """
from dagster import AssetExecutionContext, Definitions, Failure, RetryPolicy, RetryRequested, asset
from dagster import DagsterInvariantViolationError
from nightly_report import defs
from taskcred.adapters.dagster import TaskcredResource

ONCE = RetryPolicy(max_retries=1)


def fail(context, taskcred, times, error):
    with taskcred.attempt(context, "nightly-report", owner="ada") as begun:
        assert begun.session.token()
        if begun.number <= times:
            raise error


@asset(retry_policy=ONCE)
def retried(context: AssetExecutionContext, taskcred: TaskcredResource) -> None:
    fail(context, taskcred, 1, RuntimeError("a try"))


@asset(retry_policy=ONCE)
def exhausted(context: AssetExecutionContext, taskcred: TaskcredResource) -> None:
    fail(context, taskcred, 9, RuntimeError("a try"))


@asset(retry_policy=ONCE)
def misused(context: AssetExecutionContext, taskcred: TaskcredResource) -> None:
    fail(context, taskcred, 9, DagsterInvariantViolationError("Dagster's own"))


@asset
def asked(context: AssetExecutionContext, taskcred: TaskcredResource) -> None:
    fail(context, taskcred, 1, RetryRequested(max_retries=1))


@asset
def asked_too_often(context: AssetExecutionContext, taskcred: TaskcredResource) -> None:
    fail(context, taskcred, 9, RetryRequested(max_retries=1))


@asset(retry_policy=ONCE)
def final(context: AssetExecutionContext, taskcred: TaskcredResource) -> None:
    fail(context, taskcred, 9, Failure("for good", allow_retries=False))


defs = Definitions(assets=[retried, exhausted, misused, asked, asked_too_often, final], resources=defs.resources)
"""
_NO_RETRIES = '{"execution": {"config": {"in_process": {"retries": {"disabled": {}}}}}}'
# Asset -> how its run ends, and its attempts.
_ENDINGS = {
    "retried": ("succeeded", ["failed", "succeeded"]),
    "exhausted": ("failed", ["failed", "failed"]),
    "misused": ("failed", ["failed"]),
    "asked": ("succeeded", ["failed", "succeeded"]),
    "asked_too_often": ("failed", ["failed", "failed"]),
    "final": ("failed", ["failed"]),
    f"retried --config-json '{_NO_RETRIES}'": ("failed", ["failed"]),
}


def check(world: World) -> None:
    """The page's steps; the step must wait before its owner answers."""
    for step in world.steps:
        if step.text.startswith("$ taskcred key create"):
            world.see_prompt_named("the step's log")
            say("the run is parked, and the step's log says where its owner answers")
        world.do(step)
    world.run_in("running")
    world.disturb()
    done = world.background[-1]
    eventually(lambda: done.poll() is not None, "the step ends", within=300)
    if done.returncode:
        raise SystemExit(f"The step failed:\n{world.background_log(-1)}")
    world.judge(world.run_in("succeeded")["progress_text"])
    (world.machine / "also.py").write_text(_ALSO)
    for name, ending in _ENDINGS.items():
        world.run(
            "export TASKCRED_CLIENT_SECRET="
            """$(python -c 'import json; print(json.load(open("dagster.json"))["client_secret"])'); """
            f"DAGSTER_HOME=$PWD/dagster-home dagster asset materialize --select {name} -f also.py || true"
        )
        world.see_ending(name, *ending)
