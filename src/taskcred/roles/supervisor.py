"""The supervisor: owns the listening socket, starts web, keeper and worker, and replaces them.

It holds no secret and does no work of its own, so it can stay while everything else is exchanged:

At the first start web and keeper are forks of it (see `roles.forked`); the worker, which must not even have
the code that opens a vault, and every replacement, which must have new code, are fresh interpreters.

SIGHUP            a new web and a new keeper start; once they are ready the old ones leave (drained, lease
                  handed over); the worker is told to retire when its jobs have ended
SIGTERM, SIGINT   everything stops in order; a second one stops at once
a role dies       it is started again, with a growing pause while it keeps dying
"""

from __future__ import annotations

import errno
import os
import selectors
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

import structlog

from taskcred.errors import ConfigurationError
from taskcred.roles.forked import Command, ForkedProcess
from taskcred.roles.lifeline import LIFELINE_FD, READY_FD

log = structlog.get_logger("supervisor")

_READY_WITHIN: Final = 60.0
_STOP_WITHIN: Final = 20.0
_TAKE_OVER_WITHIN: Final = (
    3.0  # roles of a supervisor that was killed a moment ago may still hold the address
)
_LONGEST_PAUSE: Final = 30.0


class Process(Protocol):
    """The part of `subprocess.Popen` that we use."""

    pid: int

    @property
    def returncode(self) -> int | Any:
        """The exit code, negative for a signal; None while it lives."""

    def poll(self) -> int | None: ...
    def wait(self) -> int | None: ...
    def terminate(self) -> None: ...
    def kill(self) -> None: ...
    def send_signal(self, number: int, /) -> None: ...


@dataclass(slots=True)
class Role:
    """A kind of process to keep alive: its command line and how often it died of late.

    `essential`: not ready without it. `forkable`: its first process may be a fork.
    """

    name: str
    arguments: Sequence[str]
    essential: bool = True
    forkable: bool = False
    process: Process | None = None
    started: float = 0.0
    deaths: int = 0
    restart_at: float = 0.0
    leaving: list[Process] = field(default_factory=list)


def listen(host: str, port: int) -> socket.socket:
    """The listening socket. Raises ConfigurationError where the address cannot be had."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    patience = time.monotonic() + _TAKE_OVER_WITHIN
    while True:
        try:
            listener.bind((host, port))
            listener.listen(1024)
        except OSError as error:
            if error.errno == errno.EADDRINUSE and time.monotonic() < patience:
                time.sleep(0.05)
                continue
            listener.close()
            raise ConfigurationError(
                f"Cannot listen on {host} port {port}: {error.strerror}.",
                hint="Stop what listens there, or choose another with --port (0 takes a free one).",
            ) from error
        return listener


class Supervisor:
    """Keeps `roles` alive. `command` carries out a command line of ours in a fork; `private` are descriptors
    that no fork may keep."""

    def __init__(
        self, roles: Sequence[Role], listener: socket.socket, command: Command, private: Sequence[int]
    ) -> None:
        self._roles = roles
        self._listener = listener
        self._command = command
        self._private = private
        self._lifeline_read, self._lifeline_write = os.pipe()
        self._wake_read, self._wake_write = os.pipe()
        for fd in (self._wake_read, self._wake_write):
            os.set_blocking(fd, False)
        self._signals: list[int] = []

    def start(self) -> None:
        """Start every role and return when the essential ones are ready. Raises ConfigurationError where
        one of them will not be."""
        for number in (signal.SIGHUP, signal.SIGTERM, signal.SIGINT, signal.SIGCHLD):
            signal.signal(number, lambda signum, _frame: self._signals.append(signum))
        signal.set_wakeup_fd(self._wake_write, warn_on_full_buffer=False)
        essential = [(role, self._begin(role)) for role in self._roles if role.essential]
        for role, ready in essential:
            if not self._wait_ready(role, ready):
                self._stop()
                raise ConfigurationError(
                    f"The {role.name} did not start.",
                    hint="Its last lines above say why; `taskcred doctor` checks.",
                )
        # The rest only now: it would take its share of the processors from what must be ready first.
        for role in self._roles:
            if not role.essential:
                os.close(self._begin(role))

    def run(self) -> None:
        """Supervise until told to stop."""
        selector = selectors.DefaultSelector()
        selector.register(self._wake_read, selectors.EVENT_READ)
        while True:
            selector.select(timeout=self._pause())
            self._drain_wake_ups()
            while self._signals:
                number = self._signals.pop(0)
                if number == signal.SIGHUP:
                    self._replace()
                elif number in {signal.SIGTERM, signal.SIGINT}:
                    self._stop()
                    return
            self._reap()

    def _drain_wake_ups(self) -> None:
        try:
            while os.read(self._wake_read, 64):
                pass
        except BlockingIOError:
            return

    def _begin(self, role: Role) -> int:
        return self._fork(role) if role.forkable else self._spawn(role)

    def _fork(self, role: Role) -> int:
        ready_read, ready_write = os.pipe()
        mine = [ready_read, self._lifeline_write, self._wake_read, self._wake_write, *self._private]
        if role.name != "web":
            mine.append(self._listener.fileno())
        environment = {LIFELINE_FD: str(self._lifeline_read), READY_FD: str(ready_write)}
        role.process = ForkedProcess(self._command, role.arguments, environment, mine)
        os.close(ready_write)
        role.started = time.monotonic()
        return ready_read

    def _spawn(self, role: Role) -> int:
        ready_read, ready_write = os.pipe()
        environment = os.environ | {LIFELINE_FD: str(self._lifeline_read), READY_FD: str(ready_write)}
        inherited = (self._lifeline_read, ready_write, self._listener.fileno())
        role.process = subprocess.Popen(  # noqa: S603 - our own interpreter and module, arguments made here
            [sys.executable, "-m", "taskcred", *role.arguments],
            pass_fds=inherited if role.name == "web" else inherited[:2],
            env=environment,
            stdin=subprocess.DEVNULL,
            start_new_session=True,  # a Ctrl-C at the terminal is the supervisor's to pass on, in order
        )
        os.close(ready_write)
        role.started = time.monotonic()
        return ready_read

    def _wait_ready(self, role: Role, ready: int) -> bool:
        """Whether the role said it is ready; False where it ended instead or took too long."""
        with selectors.DefaultSelector() as selector:
            selector.register(ready, selectors.EVENT_READ)
            answered = selector.select(timeout=_READY_WITHIN)
        said = bool(answered) and os.read(ready, 1) == b"1"
        os.close(ready)
        return said

    def _replace(self) -> None:
        log.info("replacing", roles=[role.name for role in self._roles])
        for role in self._roles:
            old = role.process
            if old is None:
                continue
            if role.name == "worker":
                old.send_signal(signal.SIGUSR1)  # retire when the last job has ended
                continue
            if role.name == "keeper":
                old.terminate()  # it hands its lease over; the new one waits for that
                role.leaving.append(old)
            ready = self._spawn(role)
            if not self._wait_ready(role, ready):
                log.error("replacement failed", role=role.name, kept="the one that runs")
                self._keep_old(role, old)
                continue
            if role.name == "web":
                old.terminate()
                role.leaving.append(old)

    def _keep_old(self, role: Role, old: Process) -> None:
        failed, role.process = role.process, old
        if failed is not None and failed.poll() is None:
            failed.kill()
            failed.wait()

    def _reap(self) -> None:
        now = time.monotonic()
        for role in self._roles:
            role.leaving = [process for process in role.leaving if process.poll() is None]
            if role.process is not None and role.process.poll() is not None:
                code = role.process.returncode
                role.process = None
                role.deaths = 0 if now - role.started > _LONGEST_PAUSE or code == 0 else role.deaths + 1
                role.restart_at = now + (
                    min(2.0 ** (role.deaths - 2), _LONGEST_PAUSE) if role.deaths > 1 else 0.0
                )
                log.log(
                    20 if code == 0 else 40,
                    "role ended",
                    role=role.name,
                    exit_code=code,
                    restart_in=round(role.restart_at - now, 1),
                )
            if role.process is None and now >= role.restart_at:
                os.close(self._spawn(role))

    def _pause(self) -> float | None:
        """Seconds until a role is due to be started again; None to sleep until a signal."""
        due = [role.restart_at for role in self._roles if role.process is None]
        return max(0.0, min(due) - time.monotonic()) if due else None

    def _stop(self) -> None:
        """Worker first, so that its jobs' last tokens and outcomes still find web and keeper."""
        for name in ("worker", "keeper", "web"):
            processes = [
                process
                for role in self._roles
                if role.name == name
                for process in (role.process, *role.leaving)
                if process is not None and process.poll() is None
            ]
            for process in processes:
                process.terminate()
            self._wait_all(processes)
        self._listener.close()

    def _wait_all(self, processes: list[Process]) -> None:
        end = time.monotonic() + _STOP_WITHIN
        for process in processes:
            hurried = False
            while process.poll() is None:
                if time.monotonic() > end:
                    process.kill()
                elif not hurried and self._asked_again():
                    hurried = True
                    process.terminate()
                time.sleep(0.02)

    def _asked_again(self) -> bool:
        return any(number in {signal.SIGTERM, signal.SIGINT} for number in self._signals)
