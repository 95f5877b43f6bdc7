"""The worker: takes dispatches from the engine and carries them out. It has no way to open the vault.

Stopping has two stages. The first SIGTERM drains: nothing more is taken, and the process exits when its
jobs have ended. A second SIGTERM, a SIGINT, or the end of the supervisor ends the jobs at once; their runs
are lost attempts, tried again by their tasks' rules. SIGUSR1 retires: work goes on, and the process exits
at the first moment without a job, to be replaced by a newer one.
"""

from __future__ import annotations

import fcntl
import hashlib
import itertools
import os
import signal
import stat
import tempfile
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Final

import structlog

from taskcred.authorities import write_ca_file
from taskcred.config import JobSettings
from taskcred.data_dir import DataDir
from taskcred.domain.secret import Secret
from taskcred.errors import ConfigurationError, UnavailableError
from taskcred.jobs import isolation
from taskcred.jobs.dispatch import Dispatch, Host, Live, Stopping, insist
from taskcred.jobs.engine import Engine
from taskcred.jobs.launcher import remove_tree
from taskcred.jobs.queue import DbosQueue
from taskcred.jobs.web_client import WebClient
from taskcred.services import attempts
from taskcred.services.context import Context

_log = structlog.get_logger("taskcred.jobs")

_PULSE: Final = 0.5  # seconds between two looks at what was cancelled
_BEAT: Final = 10  # pulses between two heartbeats
_FORGET: Final = 7200  # pulses between two sweeps of the engine's rows
_KEEP: Final = timedelta(days=1)  # the engine's rows of ended dispatches
_MOMENT: Final = 0.25  # seconds between two looks at whether it is time to go
_SIGNALS: Final = frozenset({signal.SIGTERM, signal.SIGINT, signal.SIGUSR1})
_SOON: Final = timedelta(seconds=1)  # until the dispatch before is out of the way
_LOOK_AGAIN: Final = timedelta(seconds=30)  # at a dispatch that failed for a reason nobody foresaw


@dataclass(frozen=True, slots=True)
class WorkerSettings:
    """What a worker needs besides the context.

    `url` is where it and its jobs reach web, without a trailing slash; `ca_file` the certificate authority
    of that URL where it is not a public one. `hidden` are paths no job may see, whatever else it may:
    data directory, revocation log, master key, files with passwords.
    """

    name: str
    credential: Secret  # "worker id:secret"
    url: str
    ca_file: Path | None
    data_dir: Path
    hidden: tuple[Path, ...]
    jobs: JobSettings


class Worker:
    """One worker process. A data directory has one at a time: it waits for the lock of the one before."""

    def __init__(self, settings: WorkerSettings, ctx: Context, queue: DbosQueue) -> None:
        self._settings = settings
        self._ctx = ctx
        self._queue = queue
        self._draining = threading.Event()
        self._ending = threading.Event()
        self._retiring = False
        self._live: dict[str, Live] = {}
        self._lock = threading.Lock()

    def end_now(self) -> None:
        """End the jobs and return from `run`. For the end of the supervisor; safe from any thread."""
        self._ending.set()
        self._draining.set()

    def run(self, on_ready: Callable[[], None] = lambda: None) -> None:
        """Work until told to stop; must run in the main thread, whose signals it takes.

        Raises ConfigurationError where jobs cannot be run as configured at all.
        """
        # Waited for, not handled: a handler that sets an event can find the main thread inside that event.
        signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        settings = self._settings
        held = self._take_lock(DataDir(settings.data_dir).worker_lock)
        if held is None:
            return
        self._host = self._prepare()
        engine = Engine(
            self._ctx.store.engine,
            self._execute,
            concurrency=settings.jobs.concurrency,
            per_owner=settings.jobs.per_owner,
        )
        engine.start()
        threading.Thread(target=self._pulse, name="pulse", daemon=True).start()
        _log.info("worker ready", worker=settings.name)
        on_ready()
        while not self._draining.is_set():
            self._listen()
            if self._retiring and not self._live:
                self._draining.set()
        _log.info("worker drains", jobs=len(self._live))
        engine.stop_taking()
        while self._live:
            self._listen()
        engine.stop()
        self._host.web.close()
        if self._host.isolation.kind == "user":
            remove_tree(str(self._host.directory))  # nobody tidies temporary files for us
        os.close(held)
        _log.info("worker stopped", worker=settings.name)

    def _prepare(self) -> Host:
        settings = self._settings
        chosen = isolation.choose(settings.jobs.isolation, settings.jobs.user)
        (_log.warning if chosen.kind in ("none", "refused") else _log.info)(
            "isolation of jobs", kind=chosen.kind, words=chosen.words
        )
        directory = _jobs_directory(settings.data_dir, chosen)
        ca_file = None
        if settings.ca_file is not None:
            ca_file = directory / "ca.pem"
            write_ca_file(settings.ca_file, ca_file)
        return Host(
            ctx=self._ctx,
            web=WebClient(settings.url, settings.credential, settings.ca_file),
            executor=f"worker:{settings.name}",
            url=settings.url,
            jobs=settings.jobs,
            isolation=chosen,
            directory=directory,
            ca_file=ca_file,
            hidden=settings.hidden,
            draining=self._draining,
            ending=self._ending,
        )

    def _listen(self) -> None:
        """Take a signal if one comes within a moment."""
        got = signal.sigtimedwait(_SIGNALS, _MOMENT)
        if got is None:
            return
        if got.si_signo == signal.SIGUSR1:
            self._retiring = True
            return
        if got.si_signo == signal.SIGINT or self._draining.is_set():
            self._ending.set()
        self._draining.set()

    def _take_lock(self, path: Path) -> int | None:
        """The worker's lock, which the kernel frees with the process; None where we are to stop first."""
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        told = False
        while not self._draining.is_set():
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if not told:
                    _log.info("waiting for the worker before this one to finish its jobs")
                    told = True
                self._listen()
            else:
                return fd
        os.close(fd)
        return None

    def _execute(self, run_id: str, dispatch_no: int, owner: str) -> None:
        live = Live(run_id, dispatch_no)
        with self._lock:
            before = self._live.setdefault(run_id, live)
        if before is not live:
            # The same dispatch is a second copy. Another one follows an attempt that was lost, whose own
            # dispatch is still on its way out: dropped here, nothing would ever carry the run on.
            if before.dispatch_no != dispatch_no:
                insist(lambda: self._put_back(run_id, dispatch_no, owner, _SOON))
            return
        try:
            Dispatch(self._host, live).run()
        except Stopping:
            insist(lambda: self._put_back(run_id, dispatch_no, owner, timedelta(0)))
        except Exception:  # noqa: BLE001 - the engine would log whatever text it has
            # A bug of ours. An attempt, if there is one, falls silent, and the keeper ends it visibly; a run
            # without one is looked at again, since nothing else would.
            _log.exception("dispatch failed", run_id=run_id, attempt_id=live.attempt_id)
            if not live.attempt_id:
                insist(lambda: self._put_back(run_id, dispatch_no, owner, _LOOK_AGAIN))
        finally:
            with self._lock:
                del self._live[run_id]

    def _put_back(self, run_id: str, dispatch_no: int, owner: str, delay: timedelta) -> None:
        with self._ctx.store.write() as connection:
            self._queue.put_back(connection, run_id, dispatch_no, owner, uuid.uuid4().hex[:8], delay)

    def _pulse(self) -> None:
        for pulse in itertools.count(1):
            time.sleep(_PULSE)
            try:
                self._look_after_jobs(tell=pulse % _BEAT == 0)
                if pulse % _FORGET == 0:
                    self._queue.forget_finished(self._ctx.clock.now() - _KEEP)
            except UnavailableError as error:
                _log.warning("records away", why=error.message)
            except Exception:  # noqa: BLE001 - without its pulse a worker would lose every job it has
                _log.exception("pulse failed")

    def _look_after_jobs(self, *, tell: bool) -> None:
        """Hear which runs were cancelled and, where `tell`, say that the attempts go on."""
        with self._lock:
            running = {live.attempt_id: live for live in self._live.values() if live.attempt_id}
        if not running:
            return
        cancelled = attempts.cancel_requested(self._ctx)
        over = attempts.heartbeat(self._ctx, set(running)) if tell else set()
        for attempt_id, live in running.items():
            if live.run_id in cancelled:
                live.cancelled.set()
            if attempt_id in over:
                live.over.set()


def _jobs_directory(data_dir: Path, chosen: isolation.Isolation) -> Path:
    """Where the jobs' own directories are made.

    In the data directory, unless jobs are another OS user without a sandbox: that user cannot pass through
    the data directory, and gets a place among the temporary files whose parent only we can write.
    """
    if chosen.kind != "user":
        directory = DataDir(data_dir).jobs
        directory.mkdir(mode=0o700, exist_ok=True)
        return directory
    name = hashlib.sha256(str(data_dir.resolve()).encode()).hexdigest()[:16]
    directory = Path(tempfile.gettempdir(), f"taskcred-jobs-{name}")
    directory.mkdir(mode=0o711, exist_ok=True)
    found = directory.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
        raise ConfigurationError(
            f"{directory} is not a directory of this user.",
            hint="Somebody made it before us: look at it, remove it, and start again.",
        )
    directory.chmod(0o711)  # the umask may have taken the x that lets jobs pass through
    return directory
