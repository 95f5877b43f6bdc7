"""Rewrap: the same secrets under a newer master key, while other processes serve.

    1. have the new master key in a file: the operator's, or a draft beside the default file
    2. in one transaction: wrap every data key under the new master key too, add a data key under both,
       note the target. From here on either master key opens everything, and new records use the new data key
    3. seal all records anew under the new data key, in batches; the old data key seals nothing any more
    4. drop the old data keys (the database refuses while a record needs one)
    5. put the new master key into the default file; an operator's file the operator must exchange
    6. drop the wraps under the old master key, and the note

A crash at any point leaves the vault open to the key in the file; the next `rewrap` reads the note and goes
on where it stopped. Records are sealed anew, not only the data keys wrapped anew: who had the old master key
and a copy of the vault had the old data keys, and shall not open what is stored from now on.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import sqlalchemy as sa

from taskcred.errors import ConfigurationError, ConflictError
from taskcred.vaults import embedded
from taskcred.vaults import sealed as sealed_record
from taskcred.vaults.embedded import data_keys, records, rewraps, wraps
from taskcred.vaults.master_key import MasterKey, MasterKeyFile

_BATCH: Final = 100  # records for each transaction: other writers wait a few milliseconds at most

Progress = Callable[[int, int], None]  # records moved so far, and of how many


@dataclass(frozen=True, slots=True)
class Rewrapped:
    """What a rewrap did. `is_finished` is False where the operator must exchange the master key file first
    and run it once more, to drop the old key."""

    records: int
    is_resumed: bool
    is_finished: bool
    master_key_id: str


@dataclass(frozen=True, slots=True)
class _Target:
    key: MasterKey
    file: MasterKeyFile


def rewrap(
    database: Path, master_key: MasterKeyFile, new_key_file: Path | None, progress: Progress
) -> Rewrapped:
    """Move every record to a new master key: the one in `new_key_file`, else a fresh one.

    Raises ConfigurationError where a key is missing or does not fit, ConflictError where another rewrap is
    under way; WrongMasterKeyError where the present key does not open the vault.
    """
    if not database.exists():
        raise ConfigurationError(f"There is no vault at {database}.", hint="Check --data-dir.")
    with _only_one(database):
        engine = embedded.open_database(database)
        try:
            with embedded.translated():
                return _rewrap(engine, master_key, new_key_file, progress)
        finally:
            engine.dispose()


def _rewrap(
    engine: sa.Engine, master_key: MasterKeyFile, new_key_file: Path | None, progress: Progress
) -> Rewrapped:
    draft = MasterKeyFile(master_key.path.with_name(f"{master_key.path.name}.next"))
    with engine.begin() as connection:
        embedded.unwrapped_keys(connection, master_key)  # the present key opens the vault, or we stop here
        noted = connection.execute(sa.select(rewraps.c.target_master_key_id)).scalar()
    current = master_key.read()
    if noted is None:
        target = _new_target(master_key, current, new_key_file, draft)
        with engine.begin() as connection:
            _begin(connection, master_key, current, target.key)
    else:
        target = _noted_target(noted, master_key, new_key_file, draft)
    moved = _move_records(engine, target.file, progress)
    with engine.begin() as connection:
        newest = embedded.newest_data_key(connection)
        connection.execute(data_keys.delete().where(data_keys.c.id != newest))
    if target.key.id != current.id and master_key.is_ours:
        master_key.move_from(draft)
        current = target.key
    is_finished = target.key.id == current.id
    if is_finished:
        with engine.begin() as connection:
            connection.execute(wraps.delete().where(wraps.c.master_key_id != current.id))
            connection.execute(rewraps.delete())
        _shorten_log(engine)
    return Rewrapped(moved, noted is not None, is_finished, target.key.id)


def _new_target(
    master_key: MasterKeyFile, current: MasterKey, new_key_file: Path | None, draft: MasterKeyFile
) -> _Target:
    if new_key_file is not None:
        given = MasterKeyFile(new_key_file)
        if given.read().id == current.id:
            raise ConfigurationError(
                f"{new_key_file} holds the master key that is in use already.",
                hint="Name a file with a new key.",
            )
        if not master_key.is_ours:
            return _Target(given.read(), given)
        draft.copy_from(given)
    elif master_key.is_ours:
        # One may lie here from a rewrap that ended before it began; nothing is under it yet.
        draft.create()
    else:
        raise ConfigurationError(
            f"The master key file {master_key.path} is yours to replace: name a file with the new key.",
            hint="openssl rand -base64 32 > FILE; chmod 600 FILE; taskcred vault rewrap --new-key-file FILE",
        )
    return _Target(draft.read(), draft)


def _noted_target(
    noted: str, master_key: MasterKeyFile, new_key_file: Path | None, draft: MasterKeyFile
) -> _Target:
    """The key file that an unfinished rewrap moves to."""
    candidates = [master_key]
    if master_key.is_ours and draft.path.exists():
        candidates.append(draft)
    if new_key_file is not None:
        candidates.append(MasterKeyFile(new_key_file))
    for file in candidates:
        key = file.read()
        if key.id == noted:
            return _Target(key, file)
    raise ConfigurationError(
        f"An unfinished rewrap moves to the master key with id {noted}, which is not at hand.",
        hint="Name its file with --new-key-file, or let the configured master key file hold it.",
    )


def _begin(
    connection: sa.Connection, master_key: MasterKeyFile, current: MasterKey, target: MasterKey
) -> None:
    keys = embedded.unwrapped_keys(connection, master_key)
    for key_id, raw in keys.items():
        embedded.add_wrap(connection, key_id, raw, target)
    embedded.add_data_key(connection, max(keys) + 1, (current, target))
    connection.execute(rewraps.insert().values(target_master_key_id=target.id))


def _move_records(engine: sa.Engine, key_file: MasterKeyFile, progress: Progress) -> int:
    with engine.begin() as connection:
        ciphers = embedded.load_keyset(connection, key_file)
        newest = embedded.newest_data_key(connection)
        is_old = records.c.data_key_id != newest
        total = connection.execute(sa.select(sa.func.count()).select_from(records).where(is_old)).scalar_one()
    moved = 0
    progress(moved, total)
    while True:
        with engine.begin() as connection:
            batch = connection.execute(sa.select(records).where(is_old).limit(_BATCH)).all()
            for row in batch:
                secret = sealed_record.open_sealed(ciphers, row.path, row.sealed)
                embedded.put(connection, ciphers[newest], newest, row.path, secret)
        if not batch:
            return moved
        moved += len(batch)
        progress(moved, total)


def _shorten_log(engine: sa.Engine) -> None:
    # The old wraps and ciphertexts leave the write-ahead log too; where a reader is in the way, later.
    raw = engine.raw_connection()
    try:
        raw.cursor().execute("PRAGMA wal_checkpoint(TRUNCATE)")
    finally:
        raw.close()


@contextmanager
def _only_one(database: Path) -> Iterator[None]:
    fd = os.open(database.with_name("rewrap.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConflictError(
                "Another rewrap of this vault is under way.", hint="Wait for it to finish."
            ) from None
        yield
    finally:
        os.close(fd)
