"""An identity provider that accepts and never answers leaves cached-token requests unharmed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading

import httpx

from bench.harness import Figure, median, needs, wrk
from bench.token_endpoint import FORM

ROUNDS = 5


def run() -> list[Figure]:
    """p99 of cached-token requests: quiet, then with every exchange hanging and 32 clients asking for one."""
    needs("wrk", "wrk")
    with tempfile.TemporaryDirectory() as directory:
        process = subprocess.Popen(
            [sys.executable, "-m", "bench.hung_server", directory], stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        try:
            told = json.loads(process.stdout.readline())
            url = f"http://127.0.0.1:{told['port']}/identity/token"
            form = FORM.format(key=told["cached"])
            wrk(url, form, process.pid, seconds=1)
            quiet = [wrk(url, form, process.pid) for _ in range(ROUNDS)]
            os.kill(process.pid, signal.SIGUSR1)
            stop = threading.Event()
            threads = [
                threading.Thread(target=_ask, args=(url, key, stop), daemon=True) for key in told["missing"]
            ]
            for thread in threads:
                thread.start()
            hung = [wrk(url, form, process.pid) for _ in range(ROUNDS)]
            stop.set()
        finally:
            process.kill()
            process.wait()
    ratio = median([load.p99_us for load in hung]) / median([load.p99_us for load in quiet])
    errors = sum(load.errors for load in hung)
    return [
        Figure(
            "hung identity provider: p99 of cached-token requests against quiet",
            f"{ratio:.2f}",
            "≤ 2.00",
            ratio <= 2.0 and errors == 0,
            f"p99 quiet {median([load.p99_us for load in quiet]):.0f} µs, hung {median([load.p99_us for load in hung]):.0f} µs; errors {errors}",
        )
    ]


def _ask(url: str, key: str, stop: threading.Event) -> None:
    """Keep asking for a token that only the hung provider could give; 503 is the right answer, and tells
    how long to wait. On the load generator's core, not the server's."""
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    with httpx.Client(timeout=30) as client:
        while not stop.is_set():
            try:
                answer = client.post(
                    url, data={"apikey": key, "grant_type": "urn:ibm:params:oauth:grant-type:apikey"}
                )
            except httpx.TransportError:
                return  # the server was ended
            stop.wait(float(answer.headers.get("Retry-After", "0.2")))
