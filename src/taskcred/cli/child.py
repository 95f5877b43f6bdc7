"""A command run in place of this process: its streams are ours, signals to us reach it, its end is ours.

In a terminal's foreground the command stays in our process group, as in any pipeline: the terminal itself tells
Ctrl-C and Ctrl-Z to all of the group, and we leave them to the command. Elsewhere (cron, systemd, a job in the
background) it gets a group of its own, which gets the signals that we get.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import FrameType
from typing import Final, Self

_FORWARDED: Final = (
    signal.SIGTERM,
    signal.SIGHUP,
    signal.SIGINT,
    signal.SIGQUIT,
    signal.SIGUSR1,
    signal.SIGUSR2,
)
_FROM_THE_TERMINAL: Final = frozenset({signal.SIGINT, signal.SIGQUIT})
_LOOK: Final = 0.5  # seconds between two looks at whether the command is to end
_GRACE: Final = 10.0  # seconds between asking it to end and making it


class Interrupted(BaseException):
    """A signal that asks us to end, while there is no command to pass it on to."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number: Final = number


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """Inside, SIGTERM, SIGHUP and SIGINT raise `Interrupted`."""

    def interrupt(number: int, _frame: FrameType | None) -> None:
        raise Interrupted(number)

    with _handling((signal.SIGTERM, signal.SIGHUP, signal.SIGINT), interrupt):
        yield


class Child:
    """The command, running inside the `with` block; from its first moment to the block's end the signals to us
    are the command's. Entering raises OSError where it cannot be started."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str]) -> None:
        self._command: Final = list(command)
        self._environment: Final = dict(environment)
        self._shares_group: Final = _is_in_foreground()
        self._process: subprocess.Popen[bytes] | None = None
        self._handlers: Final = contextlib.ExitStack()
        self.forwarded: int | None = None  # the last signal that was passed on

    def __enter__(self) -> Self:
        self._handlers.enter_context(_handling(_FORWARDED, self._forward))
        try:
            self._process = subprocess.Popen(  # noqa: S603 - it is what the user asked to run
                self._command, env=self._environment, process_group=None if self._shares_group else 0
            )
        except BaseException:
            self._handlers.close()
            raise
        if self.forwarded is not None:  # it came before there was anything to pass it on to
            self._send(signal.Signals(self.forwarded))
        return self

    def __exit__(self, *_: object) -> None:
        self._handlers.close()

    def wait(self, must_end: Callable[[], bool]) -> int:
        """The exit status as a shell tells it: 128 and the signal's number where one ended it. Once
        `must_end` says so it is asked to end, then made to."""
        while not must_end():
            if (status := self._status(_LOOK)) is not None:
                return status
        self._send(signal.SIGTERM)
        if (status := self._status(_GRACE)) is not None:
            return status
        self._send(signal.SIGKILL)
        while (status := self._status(_GRACE)) is None:
            pass  # it ends as soon as the kernel lets it
        return status

    def _forward(self, number: int, frame: FrameType | None) -> None:
        if self._shares_group and number in _FROM_THE_TERMINAL:
            return  # the command got it too
        self.forwarded = number
        self._send(signal.Signals(number))

    def _send(self, number: signal.Signals) -> None:
        if self._process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            if self._shares_group:
                self._process.send_signal(number)
            else:
                os.killpg(self._process.pid, number)

    def _status(self, patience: float) -> int | None:
        """As `wait`; None where the command has not ended within `patience` seconds."""
        assert self._process is not None  # noqa: S101 - inside the block there is one
        try:
            code = self._process.wait(patience)
        except subprocess.TimeoutExpired:
            return None
        return code if code >= 0 else 128 - code


def _is_in_foreground() -> bool:
    """Whether a terminal tells our process group its keys, whatever standard input is: a command in another
    group could not read them."""
    try:
        terminal = os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError:
        return False  # there is none
    try:
        return os.tcgetpgrp(terminal) == os.getpgrp()
    except OSError:
        return False
    finally:
        os.close(terminal)


@contextlib.contextmanager
def _handling(
    numbers: Sequence[signal.Signals], handler: Callable[[int, FrameType | None], None]
) -> Iterator[None]:
    """Handle these signals, but for those that whoever started us has us ignore (nohup, a background job)."""
    before = {number: signal.getsignal(number) for number in numbers}
    taken = [number for number in numbers if before[number] is not signal.SIG_IGN]
    for number in taken:
        signal.signal(number, handler)
    try:
        yield
    finally:
        for number in taken:
            signal.signal(number, before[number])
