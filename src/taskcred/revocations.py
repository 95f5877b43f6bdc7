"""The revocation log: what must stay ended although somebody restores an older backup.

One file of JSON lines, `revocations.jsonl`, in a directory outside the data directory and every backup. It
holds ids and times, never key material. Its first line names the log; a backup writes that name down, so that
a restore can tell "nothing was revoked since" from "the log of that time is gone". Lines are only appended,
each with one write under a lock, and are durable when `append` returns.
"""

from __future__ import annotations

import fcntl
import json
import os
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from taskcred.config import Settings
from taskcred.errors import ConfigurationError, StoreBusyError
from taskcred.ports import Clock

FILE_NAME: Final = "revocations.jsonl"


@dataclass(frozen=True, slots=True)
class Revocation:
    """One entry. `kind` says what `ref` is the id of: credential, key, attempt, worker, grant, service,
    service_secret, service_trust; of the local IAM iam_key (deleted), iam_key_disabled, iam_key_enabled (again:
    it takes back the one before) and iam_service_id (deleted, with its keys)."""

    kind: str
    ref: str
    account_id: str
    iam_id: str


@dataclass(frozen=True, slots=True)
class Mark:
    """How far a log had been written: its name and the bytes it had."""

    log_id: str
    size: int


def directory_of(settings: Settings) -> Path:
    """Where the log lies: outside the data directory and every backup of it."""
    return settings.revocations_dir or settings.data_dir.parent / "revocations"


class FileRevocationLog:
    """Implements `ports.RevocationLog` on a directory, which is made where it is missing."""

    def __init__(self, directory: Path, clock: Clock) -> None:
        self._path: Final = directory / FILE_NAME
        self._clock: Final = clock
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            if not self._path.exists():
                self._append({"log": str(uuid.uuid4())}, only_first=True)
        except OSError as error:
            raise ConfigurationError(
                f"The revocation log {self._path} cannot be made: {error.strerror}.",
                hint="Let this user write there, or name another directory in `revocations_dir`.",
            ) from error

    def append(self, kind: str, ref: str, account_id: str, iam_id: str) -> None:
        """See `ports.RevocationLog`. Raises StoreBusyError where the file cannot be written."""
        entry = {"kind": kind, "ref": ref, "account_id": account_id, "iam_id": iam_id}
        try:
            self._append(entry)
        except OSError as error:
            raise StoreBusyError(
                "The revocation log cannot be written, so nothing was revoked yet.",
                hint=f"Look at {self._path}: the disk may be full.",
            ) from error

    def _append(self, entry: dict[str, str], *, only_first: bool = False) -> None:
        fd = os.open(self._path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            size = os.fstat(fd).st_size
            if only_first and size:
                return  # another process was first
            # A crash may have left half a line; it must not swallow this one.
            is_torn = size > 0 and os.pread(fd, 1, size - 1) != b"\n"
            line = json.dumps({"at": self._clock.now().isoformat(), **entry}, separators=(",", ":"))
            os.write(fd, (b"\n" if is_torn else b"") + line.encode() + b"\n")
            os.fsync(fd)
            if not size:
                _sync_directory(self._path.parent)
        finally:
            os.close(fd)


def mark(directory: Path) -> Mark | None:
    """How far the log there goes now; None where there is none."""
    try:
        text = (directory / FILE_NAME).read_bytes()
    except FileNotFoundError:
        return None
    entries = _entries(text)
    return Mark(entries[0]["log"], len(text)) if entries and "log" in entries[0] else None


def read_since(directory: Path, known: Mark | None) -> list[Revocation] | None:
    """Every entry of the log there; None where it is not the log that `known` marks, or is shorter than it
    was then: what is missing may be what matters."""
    found = mark(directory)
    if known is None or found is None or found.log_id != known.log_id or found.size < known.size:
        return None
    entries = _entries((directory / FILE_NAME).read_bytes())
    return [
        Revocation(entry["kind"], entry["ref"], entry["account_id"], entry["iam_id"])
        for entry in entries
        if "kind" in entry
    ]


def _entries(text: bytes) -> list[dict[str, Any]]:
    """The whole lines. Half a line was never answered for: its `append` did not return."""
    entries = []
    for line in text.splitlines():
        try:
            entries.append(json.loads(line))
        except ValueError:
            continue
    return entries


def _sync_directory(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
