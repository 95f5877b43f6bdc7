"""A role's name, and two pipes between the supervisor and a role: one says "I am ready", the other "I am still here".

A role that was started by a supervisor ends when the supervisor does, however that happened: the kernel
closes the supervisor's end of the pipe, and the role reads end-of-file.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Final

LIFELINE_FD: Final = "_TASKCRED_LIFELINE_FD"
READY_FD: Final = "_TASKCRED_READY_FD"


def _inherited(name: str) -> int | None:
    text = os.environ.pop(name, "")
    return int(text) if text else None


def take_name(role: str) -> None:
    """Be "taskcred-<role>" in ps and top, however this process was started (proc_pid_comm(5), 15 characters)."""
    Path("/proc/self/comm").write_text(f"taskcred-{role}")


def watch(on_supervisor_gone: Callable[[], None]) -> None:
    """Call `on_supervisor_gone` from a thread once the supervisor is gone; nothing where there is none."""
    fd = _inherited(LIFELINE_FD)
    if fd is None:
        return
    os.set_inheritable(fd, False)

    def wait() -> None:
        while os.read(fd, 1):
            pass
        on_supervisor_gone()

    threading.Thread(target=wait, name="lifeline", daemon=True).start()


def tell_ready() -> None:
    """Tell the supervisor that this role does its work from now on."""
    fd = _inherited(READY_FD)
    if fd is not None:
        with contextlib.suppress(BrokenPipeError):  # a role started again after a death is not waited for
            os.write(fd, b"1")
        os.close(fd)
