"""A hostile job looks for everything it should not find. In a sandbox it finds nothing; without one it finds
all of it, which shows that this test can fail."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from taskcred.domain.runs import RunState
from tests.support.jobs import JobsHost

CANARY = "canary-" + os.urandom(16).hex()

# What the job does. It prints what it got, never the canary itself.
HOSTILE = r"""
import ctypes, json, os, sys
canary, worker, places = "canary-" + sys.argv[1], int(sys.argv[2]), sys.argv[3:]
found = {"files": [], "search": [], "environments": [], "processes": [], "memory": False, "ptrace": False,
         "signal": False, "parent": False, "written": []}

def has(path):
    try:
        with open(path, "rb") as file:
            return canary.encode() in file.read(4_000_000)
    except OSError:
        return False

for place in places:
    for top, _, names in os.walk(place):
        found["files"] += [n for n in names if has(os.path.join(top, n))]
    if has(place):
        found["files"].append(os.path.basename(place))
    try:
        with open(os.path.join(place, "planted") if os.path.isdir(place) else place, "ab"):
            found["written"].append(place)
    except OSError:
        pass
for root in (os.path.dirname(places[0]), "/etc", "/home", "/var/lib", "/job"):
    for top, below, names in os.walk(root):
        found["search"] += [n for n in names if n in ("worker.credential", "master.key", "records.db")]
me = os.getpid()
for name in os.listdir("/proc"):
    if name.isdigit() and int(name) != me:
        found["processes"].append(int(name))
        if has(f"/proc/{name}/environ"):
            found["environments"].append(int(name))
found["parent"] = has(f"/proc/{os.getppid()}/environ")
for name in ("mem", "environ", "maps"):
    try:
        with open(f"/proc/{worker}/{name}", "rb") as file:
            file.read(1) if name != "mem" else None
            found["memory"] = True
    except OSError:
        pass
libc = ctypes.CDLL(None, use_errno=True)
SEIZE, DETACH = 0x4206, 17  # seizing does not stop the process, as attaching would
if libc.ptrace(SEIZE, worker, None, None) == 0:
    found["ptrace"] = True
try:
    os.kill(worker, 0)
    found["signal"] = True
except OSError:
    pass
print(json.dumps(found))
"""
# The host's own Python: another user may not be able to reach the one that runs the tests.
PYTHON = shutil.which("python3", path="/usr/local/bin:/usr/bin:/bin")
PARAMETERS = {
    "type": "object",
    "properties": {"worker": {"type": "integer"}},
    "required": ["worker"],
}


pytestmark = pytest.mark.skipif(PYTHON is None, reason="no python3 among the system's programs")


@pytest.fixture
def attack(tmp_path: Path) -> Iterator[Callable[[str], dict[str, Any]]]:
    """`attack(isolation)`: what a hostile job finds under that isolation."""
    hosts: list[JobsHost] = []
    # Everything lies below a directory that jobs may read, so that masking is tested, not only absence.
    shared = tmp_path / "shared"
    shared.mkdir()
    for directory in (tmp_path, shared):
        directory.chmod(0o755)

    def run(isolation: str, user: str | None = None) -> dict[str, Any]:
        elsewhere, revocations = shared / "elsewhere", shared / "revocations"
        for directory in (elsewhere, revocations):
            directory.mkdir(mode=0o700)
        places = [shared / "data", elsewhere / "master.key", revocations]
        task = {
            "kind": "command",
            "argv": [PYTHON, "-c", HOSTILE, CANARY.removeprefix("canary-"), "{worker}", *map(str, places)],
            "parameters": PARAMETERS,
        }
        host = JobsHost(
            shared / "data",
            {"hostile": task},
            {"isolation": isolation, "user": user, "readable": [str(shared)]},
            hidden=(elsewhere / "master.key", revocations),
        )
        hosts.append(host)
        for path in (
            host.data_dir / "worker.credential",
            host.data_dir / "master.key",
            elsewhere / "master.key",
            revocations / "2026.jsonl",
        ):
            path.write_text(CANARY)
            path.chmod(0o600)
        worker = host.start_worker(TASKCRED_TEST_CANARY=CANARY)
        done = host.wait(host.start("hostile", worker=worker.pid))
        text = host.output(done.id).text
        assert done.state is RunState.SUCCEEDED, text + host.log()
        found: dict[str, Any] = json.loads(text)
        return found

    yield run
    for host in hosts:
        host.close()


@pytest.mark.promise("key-stays-home")
@pytest.mark.skipif(shutil.which("bwrap") is None, reason="bubblewrap is not installed")
def test_in_bubblewrap_a_hostile_job_finds_nothing(attack: Callable[..., dict[str, Any]]) -> None:
    found = attack("bubblewrap")
    # The sandbox's own first process is all it sees.
    assert set(found.pop("processes")) <= set(range(10))
    assert found == {
        "files": [],
        "search": [],
        "environments": [],
        "memory": False,
        "ptrace": False,
        "signal": False,
        "parent": False,
        "written": [],
    }


@pytest.mark.promise("key-stays-home")
@pytest.mark.skipif(os.geteuid() != 0, reason="only root may run jobs as another user")
def test_as_another_user_a_hostile_job_reads_nothing(attack: Callable[..., dict[str, Any]]) -> None:
    found = attack("user", "nobody")
    del found["processes"]  # visible, as in any other process of this host
    assert found == {
        "files": [],
        "search": [],
        "environments": [],
        "memory": False,
        "ptrace": False,
        "signal": False,
        "parent": False,
        "written": [],
    }


def test_without_isolation_the_same_job_finds_everything(attack: Callable[..., dict[str, Any]]) -> None:
    found = attack("none")
    assert {"worker.credential", "master.key", "2026.jsonl"} <= set(found["files"])
    assert {"worker.credential", "master.key", "records.db"} <= set(found["search"])
    assert found["environments"]
    assert found["memory"]
    assert found["signal"]
    assert len(found["written"]) == 3
