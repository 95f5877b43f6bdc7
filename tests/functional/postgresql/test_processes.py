"""What one writer at a time gives on SQLite holds on PostgreSQL with several processes at once."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from taskcred.services.broker import TokenBroker
from taskcred.services.context import Context
from taskcred.store import tables as t
from taskcred.testing import START
from tests.support.site import make_site

# Reads what it is told, makes a context of its own, says so, and waits until everybody is there.
_BEGIN = """
import json, sys, threading
from pathlib import Path
from taskcred.domain.credentials import Generated
from taskcred.domain.tasks import Task, TaskKind
from taskcred.errors import ConflictError
from taskcred.services import credentials, ticker
from taskcred.services.broker import TokenBroker
from taskcred.testing import InMemoryIdentityProvider, FrozenClock, interactive, make_context
told = json.loads(sys.stdin.readline())
clock = FrozenClock()
provider = InMemoryIdentityProvider(clock)
ctx = make_context(
    Path(told["directory"]), clock=clock, provider=provider, tasks={"plain": Task("plain", TaskKind.COMMAND, argv=("true",))}
)
print("ready", flush=True)
sys.stdin.readline()
"""
_CREATE = """
provider._add("IBMid-ANN", ("acme",), "Ann", "")
owner = interactive("IBMid-ANN", "acme", token=provider.token("IBMid-ANN", "acme").token)
answers = []
def create():
    try:
        credentials.create(ctx, owner, name="mine", source=Generated())
        answers.append("made")
    except ConflictError:
        answers.append("conflict")
threads = [threading.Thread(target=create) for _ in range(16)]
for thread in threads: thread.start()
for thread in threads: thread.join()
print(json.dumps(answers))
"""
_TICK = """
ticker.tick(ctx)
print(json.dumps([f"{each.run_id}.{each.dispatch_no}" for each in ctx.queue.enqueued]))
"""


_MANY = 8


def _at_once(processes: int, script: str, directory: Path) -> list[list[str]]:
    """What that many processes print that do the same at the same time."""
    started = [
        subprocess.Popen(
            [sys.executable, "-c", _BEGIN + script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for _ in range(processes)
    ]
    for number, process in enumerate(started):
        own = directory / str(number)
        own.mkdir()
        assert process.stdin is not None
        process.stdin.write(json.dumps({"directory": str(own)}) + "\n")
        process.stdin.flush()
    for process in started:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    answers = [process.communicate("go\n", timeout=120)[0] for process in _let_go(started)]
    assert [process.returncode for process in started] == [0] * processes
    return [json.loads(answer) for answer in answers]


def _let_go(processes: list[subprocess.Popen[str]]) -> list[subprocess.Popen[str]]:
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    return processes


def _count(ctx: Context, query: sa.Select[Any]) -> int:
    with ctx.store.read() as connection:
        return int(connection.execute(sa.select(sa.func.count()).select_from(query.subquery())).scalar_one())


@pytest.mark.promise("one-per-owner")
def test_of_64_creates_from_four_processes_one_wins(ctx: Context, tmp_path: Path) -> None:
    answers = Counter(answer for process in _at_once(4, _CREATE, tmp_path) for answer in process)
    assert answers == {"made": 1, "conflict": 63}
    assert _count(ctx, sa.select(t.task_credentials)) == 1
    assert _count(ctx, sa.select(t.keys).where(t.keys.c.state == "active")) == 1
    assert _count(ctx, sa.select(t.intents)) == 1


@pytest.mark.promise("only-what-the-user-started")
def test_two_keepers_start_each_due_run_once(ctx: Context, tmp_path: Path) -> None:
    number = 60
    with ctx.store.write() as connection:
        for index in range(number):
            owner = {"account_id": "acme", "iam_id": f"IBMid-{index}"}
            connection.execute(
                t.schedules.insert().values(
                    **owner,
                    id=f"schedule-{index}",
                    name="nightly",
                    task="plain",
                    parameters={},
                    cron="0 * * * *",
                    timezone="UTC",
                    misfire="run_once",
                    next_at=START - timedelta(seconds=index),
                    created_at=START,
                    created_by=owner["iam_id"],
                )
            )
            connection.execute(
                t.task_credentials.insert().values(
                    **owner,
                    id=f"credential-{index}",
                    name="mine",
                    scope={},
                    state="usable",
                    created_at=START,
                    created_by=owner["iam_id"],
                    updated_at=START,
                )
            )
    enqueued = [run for process in _at_once(2, _TICK, tmp_path) for run in process]
    assert len(enqueued) == len(set(enqueued)) == number
    assert _count(ctx, sa.select(t.runs).where(t.runs.c.state == "queued")) == number
    assert _count(ctx, sa.select(t.runs.c.schedule_id).distinct()) == number


@pytest.mark.promise("audited-or-refused")
def test_brokers_at_once_record_one_first_hand_out(url: str, tmp_path: Path) -> None:
    site = make_site(tmp_path)
    me = site.bearer()
    assert me.post("/v1/task_credentials", json={"name": "Key", "generate": True}).status_code == 201
    run_id = me.post("/v1/runs", json={"task": "report", "parameters": {}}).get_json()["id"]
    begun = site.executor().post(f"/v1/runs/{run_id}/attempts", json={"dispatch_no": 1}).get_json()
    brokers = [TokenBroker(site.ctx) for _ in range(_MANY)]  # as of that many processes
    together = threading.Barrier(_MANY)

    def ask(broker: TokenBroker) -> str:
        broker.refresh_changes()
        together.wait(30)
        issued = broker.issue(begun["stand_in_key"].encode())
        return str(json.loads(issued.body(site.clock.now().timestamp()))["access_token"])

    with ThreadPoolExecutor(_MANY) as pool:
        assert len(set(pool.map(ask, brokers))) == 1
    for broker in brokers:
        broker.close()
    assert _count(site.ctx, sa.select(t.audit_events).where(t.audit_events.c.action == "token:issue")) == 1
    with site.ctx.store.read() as connection:
        assert connection.execute(sa.select(t.attempt_tokens.c.uses)).scalar_one() == _MANY
    site.ctx.store.engine.dispose()
    assert site.ctx.store.engine.url.database in url
