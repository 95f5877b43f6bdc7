"""A machine of its own for a check: this one's files under a layer in memory, with systemd started in it."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

from tests.support.server import eventually

_NEEDED = {"systemd-nspawn": "systemd-container", "cron": "cron", "zic": "libc-bin", "nsenter": "util-linux"}
# The host's root cannot be the container's: another name of it, in a mount namespace of its own, can.
_BOOT = 'mount --bind / "$0" && exec systemd-nspawn --directory="$0" "$@"'


def missing() -> str:
    """Why no such machine can be had here; empty where it can."""
    packages = [package for program, package in _NEEDED.items() if shutil.which(program) is None]
    if packages:
        return f"not installed: {' '.join(packages)}"
    probe = subprocess.run(["unshare", "--mount", "true"], capture_output=True, check=False)
    if os.geteuid() != 0 or probe.returncode:
        return "systemd and cron start in a machine of their own for root alone, outside of containers"
    return ""


@dataclass
class Debian:
    """What is written there is gone when it stops, but for what lies in `shares`: folders of ours and their
    names there. It has our network, and no service runs but those that are started."""

    root: Path  # an empty folder
    shares: dict[Path, str]
    process: subprocess.Popen[bytes] = field(init=False)

    def start(self) -> None:
        """Boot, and wait until it is up."""
        self.root.mkdir()
        self.process = subprocess.Popen(
            [
                *("unshare", "--mount", "sh", "-c", _BOOT, str(self.root)),
                *("--quiet", "--boot", "--volatile=overlay", f"--machine=taskcred-check-{os.getpid()}"),
                *("--register=no", "--keep-unit", "--link-journal=no", "--resolv-conf=off", "--console=pipe"),
                *(f"--bind={ours}:{theirs}" for ours, theirs in self.shares.items()),
                *("--", "--unit=sysinit.target"),
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        eventually(self._is_up, "systemd has started in a machine of its own", within=60)
        # This Python may lie in a folder that is for root alone; the user there shall run it, too.
        self.run(f"chmod o+x {' '.join(str(folder) for folder in self.python.parents)}")

    @property
    def python(self) -> Path:
        """Python without our environment."""
        return Path(sys.base_prefix) / "bin" / f"python3.{sys.version_info.minor}"

    def _is_up(self) -> bool:
        if self.process.poll() is not None:
            raise SystemExit(f"systemd-nspawn ended with {self.process.returncode}.")
        return self._leader() != "" and self._try("systemctl is-system-running").returncode == 0

    def _leader(self) -> str:
        return Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().strip()

    def _try(
        self, line: str, user: str = "root", folder: str = "/", **environment: str
    ) -> subprocess.CompletedProcess[str]:
        variables = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8"} | environment
        return subprocess.run(
            [
                *("nsenter", "--target", self._leader(), "--mount", "--pid", "--uts", "--ipc"),
                *("runuser", "--user", user, "--", "env", "--ignore-environment", f"--chdir={folder}"),
                *(f"{name}={value}" for name, value in variables.items()),
                *("timeout", "900", "bash", "-c", line),
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )

    def run(self, line: str, user: str = "root", folder: str = "/", **environment: str) -> str:
        """What a command prints there. Ends the check where it fails."""
        done = self._try(line, user, folder, **environment)
        if done.returncode:
            raise SystemExit(f"`{line}` ended with {done.returncode}:\n{done.stdout}")
        return done.stdout

    def write(self, path: str, text: str, mode: str = "644") -> None:
        """A file there."""
        file = next(iter(self.shares)) / ".written"
        file.write_text(text, encoding="utf-8")
        self.run(f"install -D --mode={mode} {self.shares[file.parent]}/.written {path}")
        file.unlink()

    def make_it_half_past_two(self, within: float) -> float:
        """Put the machine into a time zone in which it is 02:30 at the next full minute that is at least
        `within` seconds away; returns that moment."""
        minute = int((time.time() + within) // 60 + 1)
        offset = (150 - minute) % 1440
        self.write("/etc/night", f"Zone Night {offset // 60}:{offset % 60:02} - NIGHT\n")
        self.run("zic -d /etc/zones /etc/night && ln -sf /etc/zones/Night /etc/localtime")
        return minute * 60.0

    def stop(self) -> None:
        """Shut it down."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait(60)
