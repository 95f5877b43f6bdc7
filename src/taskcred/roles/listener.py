"""granian's WSGI worker on a listening socket that the supervisor owns, with a drain nobody notices.

granian's own reload binds anew and cuts keep-alive connections (measured: 38 read errors in 6 s at 32
connections). Here the socket stays open across replacements, and a process that leaves

1. stops accepting: the listening socket is taken out of its event loop, new connections wait for the successor;
2. answers every request that still arrives with `Connection: close`;
3. leaves when its last connection is gone, or at the drain's deadline.

This drives parts of granian that are not its public interface, so its version is pinned exactly and
`tests/functional/test_reload.py` holds the behaviour.
"""

from __future__ import annotations

import os
import select
import socket
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, cast

from granian._futures import _new_cbscheduler
from granian._granian import SocketHolder, WorkerSignal, WSGIWorker
from granian._loops import loops
from granian.http import HTTP1Settings
from granian.wsgi import _callback_wrapper

from taskcred.wsgi import Environ, StartResponse, WsgiApp

_BACKLOG: Final = 1024
_PROC_FD: Final = Path("/proc/self/fd")


@dataclass(frozen=True, slots=True)
class Tls:
    """PEM files of the certificate chain and its key."""

    certificate: Path
    key: Path


class Listener:
    """Serves `app` on the listening socket `fd` until `drain` has finished."""

    def __init__(self, app: WsgiApp, fd: int, *, threads: int, tls: Tls | None = None) -> None:
        self._app = app
        self._fd = fd
        self._inode = os.fstat(fd).st_ino
        self._stopped = threading.Event()
        self._signal = WorkerSignal()
        # granian's stub file describes other parameters than its extension takes
        self._worker: Any = cast("Any", WSGIWorker)(
            1,
            (None, cast("Any", SocketHolder)(fd, False, _BACKLOG)),
            None,
            1,
            512,
            threads,
            30,
            _BACKLOG,
            "1",
            HTTP1Settings(header_read_timeout=30_000),
            None,
            None,
            tls is not None,
            str(tls.certificate) if tls else None,
            str(tls.key) if tls else None,
            None,
            "tls1.2",
            None,
            [],
            False,
            (None, None),
        )

    def start(self) -> None:
        """Begin to accept; returns at once. `wait` blocks until the end."""
        loop = loops.get("asyncio")
        scheduler = cast("Any", _new_cbscheduler)(
            loop, _callback_wrapper(self._answer, {}, None), impl_asyncio=True
        )
        self._worker.serve_mtr(scheduler, loop, self._signal)

    def _answer(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        return self._app(environ, start_response)

    def wait(self) -> None:
        """Block until a drain has finished."""
        self._stopped.wait()

    def drain(self, deadline: float) -> None:
        """Leave as the module's docstring says; `deadline` is in seconds from now."""
        self._app = _closing(self._app)
        self._stop_accepting()
        end = time.monotonic() + deadline
        while time.monotonic() < end and self._connections():
            time.sleep(0.05)
        self._signal.set()
        self._stopped.set()

    def _stop_accepting(self) -> None:
        # /proc/<pid>/fdinfo of an epoll descriptor lists what it watches (proc_pid_fdinfo(5)).
        for entry in _PROC_FD.iterdir():
            try:
                if str(entry.readlink()) != "anon_inode:[eventpoll]":
                    continue
                info = Path(f"/proc/self/fdinfo/{entry.name}").read_text()
            except OSError:
                continue  # closed between listing and looking
            for line in info.splitlines():
                if line.startswith("tfd:") and self._is_listener(int(line.split()[1])):
                    select.epoll.fromfd(os.dup(int(entry.name))).unregister(int(line.split()[1]))

    def _is_listener(self, fd: int) -> bool:
        try:
            return os.fstat(fd).st_ino == self._inode
        except OSError:
            return False

    def _connections(self) -> int:
        """How many accepted connections this process still has."""
        with socket.socket(fileno=os.dup(self._fd)) as listener:
            established = _established_inodes(listener.getsockname()[1])
        mine = set()
        for entry in _PROC_FD.iterdir():
            try:
                mine.add(entry.stat().st_ino)
            except OSError:
                continue  # closed between listing and looking
        return len(established & mine)


def _closing(app: WsgiApp) -> WsgiApp:
    """`app` with `Connection: close` on every answer (RFC 9112, 9.6)."""

    def answer(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        def start(status: str, headers: list[tuple[str, str]], *exc_info: Any) -> Any:
            return start_response(status, [*headers, ("Connection", "close")], *exc_info)

        return app(environ, start)

    return answer


def _established_inodes(port: int) -> set[int]:
    """Socket inodes of the host's established TCP connections whose local port is `port` (proc_net(5))."""
    inodes = set()
    for table in (Path("/proc/net/tcp"), Path("/proc/net/tcp6")):
        if not table.exists():
            continue  # a kernel without IPv6
        for line in table.read_text().splitlines()[1:]:
            fields = line.split()
            if int(fields[1].rpartition(":")[2], 16) == port and fields[3] == "01":
                inodes.add(int(fields[9]))
    return inodes
