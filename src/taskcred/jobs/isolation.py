"""How jobs are kept from what is not theirs.

bubblewrap  The job sees an allow-list: the system's programs and libraries, a few files of /etc, the Python
            installation, `jobs.readable`, a directory of its own, private /tmp, /dev and /proc. It shares
            the network with the host, and nothing else: no data directory, no master key, no home
            directories, no other processes. It runs without capabilities. Where the worker is root, as
            `jobs.user` (else `nobody`); where it is not, in a user namespace of its own.
user        The job runs as another OS user. File modes hide the data directory. What jobs of that user
            do is visible to each other in /proc, arguments and, for as long as both run, environments
            with their stand-in keys included.
none        The job is the worker's own user and can read all that the worker can.
refused     Neither sandbox works here and `jobs.isolation` does not say "none": no job is started.
"""

from __future__ import annotations

import json
import os
import pwd
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final, Literal

from taskcred.errors import ConfigurationError

IsolationKind = Literal["bubblewrap", "user", "none", "refused"]

JOB_DIRECTORY: Final = "/job"  # where a job in bubblewrap finds its own directory

_NOBODY: Final = "nobody"
_TOP: Final = ("bin", "sbin", "lib", "lib32", "lib64", "libx32")
# Of /etc only what programs need to resolve names, check certificates and know the time; not the rest: it
# may hold anything, the master key included.
_ETC: Final = (
    "alternatives",
    "ca-certificates",
    "ca-certificates.conf",
    "crypto-policies",
    "gai.conf",
    "host.conf",
    "hosts",
    "ld.so.cache",
    "ld.so.conf",
    "ld.so.conf.d",
    "locale.alias",
    "localtime",
    "mime.types",
    "nsswitch.conf",
    "os-release",
    "pki/ca-trust",
    "pki/tls/certs",
    "protocols",
    "resolv.conf",
    "services",
    "ssl/cert.pem",
    "ssl/certs",
    "ssl/openssl.cnf",
    "timezone",
)
# CapEff bits a worker needs to run jobs as another user: CHOWN, KILL, SETGID, SETUID.
_CAPABILITIES: Final = (1 << 0) | (1 << 5) | (1 << 6) | (1 << 7)


@dataclass(frozen=True, slots=True)
class Isolation:
    """How jobs are isolated on this host, and why: `words` is a sentence for serve, doctor and the demo.

    `user` is uid and gid that jobs run as; None: the worker's own.
    """

    kind: IsolationKind
    words: str
    user: tuple[int, int] | None = None

    @property
    def runs_jobs(self) -> bool:
        """Whether `command` and `python` tasks may be started at all."""
        return self.kind != "refused"


def choose(mode: Literal["auto", "bubblewrap", "user", "none"], user: str | None) -> Isolation:
    """Find out what works here; bubblewrap is really run once. Never raises for what does not work: the
    answer is then `refused` and says why. Raises ConfigurationError for a user that does not exist."""
    account = _account(user) if user is not None else None
    if mode == "none":
        return Isolation(
            "none",
            'Jobs are NOT isolated (jobs.isolation = "none"): a job can read everything the worker can.',
        )
    why: list[str] = []
    if mode in ("auto", "bubblewrap"):
        # Without root the sandbox keeps the worker's user, in a user namespace of its own.
        chosen = (account or _account(_NOBODY)) if os.geteuid() == 0 else None
        problem = _probe_bubblewrap(chosen)
        if problem is None:
            return Isolation("bubblewrap", "Jobs run inside bubblewrap.", chosen)
        why.append(f"bubblewrap does not work here ({problem})")
    if mode in ("auto", "user"):
        problem = _probe_user(account)
        if problem is None:
            return Isolation("user", f"Jobs run as the OS user {user}.", account)
        why.append(problem)
    return Isolation(
        "refused",
        f"Command and python tasks are refused: {'; '.join(why)}. Install bubblewrap, set jobs.user and let "
        'the worker change users, or set jobs.isolation = "none" if you trust every job.',
    )


def _account(name: str) -> tuple[int, int]:
    try:
        entry = pwd.getpwnam(name)
    except KeyError:
        raise ConfigurationError(
            f"jobs.user: there is no OS user {name!r}.",
            hint=f"Create it (`useradd --system --no-create-home {name}`) or name another.",
        ) from None
    return entry.pw_uid, entry.pw_gid


def _probe_user(account: tuple[int, int] | None) -> str | None:
    if account is None:
        return "jobs.user is not set"
    if account[0] in (0, os.geteuid()):
        return "jobs.user must be neither root nor the worker's own user"
    status = Path("/proc/self/status").read_text(encoding="ascii")
    effective = int(status.partition("CapEff:")[2].split()[0], 16)
    if effective & _CAPABILITIES != _CAPABILITIES:
        return "the worker may not run programs as jobs.user (needs CAP_SETUID, SETGID, KILL and CHOWN)"
    return None


def _probe_bubblewrap(user: tuple[int, int] | None) -> str | None:
    """Run `true` in the very sandbox jobs get; None where that works, else why not."""
    if shutil.which("bwrap") is None:
        return "no bwrap program"
    with tempfile.TemporaryDirectory() as directory:
        argv = wrap(["true"], Path(directory), user=user, readable=(), hidden=())
        try:
            done = subprocess.run(argv, capture_output=True, timeout=20, check=False)  # noqa: S603 - our own argv
        except (OSError, subprocess.TimeoutExpired) as error:
            return str(error)
    if done.returncode != 0:
        return done.stderr.decode(errors="replace").strip()[:200] or f"exit status {done.returncode}"
    return None


def wrap(
    argv: Sequence[str],
    directory: Path,
    *,
    user: tuple[int, int] | None,
    readable: Sequence[Path],
    hidden: Sequence[Path],
    own: Sequence[Path] = (),
    start_in: Path | None = None,
) -> list[str]:
    """`argv` inside bubblewrap, with `directory` as its own at JOB_DIRECTORY.

    `readable` paths are added read-only, `hidden` ones are masked wherever an allowed path contains them,
    and of what is masked the `own` files are shown again.
    The environment is not touched: it is the one bwrap itself is started with, so that nothing of it
    appears in an argument list.
    """
    bwrap = shutil.which("bwrap") or "bwrap"
    command = [bwrap, "--die-with-parent", "--unshare-ipc", "--unshare-pid", "--unshare-uts"]
    command += ["--unshare-cgroup-try", "--hostname", "job"]
    if user is None:
        command += ["--unshare-user", "--uid", "65534", "--gid", "65534"]
    command += _system()
    tops = [*python_paths(), *readable, *([start_in] if start_in else []), *own]
    tops += [path for name in _ETC if (path := Path("/etc", name)).exists()]
    mounts = {path: ["--ro-bind", str(path), str(path)] for path in tops}
    for path in hidden:
        for place in _places(path, [Path("/usr"), *tops]):
            if place not in own:
                mounts[place] = _mask(place, path.is_dir())
    made: set[Path] = set()
    for place in sorted(mounts, key=lambda each: len(each.parts)):
        # From the outside in: what lies deeper is mounted over what contains it, shown or masked. The
        # directories between are made here: bwrap would make them for root alone.
        for parent in reversed(place.parents[:-1]):
            if parent not in made:
                command += ["--dir", str(parent)]
                made.add(parent)
        command += mounts[place]
        if mounts[place][0] == "--tmpfs":
            made = {each for each in made if not each.is_relative_to(place)}
    command += ["--bind", str(directory), JOB_DIRECTORY]
    command += ["--chdir", str(start_in) if start_in else JOB_DIRECTORY]
    command.append("--")
    if user is not None:
        # Started by root, bwrap makes no user namespace; the job leaves root here, for good.
        uid, gid = user
        command += [shutil.which("setpriv") or "setpriv", f"--reuid={uid}", f"--regid={gid}"]
        command += ["--clear-groups", "--inh-caps=-all", "--bounding-set=-all", "--no-new-privs", "--"]
    return [*command, *argv]


def _system() -> list[str]:
    command = ["--ro-bind", "/usr", "/usr"]
    for name in _TOP:
        path = Path("/", name)
        if path.is_symlink():
            command += ["--symlink", str(path.readlink()), str(path)]
        elif path.is_dir():
            command += ["--ro-bind", str(path), str(path)]
    command += ["--proc", "/proc", "--dev", "/dev"]
    return [*command, "--perms", "1777", "--tmpfs", "/tmp"]  # noqa: S108 - the sandbox's own


def _places(path: Path, tops: Sequence[Path]) -> set[Path]:
    """Where in the sandbox `path` would be seen: below each top that contains it, links resolved."""
    real = path.resolve()
    if not real.exists():
        return set()
    return {top / real.relative_to(top.resolve()) for top in tops if real.is_relative_to(top.resolve())}


def _mask(place: Path, is_directory: bool) -> list[str]:
    return ["--tmpfs", str(place)] if is_directory else ["--ro-bind", "/dev/null", str(place)]


@cache
def python_paths() -> tuple[Path, ...]:
    """What this Python needs to run, and the directories of the packages installed for it (virtual
    environment and .pth entries included), outermost first. Nothing where /usr has it all.

    An isolated Python is asked: our own `sys.path` may name the directory we were started in.
    """
    code = "import json, sys; print(json.dumps([sys.prefix, sys.base_prefix, *sys.path]))"
    answer = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, check=True, timeout=60)  # noqa: S603 - our own argv
    paths = {Path(name) for name in json.loads(answer.stdout) if Path(name).exists()}
    found: list[Path] = []
    for path in sorted(paths, key=lambda each: len(each.parts)):
        if not any(path.is_relative_to(top) for top in (Path("/usr"), *found)):
            found.append(path)
    return tuple(found)
