"""Celery: a worker with four processes, and Redis."""

from __future__ import annotations

import socket

from scripts.adapter_checks.world import World, say
from tests.support.server import eventually


def check(world: World) -> None:
    """The page's steps; the message must be put back before its owner answers."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        world.known[":6379"] = f":{free.getsockname()[1]}"
        world.known["--port 6379"] = f"--port {free.getsockname()[1]}"
    for step in world.steps:
        if step.text.startswith("$ taskcred key create"):
            world.see_prompt_named("the sender")
            eventually(lambda: "Looking again" in world.background_log(-2), "the worker looks again later")
            say("the run is parked, and whoever sent the task was told where its owner answers")
        world.do(step)
        if "celery -A tasks worker" in step.text:
            eventually(lambda: " ready." in world.background_log(-1), "the worker is ready", within=60)
    world.run_in("running")
    world.disturb()
    sender = world.background[-1]
    eventually(lambda: sender.poll() is not None, "the sender has its result", within=120)
    world.judge(world.background_log(-1))
