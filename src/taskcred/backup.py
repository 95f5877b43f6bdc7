"""Backup and restore of a data directory: records, local IAM and the embedded vault, never the master key.

A backup is taken while the server runs and is one cut through three databases. While `vault.db` and `iam.db`
are copied nobody can commit to `records.db`, and the records are then copied as they were at that moment. Every
change over several stores commits an intent first and its outcome last, so a cut between records commits is
one that a crash could have left, and the keeper finishes it after a restore.

A backup is a directory, or a tar archive where its name ends in ".tar":

    manifest.json   format, times, digests, how far the revocation log went, ids of the master keys needed
    records.db  iam.db  vault.db, unless OpenBao is the vault: it has backups of its own
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sqlite3
import tarfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO, Final, cast

import sqlalchemy as sa

from taskcred import __version__, revocations
from taskcred.config import Settings
from taskcred.errors import ConfigurationError, IntegrityError, StoreBusyError
from taskcred.restored import Replayed, make_safe

_FORMAT: Final = 1
_MANIFEST: Final = "manifest.json"
_EMBEDDED: Final = "vault.db"
_FILES: Final = (_EMBEDDED, "iam.db", "records.db")  # put in place in this order: without records, no server
_MAY_BE_THERE: Final = frozenset({"master.key", "taskcred.toml"})
_STAGING: Final = ".restore"


@dataclass(frozen=True, slots=True)
class Backup:
    """What was written."""

    target: Path
    bytes: int
    master_key_ids: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.bytes:,} bytes; {_opened_with('opens with', self.master_key_ids)}"


@dataclass(frozen=True, slots=True)
class Restored:
    """What was restored; `replayed` says what was ended or locked on the way."""

    created_at: datetime
    replayed: Replayed
    master_key_ids: tuple[str, ...]

    def __str__(self) -> str:
        return (
            f"backup of {self.created_at:%Y-%m-%d %H:%M} UTC; {self.replayed}; "
            f"{_opened_with('needs', self.master_key_ids)}"
        )


@dataclass(frozen=True, slots=True)
class _Manifest:
    created_at: datetime
    log: revocations.Mark | None
    master_key_ids: tuple[str, ...]
    files: tuple[str, ...]


def backup(settings: Settings, target: Path) -> Backup:
    """Write a backup to `target`, which appears complete or not at all.

    Raises ConfigurationError where there is nothing to back up, the records are in PostgreSQL or `target`
    exists, StoreBusyError where a database stays locked.
    """
    _refuse_postgresql(settings)
    data_dir = settings.data_dir
    files = _files(settings)
    missing = [name for name in files if not (data_dir / name).is_file()]
    if missing:
        raise ConfigurationError(
            f"There is no {missing[0]} in {data_dir}.", hint="Name the server's directory with --data-dir."
        )
    if target.exists():
        raise ConfigurationError(
            f"{target} exists already.", hint="Name another; a backup never overwrites one."
        )
    # Before the cut: entries the log gets from now on are in it for sure when the backup is restored.
    known = revocations.mark(revocations.directory_of(settings))
    draft = target.with_name(f".{target.name}.partial")
    try:
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(mode=0o700)
        with _translated():
            _copy_all(data_dir, draft, files)
            master_key_ids = _master_key_ids(draft / _EMBEDDED) if _EMBEDDED in files else ()
        manifest = {
            "format": _FORMAT,
            "taskcred": __version__,
            "created_at": datetime.now(UTC).isoformat(),
            "files": {name: _digest(draft / name) for name in files},
            "revocation_log": asdict(known) if known else None,
            "master_key_ids": master_key_ids,
        }
        (draft / _MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n")
        size = sum(path.stat().st_size for path in draft.iterdir())
        _publish(draft, target, files)
    except OSError as error:
        raise ConfigurationError(
            f"The backup {target} cannot be written: {error.strerror}.", hint="Name a place with room for it."
        ) from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return Backup(target, size, master_key_ids)


def restore(settings: Settings, source: Path) -> Restored:
    """Restore `source` into the data directory, which must be empty but for the master key and the
    configuration. What was ended since the backup stays ended (`restored`).

    Raises ConfigurationError where the directory is not empty or `source` is no backup, IntegrityError where
    the backup is damaged.
    """
    _refuse_postgresql(settings)
    data_dir = settings.data_dir
    data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    staging = data_dir / _STAGING
    shutil.rmtree(staging, ignore_errors=True)
    in_the_way = sorted(path.name for path in data_dir.iterdir() if path.name not in _MAY_BE_THERE)
    if in_the_way:
        raise ConfigurationError(
            f"{data_dir} is not empty: it holds {in_the_way[0]}.",
            hint="Restore into a new directory; only master.key and taskcred.toml may lie there.",
            code="data_dir_not_empty",
        )
    staging.mkdir(mode=0o700)
    try:
        manifest = _unpack(source, staging)
        _verify_kind(settings, manifest, source)
        revoked = revocations.read_since(revocations.directory_of(settings), manifest.log)
        with _translated():
            replayed = make_safe(staging, revoked, manifest.created_at, datetime.now(UTC))
        for name in manifest.files:
            _sync(staging / name)
            (staging / name).replace(data_dir / name)
        _sync(data_dir)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return Restored(manifest.created_at, replayed, manifest.master_key_ids)


def _refuse_postgresql(settings: Settings) -> None:
    if settings.database.url:
        raise ConfigurationError(
            "The records are in PostgreSQL, and this command copies files of SQLite only.",
            hint="docs/howto/postgresql.md says how records, vault and identity database are saved together.",
            code="records_elsewhere",
        )


def _files(settings: Settings) -> tuple[str, ...]:
    return tuple(name for name in _FILES if name != _EMBEDDED or settings.vault.kind == "embedded")


def _verify_kind(settings: Settings, manifest: _Manifest, source: Path) -> None:
    if manifest.files != _files(settings):
        raise ConfigurationError(
            f"{source} is a backup {'with' if _EMBEDDED in manifest.files else 'without'} an embedded vault, "
            f'and vault.kind is "{settings.vault.kind}".',
            hint="Restore it under the settings it was taken under, in taskcred.toml or by --config.",
        )


def _opened_with(verb: str, master_key_ids: tuple[str, ...]) -> str:
    if not master_key_ids:
        return "its keys are in the vault's own backup"
    return f"{verb} master key {' or '.join(master_key_ids)}"


def _copy_all(data_dir: Path, draft: Path, files: tuple[str, ...]) -> None:
    with closing(_open(data_dir / "records.db")) as gate, closing(_open(data_dir / "records.db")) as records:
        gate.execute("BEGIN IMMEDIATE")
        records.execute("BEGIN")
        records.execute("SELECT count(*) FROM sqlite_master").fetchone()  # the snapshot is taken here
        # The vault first: a key's material is destroyed after the key has ended at the provider, so what the
        # copy of the vault lacks, the later copy of the IAM lacks too. And a key is made at the provider after a
        # commit that follows its sealing, and that cannot happen now.
        if _EMBEDDED in files:
            _copy(data_dir / _EMBEDDED, draft / _EMBEDDED)
        _copy(data_dir / "iam.db", draft / "iam.db")
        gate.execute("ROLLBACK")
        # Writers go on; what is copied is the snapshot.
        _copy_from(records, draft / "records.db")


def _open(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"{path.resolve().as_uri()}?mode=rw", uri=True, isolation_level=None, timeout=20)


def _copy(source: Path, target: Path) -> None:
    with closing(_open(source)) as connection:
        _copy_from(connection, target)


def _copy_from(connection: sqlite3.Connection, target: Path) -> None:
    target.touch(mode=0o600)
    with closing(sqlite3.connect(target, isolation_level=None)) as copy:
        connection.backup(copy)
        copy.execute("PRAGMA journal_mode=DELETE")  # one file, with no log beside it
        (verdict,) = copy.execute("PRAGMA quick_check(1)").fetchone()
    if verdict != "ok":
        raise IntegrityError(
            f"The copy of {target.name} is damaged: {verdict}.", hint="The database itself may be."
        )


def _master_key_ids(vault: Path) -> tuple[str, ...]:
    with closing(_open(vault)) as connection:
        rows = connection.execute("SELECT DISTINCT master_key_id FROM wraps ORDER BY 1").fetchall()
    return tuple(row[0] for row in rows)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _publish(draft: Path, target: Path, files: tuple[str, ...]) -> None:
    if target.suffix == ".tar":
        archive = draft / "archive"
        archive.touch(mode=0o600)
        with tarfile.open(archive, "w") as tar:
            for name in (_MANIFEST, *files):
                tar.add(draft / name, arcname=name)
        _sync(archive)
        archive.replace(target)
    else:
        for name in (_MANIFEST, *files):
            _sync(draft / name)
        _sync(draft)
        draft.replace(target)
    _sync(target.parent)


def _sync(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _unpack(source: Path, staging: Path) -> _Manifest:
    """The backup's files, of known names only, into `staging`."""
    try:
        with _members(source) as member:
            with member(_MANIFEST) as file:
                manifest = json.load(file)
            if manifest["format"] != _FORMAT:
                raise ConfigurationError(
                    f"{source} is a backup of a format that this version does not know.",
                    hint=f"It was written by taskcred {manifest['taskcred']}; use that version.",
                )
            files = tuple(name for name in _FILES if name in manifest["files"])
            for name in files:
                (staging / name).touch(mode=0o600)
                with member(name) as file, (staging / name).open("wb") as copy:
                    shutil.copyfileobj(file, copy)
        damaged = [name for name in files if _digest(staging / name) != manifest["files"][name]]
        log = manifest["revocation_log"]
        read = _Manifest(
            datetime.fromisoformat(manifest["created_at"]),
            revocations.Mark(log["log_id"], log["size"]) if log else None,
            tuple(manifest["master_key_ids"]),
            files,
        )
    except (OSError, KeyError, TypeError, ValueError, tarfile.TarError) as error:
        raise ConfigurationError(
            f"{source} is no backup of taskcred.", hint="Name the directory or the .tar file."
        ) from error
    if damaged:
        raise IntegrityError(
            f"{damaged[0]} in {source} is not what was backed up.", hint="Restore another backup."
        )
    return read


@contextmanager
def _members(source: Path) -> Iterator[Callable[[str], BinaryIO]]:
    """A function that opens a file of the backup by its name."""
    if source.is_dir():
        yield lambda name: (source / name).open("rb")
        return
    with tarfile.open(source, "r:") as tar:

        def member(name: str) -> BinaryIO:
            file = tar.extractfile(name)
            if file is None:
                raise KeyError(name)  # a link or a directory
            return cast("BinaryIO", file)

        yield member


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except (sqlite3.OperationalError, sa.exc.OperationalError) as error:
        raise StoreBusyError(
            "A database is busy or away.", hint="Try again; the disk may be full."
        ) from error
    except (sqlite3.DatabaseError, sa.exc.DatabaseError) as error:
        raise IntegrityError("A database is damaged.", hint="Take the backup before this one.") from error
