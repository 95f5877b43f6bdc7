"""Figures of the whole server: readiness, the way from an answered prompt to a start, idle schedules."""

from __future__ import annotations

import time
from datetime import datetime

import httpx

from bench import seed
from bench.harness import Figure, cpu_seconds, median, serving
from bench.live_run import CONFIG
from tests.support.server import Server, eventually

STARTS = 5
ANSWERS = 5
IDLE_SECONDS = 20


def start_up() -> list[Figure]:
    """Seconds from the command to a /readyz of 200, with 10,000 credentials."""
    with serving(CONFIG) as server:
        server.start()
        server.stop()
        seed.credentials(server, 10_000)
        seconds = []
        for _ in range(STARTS):
            begun = time.monotonic()
            server.start()
            seconds.append(time.monotonic() - begun)
            server.stop()
    took = median(seconds)
    return [
        Figure(
            "taskcred serve ready with 10,000 credentials",
            f"{took:.2f} s",
            "< 2 s",
            took < 2.0,
            f"starts: {', '.join(f'{each:.2f}' for each in seconds)} s",
        )
    ]


def answer_to_start() -> list[Figure]:
    """From the answer to a prompt (its 200) to the run's start, with 10,000 parked runs of other owners."""
    with serving(CONFIG) as server:
        server.start()
        server.stop()
        seed.parked_runs(server, 10_000)
        server.start()
        seconds = [_one_answer(server, number) for number in range(ANSWERS)]
    took = median(seconds)
    return [
        Figure(
            "from a prompt's answer to the run's start, 10,000 parked runs of others",
            f"{took:.2f} s",
            "< 1 s",
            max(seconds) < 1.0,
            f"each: {', '.join(f'{each:.2f}' for each in seconds)} s",
        )
    ]


def _one_answer(server: Server, number: int) -> float:
    me = server.sign_in(server.create_person(f"parked{number}@example.com"))
    run = me.request("POST", "/v1/runs", json={"task": "sleep", "parameters": {}}).json()
    answer = me.request("POST", f"/v1/prompts/{run['prompt_id']}/answer", json={"generate": True})
    answered_at = time.time()
    assert answer.status_code == 200, answer.text

    def started() -> str | None:
        found: str | None = me.request("GET", f"/v1/runs/{run['id']}").json()["started_at"]
        return found

    started_at = datetime.fromisoformat(eventually(started, "the run starts")).timestamp()
    me.request("POST", f"/v1/runs/{run['id']}/cancel")
    return max(0.0, started_at - answered_at)


def idle_schedules() -> list[Figure]:
    """CPU that 100,000 schedules add to an idle server."""
    with serving(CONFIG) as server:
        server.start()
        without = _idle(server)
        server.stop()
        seed.schedules(server, 100_000)
        server.start()
        having = _idle(server)
    added = (having - without) * 100
    return [
        Figure(
            "100,000 schedules on an idle server",
            f"{added:+.2f} % of a core",
            "< 2 %",
            added < 2.0,
            f"all processes: {without * 100:.1f} % without, {having * 100:.1f} % with",
        )
    ]


def _idle(server: Server) -> float:
    """Cores used by all roles of a server that nobody asks anything."""
    assert httpx.get(f"{server.url}/readyz").status_code == 200
    eventually(lambda: server.role("worker"), "the worker runs")
    time.sleep(5)  # what a start leaves to do is done
    roles = [pid for name in ("web", "keeper", "worker") if (pid := server.role(name)) is not None]
    before = sum(cpu_seconds(pid) for pid in roles)
    time.sleep(IDLE_SECONDS)
    return (sum(cpu_seconds(pid) for pid in roles) - before) / IDLE_SECONDS
