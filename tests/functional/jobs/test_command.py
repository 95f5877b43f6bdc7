"""command tasks, from the queue to the end of the run, with a real worker and real processes."""

from __future__ import annotations

from collections.abc import Callable

from taskcred.domain.runs import RunState
from tests.support.jobs import JobsHost

TEXT = {"type": "object", "properties": {"text": {"type": "string"}}, "required": ["text"]}


def test_a_command_runs_and_its_output_and_exit_status_are_kept(make_host: Callable[..., JobsHost]) -> None:
    host = make_host({"echo": {"kind": "command", "argv": ["echo", "{text}"], "parameters": TEXT}})
    host.start_worker()
    run = host.wait(host.start("echo", text="hello; $HOME"))
    assert run.state is RunState.SUCCEEDED, host.log()
    assert run.exit_code == 0
    assert run.isolation == "none"
    assert host.output(run.id).text == "hello; $HOME\n"
