"""The embedded vault: sealed records in an SQLite file of their own, `vault.db`.

    master key (a file)  wraps  data keys (`wraps`)  seal  records (`records`)

The file is opened by SQLAlchemy as the records are, for its pool and its durability settings; it is a file
of its own so that a copy of the records holds no key material, not even sealed. While a rewrap goes on every
data key is wrapped under two master keys, the old and the new, so that any process can open it by the one
that its file holds at that moment (`rewrap`). New records are always sealed under the newest data key; a
process that meets a data key it does not know loads the keyset again.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import sqlalchemy as sa
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from sqlalchemy.dialects.sqlite import insert
from sqlalchemy.exc import DatabaseError, OperationalError

from taskcred.domain.secret import Secret
from taskcred.errors import (
    ConfigurationError,
    IntegrityError,
    RecordNotFoundError,
    TaskcredError,
    VaultSealedError,
    VaultUnreachableError,
    WrongMasterKeyError,
)
from taskcred.store.engine import sqlite_engine
from taskcred.vaults import sealed as sealed_record
from taskcred.vaults.failures import Failures
from taskcred.vaults.master_key import MasterKey, MasterKeyFile

metadata: Final = sa.MetaData()
data_keys = sa.Table("data_keys", metadata, sa.Column("id", sa.Integer, primary_key=True))
wraps = sa.Table(
    "wraps",
    metadata,
    sa.Column("data_key_id", sa.ForeignKey("data_keys.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("master_key_id", sa.String(16), primary_key=True),
    sa.Column("wrapped", sa.LargeBinary, nullable=False),
)
records = sa.Table(
    "records",
    metadata,
    sa.Column("path", sa.String, primary_key=True),
    # The database refuses to drop a data key while a record needs it.
    sa.Column("data_key_id", sa.ForeignKey("data_keys.id"), nullable=False, index=True),
    sa.Column("sealed", sa.LargeBinary, nullable=False),
)
rewraps = sa.Table(
    "rewraps",  # at most one row: the master key that an unfinished rewrap moves to
    metadata,
    sa.Column("target_master_key_id", sa.String(16), primary_key=True),
)


@dataclass(frozen=True, slots=True)
class VaultStatus:
    """For people who look after the vault: ids and numbers."""

    records: int
    data_key_ids: tuple[int, ...]
    master_key_ids: tuple[str, ...]  # that open the vault; two while a rewrap is unfinished
    rewrap_target: str | None  # the master key an unfinished rewrap moves to


class EmbeddedVault:
    """Implements `ports.Vault`. Safe to use from many threads and processes at once.

    The first start makes the master key (the default file only) and then the database, in this order, so
    a database without its key is always a loss and refused. Raises ConfigurationError or
    WrongMasterKeyError; nothing was changed then.
    """

    def __init__(self, database: Path, master_key: MasterKeyFile) -> None:
        if master_key.is_ours and not database.exists():
            master_key.create()
        key = master_key.read()
        self._master_key = master_key
        self._failures = Failures()
        self._engine = open_database(database)
        try:
            with self._writing() as connection:
                _initialise(connection, key)
                self._ciphers: Mapping[int, AESGCM] = load_keyset(connection, master_key)
        except TaskcredError:
            self.close()
            raise

    def close(self) -> None:
        """Give the database's connections back."""
        self._engine.dispose()

    def store(self, path: str, secret: Secret) -> None:
        """See `ports.Vault`; likewise the methods below."""
        with self._writing() as connection:
            key_id = newest_data_key(connection)
            put(connection, self._with_key(connection, key_id)[key_id], key_id, path, secret)

    def store_once(self, path: str, secret: Secret) -> Secret:
        with self._writing() as connection:
            held = self._find(connection, path)
            if held is None:
                key_id = newest_data_key(connection)
                put(connection, self._with_key(connection, key_id)[key_id], key_id, path, secret)
        return secret if held is None else held

    def open(self, path: str) -> Secret:
        with self._reading() as connection:
            held = self._find(connection, path)
            if held is None:
                raise RecordNotFoundError(f"The vault holds no record {path!r}.")
        return held

    def _find(self, connection: sa.Connection, path: str) -> Secret | None:
        found = connection.execute(sa.select(records.c.sealed).where(records.c.path == path)).scalar()
        if found is None:
            return None
        ciphers = self._with_key(connection, sealed_record.key_id_of(found))
        return sealed_record.open_sealed(ciphers, path, found)

    def destroy(self, path: str) -> None:
        with self._writing() as connection:
            connection.execute(records.delete().where(records.c.path == path))

    def paths(self, prefix: str = "") -> list[str]:
        c = records.c
        # Not LIKE: SQLite's takes no notice of case.
        begins = sa.func.substr(c.path, 1, len(prefix)) == prefix
        query = sa.select(c.path).where(c.path >= prefix, begins).order_by(c.path)
        with self._reading() as connection:
            return list(connection.execute(query).scalars())

    def check(self) -> None:
        with self._reading() as connection:
            self._with_key(connection, newest_data_key(connection))

    def failures(self) -> Mapping[str, int]:
        return self._failures.read()

    def status(self) -> VaultStatus:
        """Numbers and ids, for `taskcred doctor` and the like."""
        with self._reading() as connection:
            return VaultStatus(
                connection.execute(sa.select(sa.func.count()).select_from(records)).scalar_one(),
                tuple(connection.execute(sa.select(data_keys.c.id).order_by(data_keys.c.id)).scalars()),
                tuple(connection.execute(sa.select(wraps.c.master_key_id).distinct()).scalars()),
                connection.execute(sa.select(rewraps.c.target_master_key_id)).scalar(),
            )

    def _with_key(self, connection: sa.Connection, key_id: int) -> Mapping[int, AESGCM]:
        """The keyset, loaded again where a rewrap has made a data key we have not met."""
        if key_id not in self._ciphers:
            try:
                self._ciphers = load_keyset(connection, self._master_key)
            except ConfigurationError as error:
                raise VaultSealedError(error.message, hint=error.hint) from error
        if key_id not in self._ciphers:
            raise IntegrityError(
                f"A vault record names data key {key_id}, which does not exist.",
                hint="Stop the server and restore the last good backup.",
            )
        return self._ciphers

    @contextmanager
    def _writing(self) -> Iterator[sa.Connection]:
        with self._failures.counted(), translated(), self._engine.begin() as connection:
            yield connection

    @contextmanager
    def _reading(self) -> Iterator[sa.Connection]:
        with self._failures.counted(), translated(), self._engine.connect() as connection:
            reader = connection.execution_options(read_only=True)
            with reader.begin():
                yield reader


def open_database(path: Path) -> sa.Engine:
    """The vault's file. What is deleted is overwritten, in the file's pages at the next checkpoint."""
    engine = sqlite_engine(path, pool_size=4)

    @sa.event.listens_for(engine, "connect")
    def _overwrite(connection: Any, _record: Any) -> None:
        connection.execute("PRAGMA secure_delete=ON")

    return engine


@contextmanager
def translated() -> Iterator[None]:
    """SQLite's errors in our words."""
    try:
        yield
    except OperationalError as error:
        raise VaultUnreachableError(
            "The vault's database is busy or away.", hint="Try again; `taskcred doctor` tells more."
        ) from error
    except (DatabaseError, sqlite3.DatabaseError) as error:
        raise IntegrityError(
            "The vault's database is damaged.", hint="Stop the server and restore the last good backup."
        ) from error


def _initialise(connection: sa.Connection, key: MasterKey) -> None:
    metadata.create_all(connection)
    if connection.execute(sa.select(data_keys.c.id).limit(1)).first() is None:
        add_data_key(connection, 1, (key,))


def add_data_key(connection: sa.Connection, data_key_id: int, masters: tuple[MasterKey, ...]) -> AESGCM:
    """A fresh data key, wrapped under each of `masters`."""
    raw = AESGCM.generate_key(256)
    connection.execute(data_keys.insert().values(id=data_key_id))
    for master in masters:
        add_wrap(connection, data_key_id, raw, master)
    return AESGCM(raw)


def add_wrap(connection: sa.Connection, data_key_id: int, raw: bytes, master: MasterKey) -> None:
    """`raw` wrapped under `master` too."""
    wrapped = master.wrap(data_key_id, raw, os.urandom(sealed_record.NONCE_SIZE))
    values = {"data_key_id": data_key_id, "master_key_id": master.id, "wrapped": wrapped}
    connection.execute(insert(wraps).values(values).on_conflict_do_nothing())


def newest_data_key(connection: sa.Connection) -> int:
    """The id of the data key that seals."""
    return int(connection.execute(sa.select(sa.func.max(data_keys.c.id))).scalar_one())


def unwrapped_keys(connection: sa.Connection, master_key: MasterKeyFile) -> dict[int, bytes]:
    """Every data key by its id. Raises WrongMasterKeyError where the file's key does not open them all.

    The wraps are read before the file: a rewrap puts the new key into the file before it drops the old
    key's wraps, so whatever we saw of the wraps, the file that we read after it opens them.
    """
    ids = set(connection.execute(sa.select(data_keys.c.id)).scalars())
    found = connection.execute(sa.select(wraps)).all()
    master = master_key.read()
    keys = {
        row.data_key_id: master.unwrap(row.data_key_id, row.wrapped)
        for row in found
        if row.master_key_id == master.id
    }
    if set(keys) != ids:
        wanted = ", ".join(sorted({row.master_key_id for row in found}))
        raise WrongMasterKeyError(
            f"The master key in {master_key.path} (id {master.id}) does not open this vault.",
            hint=f"The vault is wrapped under the key with id {wanted}. Put that file back; nothing was changed.",
        )
    return keys


def load_keyset(connection: sa.Connection, master_key: MasterKeyFile) -> Mapping[int, AESGCM]:
    """The ciphers by data key id; raises as `unwrapped_keys`."""
    return {key_id: AESGCM(raw) for key_id, raw in unwrapped_keys(connection, master_key).items()}


def put(connection: sa.Connection, cipher: AESGCM, key_id: int, path: str, secret: Secret) -> None:
    """Seal `secret` under `path` with the data key given, in the caller's transaction."""
    sealed = sealed_record.seal(cipher, key_id, path, secret, os.urandom(sealed_record.NONCE_SIZE))
    values = {"data_key_id": key_id, "sealed": sealed}
    statement = insert(records).values(path=path, **values)
    connection.execute(statement.on_conflict_do_update(index_elements=["path"], set_=values))
