"""The token endpoint, hot: CPU per request against a bare ASGI application on uvicorn; memory after load."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager

import httpx

from bench.harness import Figure, Load, cpu_seconds, median, needs, resident_mib, serving, wrk
from bench.live_run import CONFIG, standin_key_of_live_run

ROUNDS = 5
MEMORY_AFTER = 100_000
FORM = "grant_type=urn%3Aibm%3Aparams%3Aoauth%3Agrant-type%3Aapikey&apikey={key}&response_type=cloud_iam"


@contextmanager
def reference(key: str, answer: bytes) -> Iterator[tuple[str, int]]:
    """The bare ASGI application on uvicorn, one process on the first core: (url, pid)."""
    port = 18399
    with tempfile.NamedTemporaryFile() as body:
        body.write(answer)
        body.flush()
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", "uvicorn", "bench.reference_asgi:app", "--port", str(port)),
                *("--no-access-log", "--log-level", "error", "--loop", "uvloop", "--http", "httptools"),
            ],
            env=os.environ | {"REFERENCE_BODY": body.name, "REFERENCE_KEY": key},
            preexec_fn=lambda: os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}),
        )
        try:
            url = f"http://127.0.0.1:{port}/identity/token"
            for _ in range(100):
                try:
                    httpx.post(url, data={"apikey": key})
                    break
                except httpx.TransportError:
                    time.sleep(0.05)
            yield url, process.pid
        finally:
            process.terminate()
            process.wait()


def run() -> list[Figure]:
    """Rounds in turn, order reversed each time; medians of same-round ratios."""
    needs("wrk", "wrk")
    with serving(CONFIG) as server:
        key = standin_key_of_live_run(server)
        form = FORM.format(key=key)
        web = server.role("web")
        assert web is not None
        ours_url = f"{server.url}/identity/token"
        answer = httpx.post(
            ours_url, content=form, headers={"Content-Type": "application/x-www-form-urlencoded"}
        )
        assert answer.status_code == 200, answer.text
        with reference(key, answer.content) as (reference_url, reference_pid):
            pairs: list[tuple[Load, Load]] = []
            wrk(ours_url, form, web, seconds=1)
            wrk(reference_url, form, reference_pid, seconds=1)
            for number in range(ROUNDS):
                if number % 2:
                    theirs = wrk(reference_url, form, reference_pid)
                    ours = wrk(ours_url, form, web)
                else:
                    ours = wrk(ours_url, form, web)
                    theirs = wrk(reference_url, form, reference_pid)
                pairs.append((ours, theirs))
        served = sum(ours.requests for ours, _ in pairs)
        memory = resident_mib(web)
        assert served >= MEMORY_AFTER, f"only {served} requests in all rounds"
        assert cpu_seconds(web) > 0
    errors = sum(ours.errors for ours, _ in pairs)
    ratio = median([ours.cpu_us / theirs.cpu_us for ours, theirs in pairs])
    detail = "; ".join(f"{ours.cpu_us:.1f}/{theirs.cpu_us:.1f}" for ours, theirs in pairs)
    p99 = median([ours.p99_us / theirs.p99_us for ours, theirs in pairs])
    return [
        Figure(
            "token endpoint, 32 connections: server CPU per request against bare ASGI on uvicorn",
            f"{ratio:.2f}",
            "≤ 1.00",
            ratio <= 1.0 and errors == 0,
            f"µs ours/reference by round: {detail}; errors {errors}; p99 ratio {p99:.2f}",
        ),
        Figure(
            f"web process after {served:,} requests",
            f"{memory:.0f} MiB",
            "< 150 MiB",
            memory < 150,
            "resident set of the web process",
        ),
    ]
