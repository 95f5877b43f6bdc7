"""Dagster: an asset, materialized in a process of its own with its records in a new home."""

from __future__ import annotations

from scripts.adapter_checks.world import World, say
from tests.support.server import eventually


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
