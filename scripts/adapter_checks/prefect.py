"""Prefect: its own server, and a flow in a process."""

from __future__ import annotations

from scripts.adapter_checks.world import World, is_up, say
from tests.support.server import eventually

_API = "http://127.0.0.1:4200/api/health"


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
