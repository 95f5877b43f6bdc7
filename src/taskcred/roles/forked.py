"""Running one of our commands in a fork of this process instead of a fresh interpreter.

At the first start every role needs the same modules. Loading them once and forking saves about a second of
CPU for each process. The forking process has loaded code and no secret: whatever opens the vault does so in
a fork.
"""

from __future__ import annotations

import os
import signal
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence

Command = Callable[[Sequence[str]], int]
"""Carries out a command line and returns its exit code."""


class ForkedProcess:
    """A child that carries out `arguments` and exits with the code of `command`; used like `subprocess.Popen`.

    It is its own session, reads nothing, has the signals' defaults, and does not keep `closed`, descriptors
    that are this process's alone.
    """

    def __init__(
        self,
        command: Command,
        arguments: Sequence[str],
        environment: Mapping[str, str],
        closed: Sequence[int],
    ) -> None:
        self.returncode: int | None = None
        sys.stdout.flush()
        sys.stderr.flush()
        self.pid = os.fork()
        if self.pid == 0:
            _become(command, arguments, environment, closed)

    def poll(self) -> int | None:
        """The exit code, negative for a signal; None while it lives."""
        return self._reap(os.WNOHANG)

    def wait(self) -> int | None:
        """Wait for its end; the exit code."""
        return self._reap(0)

    def _reap(self, options: int) -> int | None:
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, options)
            if pid:
                self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Send a signal; nothing happens where it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        """Ask it to end."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """End it."""
        self.send_signal(signal.SIGKILL)


def _become(
    command: Command, arguments: Sequence[str], environment: Mapping[str, str], closed: Sequence[int]
) -> None:
    code = 1
    try:
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGHUP, signal.SIGTERM, signal.SIGINT, signal.SIGCHLD):
            signal.signal(number, signal.SIG_DFL)
        os.setsid()
        for fd in closed:
            os.close(fd)
        nothing = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, 0)
        os.close(nothing)
        os.environ.update(environment)
        code = command(arguments)
        sys.stdout.flush()
        sys.stderr.flush()
    except BaseException:  # noqa: BLE001 - the child's outermost edge: it must not go on as its parent
        traceback.print_exc()
    finally:
        os._exit(code)  # the parent's exit handlers are not the child's to run
