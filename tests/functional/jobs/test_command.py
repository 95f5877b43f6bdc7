"""command tasks, from the queue to the end of the run, with a real worker and real processes."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from taskcred.domain.runs import AttemptOutcome, RunState
from taskcred.jobs.launcher import process_started
from tests.support.jobs import JobsHost

TEXT = {"type": "object", "properties": {"text": {"type": "string"}}, "required": ["text"]}


def sh(script: str, **more: Any) -> dict[str, Any]:
    return {"kind": "command", "argv": ["sh", "-c", script], **more}


# More directories inside one another than a function that calls itself for each could leave again.
DEEP = """
import os
for _ in range(3000):
    os.mkdir("d")
    os.chdir("d")
"""
# A job that ends its own launcher, and of which parts go on printing into a pipe too large to be read dry.
ORPHAN = """
import fcntl, os, signal, time
fcntl.fcntl(1, fcntl.F_SETPIPE_SZ, 1 << 20)
launcher = os.getppid()
for _ in range(4):
    if os.fork() == 0:
        os.setsid()
        while True:
            os.write(1, b"orphan\\n" * 10_000)
time.sleep(0.5)
os.kill(launcher, signal.SIGKILL)
"""
# A job that ignores being asked to end, with a child in a session of its own that does so too.
STUBBORN = "trap '' TERM; echo $$; setsid sh -c 'trap \"\" TERM; echo $$; sleep 60' & sleep 60"


@pytest.fixture(scope="module")
def host(make_host: Callable[..., JobsHost]) -> JobsHost:
    host = make_host(
        {
            "echo": {"kind": "command", "argv": ["echo", "{text}"], "parameters": TEXT},
            "fail": sh("echo oops >&2; exit 7"),
            "killed": sh("kill -SEGV $$"),
            "real_time": sh("kill -40 $$"),
            "deep": {"kind": "command", "argv": [sys.executable, "-c", DEEP]},
            "orphan": {
                "kind": "command",
                "argv": [sys.executable, "-c", ORPHAN],
                "retry": {"on_lost": False},
            },
            "missing": {"kind": "command", "argv": ["no-such-program-here"]},
            "environment": sh("env; ls -A; pwd; umask; ulimit -c; cat"),
            "progress": sh("echo begin; echo '::progress 40/100 almost'; sleep 60"),
            "stubborn": sh(STUBBORN),
            "slow": sh("echo started; sleep 60", timeout=1),
            "flood": sh("yes 0123456789; true", output_limit=5000, timeout=2),
            "key": sh('echo "key: $IBMCLOUD_API_KEY"'),
            "retried": sh("exit 1", retry={"max_attempts": 2, "delay": 0.1}),
            "leaves": sh("setsid sleep 60 & echo $!"),
            "writes": sh("mkdir a && echo x > a/b && pwd"),
        }
    )
    host.start_worker(TASKCRED_TEST_LEAK="leaked")
    return host


def is_gone(pid: int) -> bool:
    return process_started(pid) is None


def test_output_and_exit_status_are_kept_and_no_shell_sees_a_parameter(host: JobsHost) -> None:
    run = host.wait(host.start("echo", text="hello; $HOME `id`"))
    assert run.state is RunState.SUCCEEDED, host.log()
    assert (run.exit_code, run.isolation) == (0, "none")
    output = host.output(run.id)
    assert (output.text, output.truncated, output.finished) == ("hello; $HOME `id`\n", False, True)


def test_a_failure_says_how_it_failed(host: JobsHost) -> None:
    run = host.wait(host.start("fail"))
    assert (run.state, run.exit_code) == (RunState.FAILED, 7)
    assert run.reason == "The job ended with exit status 7."
    assert host.output(run.id).text == "oops\n"


def test_a_signal_is_named(host: JobsHost) -> None:
    run = host.wait(host.start("killed"))
    assert (run.exit_code, run.reason) == (139, "The job was ended by the signal SIGSEGV.")


def test_a_signal_without_a_name_has_its_number(host: JobsHost) -> None:
    run = host.wait(host.start("real_time"))
    assert (run.exit_code, run.reason) == (168, "The job was ended by the signal 40.")


def test_the_deepest_directory_is_removed_with_the_job(host: JobsHost) -> None:
    run = host.wait(host.start("deep"))
    assert run.state is RunState.SUCCEEDED, run.reason
    attempt = host.attempts(run.id)[0].id
    host.until(lambda: not (host.data_dir / "jobs" / attempt).exists())


def test_what_goes_on_printing_without_its_launcher_is_ended(host: JobsHost) -> None:
    run = host.wait(host.start("orphan"))
    assert run.state is RunState.FAILED
    assert host.attempts(run.id)[0].outcome is AttemptOutcome.LOST


def test_a_program_that_is_not_there_fails_the_run_with_its_name(host: JobsHost) -> None:
    run = host.wait(host.start("missing"))
    assert run.state is RunState.FAILED
    assert "no-such-program-here" in run.reason


def test_a_text_no_program_can_be_given_fails_the_run(host: JobsHost) -> None:
    run = host.wait(host.start("echo", text="a\0b"))
    assert run.state is RunState.FAILED
    assert "null byte" in run.reason


@pytest.mark.promise("key-stays-home")
def test_a_job_inherits_nothing_from_the_worker(host: JobsHost) -> None:
    run = host.wait(host.start("environment"))
    text = host.output(run.id).text
    assert "leaked" not in text
    names = {line.partition("=")[0] for line in text.splitlines() if "=" in line}
    allowed = {"PATH", "HOME", "LANG", "IBMCLOUD_API_KEY", "TASKCRED_URL", "TASKCRED_RUN_ID", "PWD"}
    assert names - allowed == set()
    # An empty directory of its own, files nobody else can read, no core files, no input.
    home = str(host.data_dir / "jobs" / host.attempts(run.id)[0].id)
    assert text.splitlines()[-3:] == [home, "0077", "0"]


@pytest.mark.promise("key-stays-home")
def test_a_printed_stand_in_key_is_masked(host: JobsHost) -> None:
    run = host.wait(host.start("key"))
    assert host.output(run.id).text == "key: ********\n"


def test_output_and_progress_are_shown_while_the_job_runs(host: JobsHost) -> None:
    run_id = host.start("progress")
    run = host.until(lambda: (run := host.get(run_id)).progress_done and run)
    assert (run.progress_done, run.progress_total, run.progress_text) == (40, 100, "almost")
    assert run.state is RunState.RUNNING
    assert host.output(run_id).text == "begin\n"
    host.cancel(run_id)
    assert host.wait(run_id).state is RunState.CANCELLED


def test_cancelling_ends_every_process_of_the_job(host: JobsHost) -> None:
    run_id = host.start("stubborn")
    printed = host.until(lambda: len(found := host.output(run_id).text.split()) == 2 and found)
    pids = [int(pid) for pid in printed]
    host.cancel(run_id)
    run = host.wait(run_id)
    assert run.state is RunState.CANCELLED
    assert all(is_gone(pid) for pid in pids)
    assert host.attempts(run_id)[0].outcome is AttemptOutcome.CANCELLED


def test_a_job_that_takes_too_long_is_ended(host: JobsHost) -> None:
    run = host.wait(host.start("slow"))
    assert (run.state, run.reason) == (RunState.FAILED, "It took longer than 1 s and was ended.")
    assert host.output(run.id).text == "started\n"


def test_what_a_job_leaves_behind_ends_with_it(host: JobsHost) -> None:
    run = host.wait(host.start("leaves"))
    assert run.state is RunState.SUCCEEDED
    assert is_gone(int(host.output(run.id).text))


def test_a_flood_of_output_is_cut_and_hurts_nobody(host: JobsHost) -> None:
    run_id = host.start("flood")
    other = host.wait(host.start("echo", text="meanwhile"))
    assert other.state is RunState.SUCCEEDED
    host.wait(run_id)
    output = host.output(run_id)
    assert output.truncated
    assert len(output.text) == 5000


def test_a_failed_attempt_is_repeated_as_its_task_says(host: JobsHost) -> None:
    run = host.wait(host.start("retried"))
    assert [attempt.outcome for attempt in host.attempts(run.id)] == [AttemptOutcome.FAILED] * 2
    assert run.state is RunState.FAILED


def test_the_jobs_directory_goes_with_the_job(host: JobsHost) -> None:
    run = host.wait(host.start("writes"))
    assert not Path(host.output(run.id).text.strip()).exists()
    assert os.listdir(host.data_dir / "jobs") == []  # noqa: PTH208 - plain names are what is wanted
