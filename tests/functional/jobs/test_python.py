"""python tasks: a function of an installed package, in a process of its own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from taskcred.domain.runs import RunState
from tests.support.jobs import JobsHost

PACKAGE = """
import os, sys

def add(a, b=2):
    print("sum", a + b, flush=True)
    print("::progress 1/1 done")
    assert sys.stdin.read() == ""

def fail():
    raise LookupError("nothing there")

def leave():
    sys.exit(5)
"""
NUMBERS = {
    "type": "object",
    "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}},
    "required": ["a"],
}


@pytest.fixture(scope="module", params=["none", "bubblewrap"])
def host(
    make_host: Callable[..., JobsHost],
    tmp_path_factory: pytest.TempPathFactory,
    request: pytest.FixtureRequest,
) -> JobsHost:
    package: Path = tmp_path_factory.mktemp("package")
    (package / "arithmetic.py").write_text(PACKAGE)
    package.chmod(0o755)  # jobs in the sandbox may be another user
    path = {"environment": {"PYTHONPATH": str(package)}}
    host = make_host(
        {
            "add": {"kind": "python", "entry_point": "arithmetic:add", "parameters": NUMBERS, **path},
            "fail": {"kind": "python", "entry_point": "arithmetic:fail", **path},
            "leave": {"kind": "python", "entry_point": "arithmetic:leave", **path},
        },
        {"isolation": request.param, "readable": [str(package)]},
    )
    host.start_worker()
    return host


def test_the_function_is_called_with_the_parameters(host: JobsHost) -> None:
    run = host.wait(host.start("add", a=40))
    assert run.state is RunState.SUCCEEDED, host.output(run.id).text
    assert host.output(run.id).text == "sum 42\n"
    assert run.progress_text == "done"


def test_an_exception_fails_the_run_with_a_traceback(host: JobsHost) -> None:
    run = host.wait(host.start("fail"))
    assert (run.state, run.exit_code) == (RunState.FAILED, 1)
    assert host.output(run.id).text.endswith("LookupError: nothing there\n")


def test_an_exit_status_of_its_own_is_kept(host: JobsHost) -> None:
    assert host.wait(host.start("leave")).exit_code == 5
