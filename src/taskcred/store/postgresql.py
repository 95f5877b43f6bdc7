"""The records on PostgreSQL: connections, the lock of writers, and its errors in our words.

SQLite has one writer, and much of what is decided in a write transaction leans on that: nobody changes what
was read before the commit. PostgreSQL has many, so here writers queue up by themselves, on an advisory lock
that lives as long as the transaction (docs/decisions/0006-writers-on-postgresql.md).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final, Literal

import sqlalchemy as sa
from sqlalchemy.exc import ArgumentError, DataError, DBAPIError, OperationalError

from taskcred.errors import ConfigurationError

# One reading transaction sees one state of everything, however many statements it has.
SNAPSHOT: Final = {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}

_WRITERS: Final = 0x7461736B  # "task": the advisory lock of writers; each database has its own
_LOCKS: Final = {
    "alone": f"SELECT pg_advisory_xact_lock({_WRITERS})",
    "shared": f"SELECT pg_advisory_xact_lock_shared({_WRITERS})",
}

# Milliseconds. A writer that stands still (its host is gone, or stopped) holds up all others, so its session is
# ended before their patience is.
_SESSION: Final = {
    "statement_timeout": 30_000,
    "lock_timeout": 20_000,
    "idle_in_transaction_session_timeout": 10_000,
}
_CONNECT: Final[dict[str, Any]] = {
    "connect_timeout": 5,  # seconds
    "application_name": "taskcred",
    "client_encoding": "utf8",
    # A server that is gone without a word is noticed after this many seconds.
    "keepalives_idle": 5,
    "keepalives_interval": 5,
    "keepalives_count": 2,
    "tcp_user_timeout": 15_000,  # milliseconds
}
_PATIENCE: Final = 20.0  # seconds for a connection of the pool, as for SQLite's lock

Meaning = Literal["outdated", "refused", "busy", "unfit"]
_OUTDATED: Final = frozenset({"42P01", "42703", "3F000"})  # no such table, column, schema
_REFUSED: Final = "42501"  # insufficient privilege
# Closed for it idled in a transaction; a standby; a shutdown, a crash or a start of the server.
_AWAY: Final = frozenset({"25P03", "25006", "57P01", "57P02", "57P03"})


def postgresql_engine(url: str, password_file: Path | None = None, *, connections: int = 16) -> sa.Engine:
    """An engine on the database `url` names (`postgresql://user@host/name`), with at most `connections`.

    Raises ConfigurationError where the driver is not installed, the URL is none, or the file cannot be read.
    """
    try:
        where = sa.make_url(url).set(drivername="postgresql+psycopg")
        if password_file is not None:
            where = where.set(password=password_file.read_text(encoding="utf-8").strip())
        engine = sa.create_engine(
            where,
            pool_size=connections,
            max_overflow=0,
            pool_timeout=_PATIENCE,
            pool_pre_ping=True,  # after a restart of the server no request fails for its old connections
            connect_args=_CONNECT
            | {"options": " ".join(f"-c {name}={value}" for name, value in _SESSION.items())},
        )
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            "database.url names PostgreSQL, and its driver psycopg is not installed.",
            hint='Install it: pip install "taskcred[server,postgresql]".',
        ) from error
    except ArgumentError as error:
        raise ConfigurationError(
            "database.url is no URL of a database.", hint='Write "postgresql://user@host/name".'
        ) from error
    except OSError as error:
        raise ConfigurationError(
            f"database.password_file {password_file} cannot be read: {error.strerror}.",
            hint="It holds the password and nothing else, readable by the user that taskcred runs as.",
        ) from error

    @sa.event.listens_for(engine, "begin")
    def _queue_up(connection: sa.Connection) -> None:
        lock = _LOCKS.get(connection.get_execution_options().get("writes", ""))
        if lock is not None:
            connection.exec_driver_sql(lock)

    return engine


def verify(engine: sa.Engine) -> None:
    """Raises ConfigurationError where the database cannot hold the records."""
    with engine.connect() as connection:
        encoding = connection.exec_driver_sql("SHOW server_encoding").scalar_one()
    if encoding != "UTF8":
        raise ConfigurationError(
            f"The database {engine.url.database} has the encoding {encoding}.",
            hint="Make one with UTF8: createdb --encoding=UTF8 --template=template0 taskcred.",
        )


def take_time(connection: sa.Connection) -> None:
    """Let the statements of this transaction take as long as they do: a migration of large tables may."""
    connection.exec_driver_sql("SET LOCAL statement_timeout = 0")


def meaning(error: DBAPIError) -> Meaning | None:
    """What PostgreSQL's error means; None for a bug, or a constraint that the caller relies on."""
    state = getattr(error.orig, "sqlstate", None) or ""
    if state in _OUTDATED:
        return "outdated"
    if state == _REFUSED:
        return "refused"
    if state in _AWAY or error.connection_invalidated or isinstance(error, OperationalError):
        return "busy"
    if isinstance(error, DataError):
        return "unfit"
    return None
