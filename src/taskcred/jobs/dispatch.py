"""One dispatch of a run: begin an attempt, carry it out, tell how it ended."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, Final, TypeVar

import structlog

from taskcred.config import JobSettings
from taskcred.domain.runs import AttemptOutcome
from taskcred.domain.secret import Secret
from taskcred.domain.tasks import Task, TaskKind
from taskcred.errors import NotFoundError, UnavailableError
from taskcred.jobs import environment, isolation
from taskcred.jobs.kinds import command, http, python
from taskcred.jobs.launcher import Spec, descendants, remove_tree
from taskcred.jobs.process import Ended, JobProcess, end_strays, is_running
from taskcred.jobs.reporting import Reporter
from taskcred.jobs.web_client import Begun, WebClient
from taskcred.services import attempts
from taskcred.services.context import Context

_log = structlog.get_logger("taskcred.jobs")

_LOOK: Final = 0.2  # seconds between two looks at whether the job must end
_FIRST_WAIT: Final = 0.2  # seconds; doubles
_LONGEST_WAIT: Final = 5.0

T = TypeVar("T")


@dataclass(slots=True)
class Live:
    """A run this process is carrying out. The worker's other threads set the flags."""

    run_id: str
    dispatch_no: int
    attempt_id: str = ""
    cancelled: threading.Event = field(default_factory=threading.Event)  # its owner asked for its end
    over: threading.Event = field(default_factory=threading.Event)  # ended elsewhere: the job must go


class Stopping(Exception):  # noqa: N818 - not an error: how a dispatch learns that the worker stops
    """The worker stops, and this dispatch has begun nothing yet."""


@dataclass(frozen=True, slots=True)
class Host:
    """What every dispatch of this worker shares."""

    ctx: Context
    web: WebClient
    executor: str  # "worker:<name>"
    url: str
    jobs: JobSettings
    isolation: isolation.Isolation
    directory: Path  # of the jobs' own directories
    ca_file: Path | None
    hidden: tuple[Path, ...]
    draining: threading.Event  # begin nothing more
    ending: threading.Event  # end what runs, at once


class Dispatch:
    """Carries out one dispatch. `run` returns when nothing of it is left."""

    def __init__(self, host: Host, live: Live) -> None:
        self._host = host
        self._live = live

    def run(self) -> None:
        """Raises Stopping where the dispatch must be put back in line."""
        if not self._clear_what_was_left():
            return
        begun = self._begin()
        if begun is None:
            return
        self._live.attempt_id = begun.attempt_id
        try:
            self._carry_out(begun)
        except Exception:  # noqa: BLE001 - whatever it is, the attempt must be ended
            # A bug of ours, or a host out of processes. The job is gone; its run must not look alive.
            _log.exception("attempt failed", run_id=begun.run_id, attempt_id=begun.attempt_id)
            self._finish(
                AttemptOutcome.FAILED, "An error inside taskcred; the worker's log tells more.", None
            )

    def _carry_out(self, begun: Begun) -> None:
        task = self._host.ctx.tasks.get(begun.task)
        if task is None:
            self._finish(AttemptOutcome.FAILED, f"The task {begun.task} has left the catalogue.", None)
        elif task.kind is TaskKind.EXTERNAL:
            self._finish(AttemptOutcome.FAILED, f"The task {begun.task} is carried out elsewhere now.", None)
        elif task.kind is TaskKind.HTTP:
            self._run_http(task, begun)
        else:
            self._run_job(task, begun)

    def _clear_what_was_left(self) -> bool:
        """A crash may have left an attempt of this run behind. When its job is gone it is lost, and the run
        goes on as its task's rule says. False where another worker has the run."""
        left = insist(lambda: attempts.live_of_run(self._host.ctx, self._live.run_id))
        if left is None:
            return True
        if left.executor != self._host.executor:
            return False
        if left.launcher is None:
            return True  # no process was begun: beginning again gives the same attempt a new key
        self._wait_until_gone(left.launcher)
        end_strays(self._live.run_id)
        self._remove_directory(left.attempt_id)
        _log.warning("attempt lost", run_id=self._live.run_id, attempt_id=left.attempt_id)
        insist(lambda: attempts.lost(self._host.ctx, left.attempt_id))
        return True

    def _wait_until_gone(self, launcher: dict[str, Any]) -> None:
        """The launcher saw its pipe close and ends the job; one that cannot is ended from here."""
        patience = time.monotonic() + self._host.jobs.kill_grace.total_seconds() + 10
        while is_running(launcher):
            if time.monotonic() > patience:
                for pid in (*descendants(int(launcher["pid"])), int(launcher["pid"])):
                    with contextlib.suppress(OSError):
                        os.kill(pid, signal.SIGKILL)
            time.sleep(0.05)

    def _begin(self) -> Begun | None:
        """Ask web until it answers: an outage queues runs, it does not fail them."""
        wait = _FIRST_WAIT
        while True:
            if self._host.draining.is_set():
                raise Stopping
            try:
                answer = self._host.web.begin(self._live.run_id, self._live.dispatch_no)
            except NotFoundError:
                return None
            except UnavailableError as error:
                _log.warning("attempt not begun yet", run_id=self._live.run_id, why=error.message)
                self._host.draining.wait(wait)
                wait = min(wait * 2, _LONGEST_WAIT)
                continue
            if isinstance(answer, Begun):
                return answer
            _log.info("dispatch without effect", run_id=self._live.run_id, why=answer)
            return None

    # -- command and python ---------------------------------------------------------------------------

    def _run_job(self, task: Task, begun: Begun) -> None:
        chosen = self._host.isolation
        if not chosen.runs_jobs:
            self._finish(AttemptOutcome.FAILED, chosen.words, None)
            return
        directory = self._make_directory(begun.attempt_id)
        process = JobProcess()
        try:
            # Recorded before the job starts: whoever finds this attempt after a crash knows what to wait for.
            started = insist(
                lambda: attempts.set_launcher(self._host.ctx, begun.attempt_id, process.launcher, chosen.kind)
            )
            if not started:
                return
            process.begin(self._spec(task, begun, directory))
            self._watch(task, begun, process)
        finally:
            process.close()
            self._remove_directory(begun.attempt_id)

    def _spec(self, task: Task, begun: Begun, directory: Path) -> Spec:
        chosen = self._host.isolation
        job = (python if task.kind is TaskKind.PYTHON else command).build(task, begun.parameters)
        wrapped = chosen.kind == "bubblewrap"
        argv = list(job.argv)
        if wrapped:
            argv = isolation.wrap(
                argv,
                directory,
                user=chosen.user,
                readable=self._host.jobs.readable,
                hidden=self._host.hidden,
                own=(self._host.ca_file,) if self._host.ca_file else (),
                start_in=Path(job.start_in) if job.start_in else None,
            )
        return Spec(
            argv=argv,
            environment=environment.job_environment(
                task,
                begun.run_id,
                begun.standin_key,
                url=self._host.url,
                home=isolation.JOB_DIRECTORY if wrapped else str(directory),
                ca_file=self._host.ca_file,
            ),
            directory=str(directory) if wrapped or job.start_in is None else job.start_in,
            stdin=job.stdin,
            user=chosen.user,
            wrapped=wrapped,
            grace=self._host.jobs.kill_grace.total_seconds(),
            remove=str(directory),
        )

    def _watch(self, task: Task, begun: Begun, process: JobProcess) -> None:
        reporter = Reporter(self._host.ctx, begun.attempt_id, (begun.standin_key,))
        deadline = time.monotonic() + task.timeout.total_seconds()
        ended_by: AttemptOutcome | None = None
        while (data := process.read(_LOOK)) is not None:
            reporter.feed(data)
            if ended_by is None:
                ended_by = self._why_end(time.monotonic() >= deadline)
                if ended_by is not None:
                    process.end()
        ended = process.close()
        reporter.close()
        if ended == Ended():
            end_strays(begun.run_id)
        if ended_by is AttemptOutcome.LOST or (ended_by is None and ended == Ended()):
            insist(lambda: attempts.lost(self._host.ctx, begun.attempt_id))
        else:
            self._finish(*_outcome(ended_by, ended, task))

    def _why_end(self, late: bool) -> AttemptOutcome | None:
        if self._live.cancelled.is_set():
            return AttemptOutcome.CANCELLED
        if self._live.over.is_set() or self._host.ending.is_set():
            return AttemptOutcome.LOST
        return AttemptOutcome.TIMED_OUT if late else None

    # -- http ---------------------------------------------------------------------------------------------

    def _run_http(self, task: Task, begun: Begun) -> None:
        deadline = time.monotonic() + task.timeout.total_seconds()
        tokens: list[Secret] = []

        def bearer() -> Secret:
            tokens.append(self._host.web.access_token(begun.standin_key))
            return tokens[0]

        answer = http.perform(
            task,
            begun.parameters,
            bearer,
            self._host.jobs.http_allow,
            is_cancelled=lambda: self._why_end(time.monotonic() >= deadline) is not None,
        )
        if answer is None:
            outcome = self._why_end(True)
            if outcome is AttemptOutcome.LOST:
                insist(lambda: attempts.lost(self._host.ctx, begun.attempt_id))
            else:
                self._finish(*_outcome(outcome, Ended(), task))
            return
        reporter = Reporter(self._host.ctx, begun.attempt_id, (begun.standin_key, *tokens))
        reporter.feed(answer.output)
        reporter.close()
        self._finish(answer.outcome, answer.reason, None)

    # -- plumbing -----------------------------------------------------------------------------------------

    def _make_directory(self, attempt_id: str) -> Path:
        directory = self._host.directory / attempt_id
        self._remove_directory(attempt_id)  # of a beginning that a crash cut short, before any job
        directory.mkdir(mode=0o700)
        if self._host.isolation.user is not None:
            os.chown(directory, *self._host.isolation.user)
        return directory

    def _remove_directory(self, attempt_id: str) -> None:
        """The launcher removes it; this is for one that was killed."""
        remove_tree(str(self._host.directory / attempt_id))

    def _finish(self, outcome: AttemptOutcome, reason: str, exit_code: int | None) -> None:
        _log.info(
            "attempt ended", run_id=self._live.run_id, attempt_id=self._live.attempt_id, outcome=outcome
        )
        insist(lambda: attempts.finish(self._host.ctx, self._live.attempt_id, outcome, reason, exit_code))


def insist(act: Callable[[], T]) -> T:
    """Repeat `act` while the records are away: what became of a run must not be forgotten."""
    wait = _FIRST_WAIT
    while True:
        try:
            return act()
        except UnavailableError as error:
            _log.warning("records away", why=error.message)
            time.sleep(wait)
            wait = min(wait * 2, _LONGEST_WAIT)


def _outcome(
    ended_by: AttemptOutcome | None, ended: Ended, task: Task
) -> tuple[AttemptOutcome, str, int | None]:
    """Outcome, a sentence for the owner, exit status."""
    if ended_by is AttemptOutcome.CANCELLED:
        return ended_by, "Cancelled by its owner.", ended.exit_code
    if ended_by is AttemptOutcome.TIMED_OUT:
        return ended_by, f"It took longer than {_words(task.timeout)} and was ended.", ended.exit_code
    if ended.error is not None:
        return AttemptOutcome.FAILED, f"The job could not be started: {ended.error}.", None
    if ended.signal is not None:
        named = {each.value: each.name for each in signal.Signals}  # real-time signals have no name
        name = named.get(ended.signal, str(ended.signal))
        return AttemptOutcome.FAILED, f"The job was ended by the signal {name}.", 128 + ended.signal
    if ended.exit_code == 0:
        return AttemptOutcome.SUCCEEDED, "", 0
    return AttemptOutcome.FAILED, f"The job ended with exit status {ended.exit_code}.", ended.exit_code


def _words(duration: timedelta) -> str:
    seconds = duration.total_seconds()
    for unit, size in (("h", 3600), ("min", 60)):
        if seconds >= size and seconds % size == 0:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:g} s"
