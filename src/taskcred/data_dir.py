"""What lies where in the data directory, and who may have it open."""

from __future__ import annotations

import fcntl
import os
from dataclasses import dataclass
from pathlib import Path

from taskcred.errors import ConfigurationError


@dataclass(frozen=True, slots=True)
class DataDir:
    """Names of the files in the data directory."""

    path: Path

    @property
    def records(self) -> Path:
        return self.path / "records.db"

    @property
    def iam(self) -> Path:
        return self.path / "iam.db"

    @property
    def vault(self) -> Path:
        return self.path / "vault.db"

    @property
    def epoch(self) -> Path:
        return self.path / "epoch"

    @property
    def worker_credential(self) -> Path:
        return self.path / "worker.credential"

    @property
    def administrator_link(self) -> Path:
        return self.path / "administrator-sign-in"

    @property
    def jobs(self) -> Path:
        return self.path / "jobs"

    @property
    def server(self) -> Path:
        return self.path / "server.json"

    @property
    def worker_lock(self) -> Path:
        return self.path / "worker.lock"

    @property
    def serve_lock(self) -> Path:
        return self.path / "serve.lock"

    @property
    def issuer(self) -> Path:
        """The issuer of the tokens in the cache."""
        return self.path / "issuer"

    @property
    def tls(self) -> Path:
        return self.path / "tls"

    @property
    def own_certificate(self) -> Path:
        """What `serve --tls-self-signed` made; it is its own authority."""
        return self.tls / "certificate.pem"

    def make(self) -> None:
        """Create the directory with mode 0700 where it is missing. Raises ConfigurationError where others
        may look into it, or it cannot be made."""
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.jobs.mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            raise ConfigurationError(
                f"The data directory {self.path} cannot be made: {error.strerror}.",
                hint="Name another with --data-dir, or let this user write there.",
            ) from error
        if self.path.stat().st_mode & 0o077:
            raise ConfigurationError(
                f"The data directory {self.path} is open to other users of this machine.",
                hint=f"chmod 700 {self.path}",
            )


def lock(path: Path, what: str) -> int:
    """Take the lock file `path` for the life of this process; its descriptor. Raises ConfigurationError
    where another process has it."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        raise ConfigurationError(
            f"{what} already runs on {path.parent}.",
            hint="Stop that one first, or name another data directory with --data-dir.",
        ) from None
    return fd


def write_private(path: Path, text: str) -> None:
    """Write `text` to `path` with mode 0600, all or nothing."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(fd, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)
