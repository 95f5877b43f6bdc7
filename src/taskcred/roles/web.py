"""The web role: the WSGI application on the supervisor's socket."""

from __future__ import annotations

import ctypes
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

import structlog

from taskcred.errors import TaskcredError
from taskcred.roles import lifeline
from taskcred.roles.listener import Listener

log = structlog.get_logger("web")

_M_TRIM_THRESHOLD: Final = -1  # these two: malloc.h
_M_ARENA_MAX: Final = -8


def pin_to_core(number: int, processes: int) -> None:
    """Keep this process on one core, before any thread starts: else threads hand the interpreter lock from
    core to core, which costs about twice the CPU per request. Not done where there are too few cores."""
    cores = sorted(os.sched_getaffinity(0))
    if processes <= len(cores):
        os.sched_setaffinity(0, {cores[number % len(cores)]})


def keep_memory_together() -> None:
    """Have the C library's allocator use one arena, not one for each of many threads, which fragment, and give
    back what is free at its end: a web process stays about 40 MiB smaller (mallopt(3); nothing happens where
    the library has no such thing)."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_ARENA_MAX, 1)
        mallopt(_M_TRIM_THRESHOLD, 65536)


@contextmanager
def repeating(work: Callable[[], None], period: float) -> Iterator[None]:
    """Do `work` every `period` seconds beside the requests, until the block ends."""
    stop = threading.Event()

    def repeat() -> None:
        while not stop.wait(period):
            try:
                work()
            except TaskcredError as error:
                log.warning("put off", code=error.error_code, why=error.message)

    thread = threading.Thread(target=repeat, name="repeating", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


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
