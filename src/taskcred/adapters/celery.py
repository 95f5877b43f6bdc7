"""Celery: a task whose job acts for its owner with a stand-in key.

    @app.task(base=TaskcredTask, taskcred_task="report", bind=True, acks_late=True)
    def report(self, day): ...

    report.apply_async(("2026-11-23",), grant_id=grant_id)

The message carries the id of a run and nothing else of ours: no key, no token. The worker begins an attempt of
that run around the job and ends it as Celery ends the task. Whatever takes a message up again (a retry, a
redelivery after a worker died) begins a further attempt of the same run, and the key of the one before is dead.
"""

from __future__ import annotations

import functools
import inspect
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any, ClassVar, Final, NamedTuple, NoReturn

from celery import Task, states
from celery.exceptions import (
    Ignore,
    Reject,
    Retry,
    SoftTimeLimitExceeded,
    TimeLimitExceeded,
    WorkerLostError,
)
from celery.signals import task_failure, task_postrun, task_revoked
from celery.utils import uuid
from celery.utils.log import get_task_logger

from taskcred.client import Attempt, Client, TaskSession
from taskcred.client.attempt import Outcome
from taskcred.client.errors import WaitingForCredential
from taskcred.errors import ConflictError, TaskcredError, UnavailableError

RUN_HEADER: Final = "taskcred_run"  # of the message: the id of its run

_log: Final = get_task_logger(__name__)
_LOOK: Final = 1.0  # seconds between two looks at whether the job's end was asked for


class TaskcredTask(Task):
    """The base of tasks that act for an owner. Client credentials come from the environment, as `Client`
    reads them; a subclass may answer `taskcred` otherwise."""

    abstract = True
    taskcred_task: ClassVar[str] = ""  # its name in the catalogue of tasks
    taskcred_addresses: ClassVar[
        Sequence[str]
    ] = ()  # networks of the workers; none: the key works from anywhere
    # Seconds until a run that is parked, or whose server is away, is looked at again.
    taskcred_look_again: ClassVar[float] = 30.0

    # What the producer uses.

    def apply_async(
        self,
        args: Sequence[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        task_id: str | None = None,
        *,
        grant_id: str | None = None,
        run_id: str | None = None,
        **options: Any,
    ) -> Any:
        """Send the task with its run: one that is started under the grant `grant_id`, or `run_id`, which the
        caller started (with an owner's `subject_token`: a token is nothing to put into options, for a canvas
        sends them through the broker). The result has the started run as `.run`."""
        headers = dict(options.pop("headers", None) or {})
        task_id = task_id or uuid()
        started = None
        is_ours = run_id is None  # the run: what becomes of it is nobody else's to care for
        if grant_id is not None:
            started = self.taskcred.start_run(
                self.taskcred_task,
                self.taskcred_parameters(args or (), kwargs or {}),
                grant_id=grant_id,
                reference=task_id,
                idempotency_key=task_id,
            )
            run_id = started.id
        if run_id is not None:
            headers[RUN_HEADER] = run_id
        elif RUN_HEADER in headers:
            self._leave_for(headers[RUN_HEADER])
        else:
            raise TypeError(f"{self.name} acts for an owner: say whose work it is, by grant_id or run_id")
        try:
            result = super().apply_async(args, kwargs, task_id, headers=headers, **options)
        except Exception:
            if is_ours:  # nobody will carry it out: its owner should not see it wait for a week
                with suppress(TaskcredError):
                    self.taskcred.cancel_run(headers[RUN_HEADER])
            raise
        if started is not None:
            result.run = started
        return result

    def taskcred_parameters(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """The parameters of the run, which its owner sees: the arguments by name. Override it to show less."""
        return dict(inspect.signature(self.run).bind(*args, **kwargs).arguments)

    # What the job uses.

    @property
    def taskcred(self) -> Client:
        """The client; one for each process."""
        return _client()

    @property
    def attempt(self) -> Attempt:
        """The attempt of the job that runs here: progress, output, variables for a child process."""
        found: Attempt | None = getattr(self.request, "taskcred_attempt", None)
        if found is None:
            raise RuntimeError(f"{self.name} was called as a function: there is an attempt in a worker only")
        return found

    @property
    def session(self) -> TaskSession:
        """Access tokens of the job's owner, always fresh."""
        return self.attempt.session

    # What the worker does.

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """The job inside an attempt of its run; called as a function, the job alone."""
        if self.request.called_directly:
            return super().__call__(*args, **kwargs)
        attempt = self.request.taskcred_attempt = self._begin(_run_id(self.request))
        if not self.request.is_eager:
            threading.Thread(target=self._watch, args=(attempt, self.request.id), daemon=True).start()
        return self.run(*args, **kwargs)

    def _begin(self, run_id: str | None) -> Attempt:
        if run_id is None:
            raise TypeError(f"{self.name} acts for an owner, and this message names no run of theirs")
        try:
            return self.taskcred.begin_attempt(run_id, self.taskcred_addresses)
        except (WaitingForCredential, UnavailableError) as error:
            self._look_again(error)
        except ConflictError as error:
            if error.error_code == "cancelled":
                _log.warning("Dropped: %s", error)
                # Who waits for the result should hear that there is none.
                keep = not self.request.ignore_result
                self.backend.mark_as_revoked(self.request.id, str(error), self.request, keep)
                raise Ignore from error
            if error.error_code == "finished":
                _log.warning("Dropped: %s", error)
                raise Ignore from error
            raise

    def _look_again(self, error: TaskcredError) -> NoReturn:
        """Send the message once more, for later; it does not count as one of the task's retries."""
        if self.request.is_eager:
            raise error
        _log.info("Looking again in %g s: %s %s", self.taskcred_look_again, error, error.action_url or "")
        self.signature_from_request(
            countdown=self.taskcred_look_again, retries=self.request.retries
        ).apply_async()
        raise Retry(exc=error, when=self.taskcred_look_again)

    def _leave_for(self, run_id: str) -> None:
        """The task is about to be sent again for the same run: this attempt ends first, so that it does not
        meet the next one."""
        attempt: Attempt | None = getattr(self.request, "taskcred_attempt", None)
        if attempt is not None and attempt.run.id == run_id:
            _end(attempt, _Ending("failed", "The job asked to be tried again.", again=True))

    def _watch(self, attempt: Attempt, task_id: str) -> None:
        """Have the job terminated once its owner, or somebody in its service, asked for its end."""
        while not attempt.ended:
            if attempt.cancel_requested:
                self.app.control.revoke(task_id, terminate=True)
                return
            time.sleep(_LOOK)


class _Ending(NamedTuple):
    """How an attempt ends. `again`: the message is in line once more."""

    outcome: Outcome
    reason: str = ""
    again: bool = False


@functools.cache
def _client() -> Client:
    return Client()


def _run_id(request: Any) -> str | None:
    return (request.headers or {}).get(RUN_HEADER)


def _ending(state: str | None, result: Any) -> _Ending:
    """What Celery made of a task, in our words. Of exceptions the type alone: their text may hold anything."""
    what = type(result).__name__
    if state == states.SUCCESS:
        return _Ending("succeeded")
    if state == states.FAILURE:
        outcome: Outcome = "timed_out" if isinstance(result, SoftTimeLimitExceeded) else "failed"
        return _Ending(outcome, f"{what} in the job.")
    if state == states.REJECTED and isinstance(result, Reject):
        return _Ending("failed", "The job rejected its message.", again=bool(result.requeue))
    if state == states.IGNORED:
        return _Ending("cancelled", "The job had itself ignored.")
    # A retry; or none: the process is being ended, and where that was for good its parent says so (below).
    return _Ending(
        "failed", "The job was interrupted." if state is None else f"{what} in the job.", again=True
    )


def _end(attempt: Attempt, ending: _Ending) -> None:
    """End it; what the job has done stays done where the server cannot be told."""
    try:
        attempt.end(ending.outcome, ending.reason, again=ending.again)
    except ConflictError as error:
        _log.warning("The attempt had been taken away: %s", error)
    except TaskcredError as error:
        _log.error("The server was not told that the job has ended (%s): %s", ending.outcome, error)


@task_postrun.connect  # type: ignore[untyped-decorator]  # Celery ships no types
def _on_postrun(sender: Any = None, retval: Any = None, state: str | None = None, **_: Any) -> None:
    """After the result is kept: a worker that dies before has the job done again, none loses its result."""
    attempt: Attempt | None = getattr(sender.request, "taskcred_attempt", None)
    if attempt is not None and not attempt.ended:
        _end(attempt, _ending(state, retval))


# What follows runs in the worker's main process, which sees jobs that cannot speak for themselves any more.


@functools.cache
def _aside() -> ThreadPoolExecutor:
    """Threads for requests of the main process, whose loop must not wait for a server."""
    return ThreadPoolExecutor(max_workers=2, thread_name_prefix="taskcred")


@task_revoked.connect  # type: ignore[untyped-decorator]  # as above
def _on_revoked(sender: Any = None, request: Any = None, terminated: bool = False, **_: Any) -> None:
    run_id = _run_id(request)
    if run_id is None or not isinstance(sender, TaskcredTask):
        return
    if terminated:
        _aside().submit(_take_over, sender.taskcred, run_id, _Ending("cancelled", "The job was revoked."))
    else:
        _aside().submit(_cancel, sender.taskcred, run_id)


@task_failure.connect  # type: ignore[untyped-decorator]  # as above
def _on_failure(sender: Any = None, exception: Any = None, **_: Any) -> None:
    if not isinstance(sender, TaskcredTask):
        return
    run_id = _run_id(sender.request)
    if run_id is None:
        return
    if isinstance(exception, TimeLimitExceeded):
        ending = _Ending("timed_out", "The job took longer than its time limit.")
    elif isinstance(exception, WorkerLostError):
        ending = _Ending("failed", "The worker process carrying it out died.")
    else:
        return  # the job's own, told by the process that ran it
    _aside().submit(_take_over, sender.taskcred, run_id, ending)


def _take_over(client: Client, run_id: str, ending: _Ending) -> None:
    """End the run of a job that was killed. Only the killed process knew its attempt: a further one is
    begun, at which the killed one's key is dead, and ended."""
    try:
        _end(client.begin_attempt(run_id), ending)
    except WaitingForCredential:
        _cancel(client, run_id)
    except ConflictError:
        pass  # it has ended already
    except TaskcredError as error:
        _log.error("The server was not told that a job was killed: %s", error)


def _cancel(client: Client, run_id: str) -> None:
    try:
        client.cancel_run(run_id)
    except ConflictError:
        pass  # it has ended already
    except TaskcredError as error:
        _log.error("The server was not told that a task was revoked: %s", error)
