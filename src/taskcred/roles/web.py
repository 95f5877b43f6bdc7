"""The web role: the WSGI application on the supervisor's socket."""

from __future__ import annotations

import os
import signal
import threading

from taskcred.roles import lifeline
from taskcred.roles.listener import Listener


def pin_to_core(number: int, processes: int) -> None:
    """Keep this process on one core, before any thread starts: else threads hand the interpreter lock from
    core to core, which costs about twice the CPU per request. Not done where there are too few cores."""
    cores = sorted(os.sched_getaffinity(0))
    if processes <= len(cores):
        os.sched_setaffinity(0, {cores[number % len(cores)]})


def serve(listener: Listener, *, drain: float) -> None:
    """Serve until SIGTERM, then drain for at most `drain` seconds; SIGINT is left to the supervisor."""
    leaving = threading.Event()

    def leave(*_: object) -> None:
        if not leaving.is_set():
            leaving.set()
            threading.Thread(target=listener.drain, args=(drain,), name="drain", daemon=True).start()

    lifeline.watch(lambda: os._exit(1))
    signal.signal(signal.SIGTERM, leave)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    listener.start()
    lifeline.tell_ready()
    listener.wait()
