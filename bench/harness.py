"""What every benchmark needs: CPU of a process, a load generator, a result that prints as a row."""

from __future__ import annotations

import os
import re
import shutil
import statistics
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.support.server import Server


@dataclass(frozen=True, slots=True)
class Figure:
    """One named claim: what was measured, against what bound, and whether it holds."""

    name: str
    measured: str
    bound: str
    holds: bool
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Load:
    """What a load generator saw."""

    requests: int
    errors: int
    seconds: float
    p50_us: float
    p99_us: float
    cpu_us: float  # of the server, for each request


def cpu_seconds(pid: int) -> float:
    """CPU time of a process with its living threads, from the scheduler's own accounting (ns)."""
    total = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        total += int((task / "schedstat").read_text().split()[0])
    return total / 1e9


def resident_mib(pid: int) -> float:
    """Resident memory of a process."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def needs(tool: str, package: str) -> None:
    """Stop, saying how to get `tool`, where it is missing."""
    if shutil.which(tool) is None:
        raise SystemExit(f"This benchmark needs {tool}: apt-get install {package}")


def wrk(url: str, body: str, pid: int, *, connections: int = 32, seconds: int = 5) -> Load:
    """POST `body` as a form from `connections` keep-alive connections, with wrk pinned to the last core."""
    script = (
        'wrk.method = "POST"\n'
        f'wrk.body = "{body}"\n'
        'wrk.headers["Content-Type"] = "application/x-www-form-urlencoded"\n'
        'wrk.headers["Accept"] = "application/json"\n'
    )
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as file:
        file.write(script)
        file.flush()
        last_core = {max(os.sched_getaffinity(0))}
        before = cpu_seconds(pid)
        done = subprocess.run(
            ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--latency", "-s", file.name, url],
            capture_output=True,
            text=True,
            check=True,
            preexec_fn=lambda: os.sched_setaffinity(0, last_core),
        )
        used = cpu_seconds(pid) - before
    return _parse(done.stdout, used)


def _parse(text: str, used: float) -> Load:
    requests, took = re.search(r"(\d+) requests in ([\d.]+)s", text).groups()  # type: ignore[union-attr]  # wrk's fixed form
    failed = sum(int(number) for number in re.findall(r"(?:connect|read|write|timeout) (\d+)", text))
    refused = re.search(r"Non-2xx or 3xx responses: (\d+)", text)
    percentile = dict(re.findall(r"(50|99)%\s+([\d.]+(?:us|ms|s))", text))
    return Load(
        requests=int(requests),
        errors=failed + (int(refused.group(1)) if refused else 0),
        seconds=float(took),
        p50_us=_microseconds(percentile["50"]),
        p99_us=_microseconds(percentile["99"]),
        cpu_us=used / int(requests) * 1e6,
    )


def _microseconds(text: str) -> float:
    number, unit = re.fullmatch(r"([\d.]+)(us|ms|s)", text).groups()  # type: ignore[union-attr]  # wrk's fixed form
    return float(number) * {"us": 1, "ms": 1e3, "s": 1e6}[unit]


def median(values: list[float]) -> float:
    """The median: what to quote on a shared machine."""
    return statistics.median(values)


@contextmanager
def serving(config: str, **environment: str) -> Iterator[Server]:
    """A real server in a temporary directory."""
    with tempfile.TemporaryDirectory(prefix="taskcred-bench-") as directory:
        server = Server(Path(directory), config=config, environment=environment)
        try:
            yield server
        finally:
            server.stop()
