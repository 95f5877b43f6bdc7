"""Jobs under each isolation do their work, end when asked, and leave nothing behind."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from taskcred.domain.runs import RunState
from tests.support.jobs import JobsHost


def sh(script: str, **more: Any) -> dict[str, Any]:
    return {"kind": "command", "argv": ["sh", "-c", script], **more}


TASKS = {
    "works": sh("echo work >$HOME/file; cat file; id -u; umask"),
    "polite": sh("trap 'echo bye; exit 0' TERM; echo ready; while true; do sleep 0.1; done"),
    "locked": sh("mkdir a; touch a/b; chmod 000 a; ln -s /etc b; true"),
}
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may run jobs as another user")
needs_bwrap = pytest.mark.skipif(shutil.which("bwrap") is None, reason="bubblewrap is not installed")


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(("bubblewrap", None), id="bubblewrap", marks=needs_bwrap),
        pytest.param(("user", "nobody"), id="user", marks=needs_root),
    ],
)
def host(make_host: Callable[..., JobsHost], request: pytest.FixtureRequest) -> JobsHost:
    kind, user = request.param
    host = make_host(TASKS, {"isolation": kind, "user": user, "kill_grace": "10s"})
    host.start_worker()
    return host


def jobs_left(host: JobsHost) -> list[str]:
    places = [host.data_dir / "jobs", *Path("/tmp").glob("taskcred-jobs-*")]  # noqa: S108 - where they are made
    return [str(path) for place in places if place.exists() for path in place.iterdir()]


def test_a_job_works_in_a_directory_of_its_own(host: JobsHost) -> None:
    run = host.wait(host.start("works"))
    assert run.state is RunState.SUCCEEDED, host.output(run.id).text
    work, user, umask = host.output(run.id).text.split()
    assert (work, umask) == ("work", "0077")
    assert int(user) != 0
    assert run.isolation in {"bubblewrap", "user"}


def test_a_job_is_asked_before_it_is_ended(host: JobsHost) -> None:
    run_id = host.start("polite")
    host.until(lambda: host.output(run_id).text == "ready\n")
    host.cancel(run_id)
    assert host.wait(run_id, timeout=8).state is RunState.CANCELLED
    assert host.output(run_id).text.endswith("bye\n")


def test_nothing_is_left_of_a_directory_a_job_made_hard_to_remove(host: JobsHost) -> None:
    host.wait(host.start("locked"))
    host.until(lambda: not jobs_left(host))
    assert Path("/etc").exists()


def test_where_jobs_are_refused_the_run_says_why_and_nothing_was_started(
    make_host: Callable[..., JobsHost],
) -> None:
    host = make_host({"works": TASKS["works"]}, {"isolation": "bubblewrap"})
    empty = host.data_dir / "no-programs"
    empty.mkdir()
    host.start_worker(PATH=str(empty))
    run = host.wait(host.start("works"))
    assert run.state is RunState.FAILED
    assert run.reason.startswith("Command and python tasks are refused: bubblewrap does not work here")
    assert host.output(run.id).text == ""
