"""The worker's end of a launcher: start it, give it the job, listen, let go."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from taskcred.jobs.launcher import Spec, process_started

_PROGRAM: Final = Path(__file__).with_name("launcher.py")
_READ: Final = 65_536
_PIPE: Final = 1_048_576  # bytes; what a pipe can hold at most, so nothing older is lost


@dataclass(frozen=True, slots=True)
class Ended:
    """How a job ended: exit status, or the signal that ended it, or why it could not be started.

    All None: the launcher itself is gone without a word; what the job did is not known.
    """

    exit_code: int | None = None
    signal: int | None = None
    error: str | None = None


class JobProcess:
    """One launcher. It waits for `begin`; the job lives as long as this object holds on to it."""

    def __init__(self) -> None:
        report_read, report = os.pipe()
        output_read, output = os.pipe()
        try:
            self._process = subprocess.Popen(  # noqa: S603 - our own program, no shell
                [sys.executable, "-I", "-S", str(_PROGRAM), str(report), str(output)],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                pass_fds=(report, output),
                start_new_session=True,  # a signal to the worker's group is not for the job
                cwd="/",
                env={},
            )
        except BaseException:
            os.close(report_read)
            os.close(output_read)
            raise
        finally:
            os.close(report)
            os.close(output)
        self._report, self._output = report_read, output_read
        self._reported = b""
        self._late = 0  # bytes read after the launcher was gone
        self._open = {report_read, output_read}

    @property
    def launcher(self) -> dict[str, Any]:
        """The process that must be gone before the run may be tried again."""
        return {"pid": self._process.pid, "started": process_started(self._process.pid)}

    def begin(self, spec: Spec) -> None:
        """Start the job. A launcher that is gone shows in `read`."""
        assert self._process.stdin is not None  # stdin is a pipe  # noqa: S101
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(json.dumps(spec).encode() + b"\n")
            self._process.stdin.flush()

    def end(self) -> None:
        """Let go: the launcher ends the job, politely first. Safe to repeat; `read` tells when it is done."""
        assert self._process.stdin is not None  # stdin is a pipe  # noqa: S101
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()

    def read(self, timeout: float) -> bytes | None:
        """What the job printed within `timeout` seconds, possibly nothing; None when all is over."""
        if not self._open:
            return None
        is_launcher_gone = self._report not in self._open
        ready, _, _ = select.select(list(self._open), [], [], 0 if is_launcher_gone else timeout)
        if is_launcher_gone and (not ready or self._late >= _PIPE):
            return None  # it was killed, and what it left behind holds on to the output, or goes on printing
        printed = b""
        for descriptor in ready:
            data = os.read(descriptor, _READ)
            if not data:
                self._open.discard(descriptor)
                os.close(descriptor)
            elif descriptor == self._report:
                self._reported += data
            else:
                printed = data
                self._late += len(data) if is_launcher_gone else 0
        return printed

    def close(self) -> Ended:
        """Wait for the launcher's exit, and tell how the job ended. Call it after `read` answered None."""
        self.end()
        for descriptor in self._open:
            os.close(descriptor)
        self._open.clear()
        self._process.wait()
        ended = Ended()
        for line in self._reported.splitlines():
            report = json.loads(line)
            if "pid" not in report:
                ended = Ended(report.get("exit"), report.get("signal"), report.get("error"))
        return ended


def end_strays(run_id: str) -> None:
    """End what a launcher that was killed itself has left behind: whatever has the run's id in its
    environment and is ours to look at. In bubblewrap nothing can be left."""
    marker = f"TASKCRED_RUN_ID={run_id}".encode()
    while strays := [pid for pid in _processes() if marker in _environment(pid).split(b"\0")]:
        for pid in strays:
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.01)


def _processes() -> list[int]:
    return [int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit()]


def _environment(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/environ").read_bytes()  # empty for a zombie
    except OSError:
        return b""  # gone, or another user's


def is_running(launcher: dict[str, Any]) -> bool:
    """Whether the very process recorded as `launcher` still runs on this host."""
    return process_started(int(launcher["pid"])) == str(launcher["started"])
