"""The launcher: a small program between the worker and one job. Standard library only.

    python -I -S launcher.py REPORT_FD OUTPUT_FD

It reads one line of JSON (`Spec`) from standard input, starts the job, and then watches standard input
only for its end. The pipe closes when the worker lets go of the job, or dies in whatever way: the
launcher then ends the job and everything the job started. It is the reaper of all its descendants
(PR_SET_CHILD_SUBREAPER), so a process that made a session of its own is found as well. It exits only when
none of them is left; that is what a worker waits for before a lost run is tried again.

Reports to REPORT_FD, one JSON object per line: {"pid": n} when the job runs, then {"exit": n} or
{"signal": n}; {"error": "..."} where it could not be started.

The job's stand-in key is in the spec, hence in a pipe; never in an argument list that others can read.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import json
import os
import resource
import select
import signal
import sys
import time
from pathlib import Path
from typing import Any, Final, NoReturn, TypedDict

_PR_SET_PDEATHSIG: Final = 1
_PR_SET_DUMPABLE: Final = 4
_PR_SET_CHILD_SUBREAPER: Final = 36
_PR_SET_NO_NEW_PRIVS: Final = 38
_PR_CAP_AMBIENT: Final = 47
_PR_CAP_AMBIENT_CLEAR_ALL: Final = 4

_libc = ctypes.CDLL(None, use_errno=True)


class Spec(TypedDict):
    """What to start. `user` is the job's uid and gid; None: the worker's. `wrapped`: argv is a sandbox,
    which changes the user itself, and whose own process must not be asked to end: it would take the job
    with it unasked."""

    argv: list[str]
    environment: dict[str, str]
    directory: str
    stdin: str
    user: tuple[int, int] | None
    wrapped: bool
    grace: float  # seconds between asking and ending
    remove: str  # the job's own directory, removed when all is over; empty: none


def process_started(pid: int) -> str | None:
    """When `pid` was started, in a form that only equality means something of; None where it is gone.

    A zombie counts as gone: it runs no more, and who its parent is does not matter to us.
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    fields = stat.rpartition(")")[2].split()
    if fields[0] == "Z":
        return None
    boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    return f"{boot}:{fields[19]}"  # in ticks since the boot, so the boot belongs to it


def descendants(root: int) -> list[int]:
    """The living descendants of process `root`, whatever sessions and groups they are in."""
    children: dict[int, list[int]] = {}
    for entry in os.listdir("/proc"):  # noqa: PTH208 - plain names are what is wanted
        if entry.isdigit():
            with contextlib.suppress(OSError):
                stat = Path(f"/proc/{entry}/stat").read_text(encoding="utf-8", errors="replace")
                fields = stat.rpartition(")")[2].split()
                if fields[0] != "Z":
                    children.setdefault(int(fields[1]), []).append(int(entry))
    found: list[int] = []
    queue = [root]
    while queue:
        below = children.get(queue.pop(), [])
        found += below
        queue += below
    return found


def remove_tree(top: str) -> None:
    """Remove the directory `top` and all in it, following no link and however deep a hostile job has made
    it: what lies in its directories is moved up into it, so no depth costs a stack frame or a descriptor.
    What cannot be removed stays."""
    try:
        root = os.open(top, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError:
        return
    try:
        while sum(_remove_entry(root, name) for name in os.listdir(root)):  # noqa: PTH208 - of a descriptor
            pass
    finally:
        os.close(root)
    with contextlib.suppress(OSError):
        os.rmdir(top)  # noqa: PTH106 - plain names are what is at hand


def _remove_entry(root: int, name: str) -> bool:
    """Remove a file, or empty a directory into `root` and remove it; whether that did anything."""
    try:
        if _unlink(root, name):
            return True
        inner = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=root)
        try:
            for child in os.listdir(inner):  # noqa: PTH208 - of a descriptor
                if not _unlink(inner, child):
                    os.rename(child, os.urandom(16).hex(), src_dir_fd=inner, dst_dir_fd=root)
        finally:
            os.close(inner)
        os.rmdir(name, dir_fd=root)
    except OSError:
        return False
    return True


def _unlink(directory: int, name: str) -> bool:
    """False for a directory, which its owner may enter from now on."""
    try:
        os.unlink(name, dir_fd=directory)
    except IsADirectoryError:
        if os.geteuid() != 0:  # root needs no permission, and must not be led elsewhere by a change of names
            os.chmod(name, 0o700, dir_fd=directory)
        return False
    return True


def _prctl(option: int, argument: int) -> None:
    if _libc.prctl(option, argument, 0, 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), f"prctl {option}")


def _become(user: tuple[int, int] | None) -> None:
    """Drop to the job's user for good: groups, ambient capabilities, and no way back through setuid files."""
    # Without this a worker that owns capabilities (systemd's AmbientCapabilities) would hand them on.
    _prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL)
    if user is not None:
        uid, gid = user
        os.setgroups([])
        os.setresgid(gid, gid, gid)
        os.setresuid(uid, uid, uid)
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)


def _exec_job(spec: Spec, launcher: int, output: int, failure: int) -> NoReturn:
    """In the child: become the job. A failure is written to `failure`, which a success closes."""
    try:
        os.setsid()
        stdin = os.memfd_create("stdin")
        os.write(stdin, spec["stdin"].encode())
        os.lseek(stdin, 0, os.SEEK_SET)
        os.dup2(stdin, 0)
        os.dup2(output, 1)
        os.dup2(output, 2)
        os.dup2(failure, 3)
        os.set_inheritable(3, False)
        os.closerange(4, resource.getrlimit(resource.RLIMIT_NOFILE)[0])
        failure = 3
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a core file would hold the stand-in key
        os.umask(0o077)
        os.chdir(spec["directory"])
        if not spec["wrapped"]:
            _become(spec["user"])
        _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)  # after the change of user, which clears it
        if os.getppid() != launcher:
            os._exit(1)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD, signal.SIGPIPE):
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        os.execve(_program(spec), spec["argv"], spec["environment"])  # noqa: S606 - no shell is the point
    except OSError as error:
        where = f": {error.filename}" if error.filename else ""
        os.write(failure, f"{error.strerror}{where}".encode())
    except ValueError as error:  # a NUL in an argument
        os.write(failure, str(error).encode())
    os._exit(127)


def _program(spec: Spec) -> str:
    """The file to execute: the first argument, looked up in the job's PATH where it names no directory."""
    name = spec["argv"][0]
    if "/" in name:
        return name
    for directory in spec["environment"].get("PATH", "").split(":"):
        if directory and os.access(Path(directory, name), os.X_OK):
            return os.path.join(directory, name)  # noqa: PTH118 - execve takes a string
    raise FileNotFoundError(errno.ENOENT, "not found in PATH", name)


class _Launcher:
    def __init__(self, report: int, output: int) -> None:
        self._report = report
        self._output = output
        self._status: int | None = None
        self._job = 0

    def run(self) -> None:
        line = sys.stdin.buffer.readline()
        if not line.endswith(b"\n"):
            return  # the worker went away before it asked for anything
        spec: Spec = json.loads(line)
        wake, woken = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        signal.set_wakeup_fd(woken, warn_on_full_buffer=False)
        for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, lambda *_: None)
        if not self._start(spec):
            self._clean(spec)
            return
        self._watch(wake)
        if self._status is None:
            self._ask(spec["wrapped"])
            self._wait(wake, time.monotonic() + spec["grace"])
        self._end_all()
        assert self._status is not None  # _end_all returns when no child is left  # noqa: S101
        code = os.waitstatus_to_exitcode(self._status)
        self._clean(spec)
        self._tell({"exit": code} if code >= 0 else {"signal": -code})

    def _start(self, spec: Spec) -> bool:
        heard, failure = os.pipe2(os.O_CLOEXEC)
        launcher = os.getpid()
        self._job = os.fork()
        if self._job == 0:
            _exec_job(spec, launcher, self._output, failure)
        os.close(failure)
        os.close(self._output)  # the worker sees the end of the output when the job's processes are gone
        error = os.read(heard, 4096)
        os.close(heard)
        if error:
            os.waitpid(self._job, 0)
            self._tell({"error": error.decode(errors="replace")})
            return False
        self._tell({"pid": self._job})
        return True

    def _watch(self, wake: int) -> None:
        """Return when the job's first process has ended, or the worker let go, or a signal asks to end."""
        while self._status is None:
            ready, _, _ = select.select([0, wake], [], [])
            if 0 in ready:
                return
            if set(os.read(wake, 512)) - {signal.SIGCHLD}:
                return
            self._reap()

    def _wait(self, wake: int, until: float) -> None:
        while self._status is None and (left := until - time.monotonic()) > 0:
            if select.select([wake], [], [], left)[0]:
                os.read(wake, 512)
                self._reap()

    def _reap(self) -> bool:
        """Collect ended children; whether any are left."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return False
            if pid == 0:
                return True
            if pid == self._job:
                self._status = status

    def _ask(self, wrapped: bool) -> None:
        for pid in descendants(os.getpid()):
            if not (wrapped and pid == self._job):
                with contextlib.suppress(OSError):
                    os.kill(pid, signal.SIGTERM)

    def _end_all(self) -> None:
        """Kill until nothing is left: a process may fork between being listed and being killed."""
        while self._reap():
            for pid in descendants(os.getpid()):
                with contextlib.suppress(OSError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.005)

    def _clean(self, spec: Spec) -> None:
        """Remove the job's directory, as the job's user: a tree made by a hostile job is no place for root."""
        if not spec["remove"]:
            return
        child = os.fork()
        if child == 0:
            with contextlib.suppress(Exception):
                os.chdir("/")
                _become(spec["user"])
                remove_tree(spec["remove"])
            os._exit(0)
        os.waitpid(child, 0)
        with contextlib.suppress(OSError):
            os.rmdir(spec["remove"])  # noqa: PTH106 - its parent is ours, the job's user cannot remove it

    def _tell(self, report: dict[str, Any]) -> None:
        with contextlib.suppress(OSError):  # the worker may be gone
            os.write(self._report, json.dumps(report).encode() + b"\n")


def main() -> None:
    """Run as a program."""
    report, output = int(sys.argv[1]), int(sys.argv[2])
    for descriptor in (report, output):
        os.set_inheritable(descriptor, False)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())  # the worker blocks what it waits for
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)
    _prctl(_PR_SET_DUMPABLE, 0)  # it holds the stand-in key: no ptrace, no core, no reading its memory
    _Launcher(report, output).run()


if __name__ == "__main__":
    main()
