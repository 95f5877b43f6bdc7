"""A PostgreSQL cluster of the tests' own, and a fresh database for each of them."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import uuid
from pathlib import Path
from typing import Final

import psycopg
from psycopg import sql

from taskcred.jobs.queue import migrate_engine
from taskcred.store import migrate
from taskcred.store.postgresql import postgresql_engine
from tests.support.server import eventually

_USER: Final = "taskcred"
_TEMPLATE: Final = "migrated"
# Crashes of a test's cluster lose nothing that anybody wants: no waits for the disk.
_SETTINGS: Final = (
    "fsync=off",
    "synchronous_commit=off",
    "full_page_writes=off",
    "max_connections=200",
    "listen_addresses=",
)


def programs() -> Path | None:
    """Where `initdb` and `postgres` are: Debian keeps them off the PATH."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    on_path = shutil.which("initdb")
    return found[-1].parent if found else Path(on_path).parent if on_path else None


class PostgreSQL:
    """A running cluster on a socket in a directory of its own."""

    def __init__(self) -> None:
        bin_dir = programs()
        assert bin_dir is not None
        self.directory = Path(tempfile.mkdtemp(prefix="taskcred-pg-"))
        self._as = ["setpriv", "--pdeathsig", "INT"]
        if os.geteuid() == 0:  # PostgreSQL refuses to run as root
            shutil.chown(self.directory, "postgres", "postgres")
            self._as += ["--reuid", "postgres", "--regid", "postgres", "--clear-groups"]
        self._data = self.directory / "data"
        self._postgres = bin_dir / "postgres"
        made = [
            *(bin_dir / "initdb", "--pgdata", self._data, "--username", _USER, "--auth", "trust"),
            *("--encoding", "UTF8", "--locale", "C.UTF-8", "--no-sync", "--no-instructions"),
        ]
        subprocess.run([*self._as, *made], check=True, capture_output=True, cwd=self.directory)
        self.start()
        self._execute(f"CREATE DATABASE {_TEMPLATE}")
        engine = postgresql_engine(self.url(_TEMPLATE))
        migrate.upgrade(engine)
        migrate_engine(engine)
        engine.dispose()

    def start(self) -> None:
        """Start it, and wait until it answers."""
        settings = [
            word
            for setting in (*_SETTINGS, f"unix_socket_directories={self.directory}")
            for word in ("-c", setting)
        ]
        with (self.directory / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [*self._as, self._postgres, "-D", self._data, *settings],
                stdout=log,
                stderr=log,
                cwd=self.directory,
            )
        eventually(self._answers, "PostgreSQL answers")

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """Stop it: SIGINT ends sessions and shuts down, SIGQUIT leaves it as a crash does."""
        self._process.send_signal(how)
        self._process.wait(30)

    def remove(self) -> None:
        """Stop it and forget it."""
        self.stop(signal.SIGQUIT)
        shutil.rmtree(self.directory)

    def url(self, database: str) -> str:
        """As `database.url` wants it."""
        return f"postgresql://{_USER}@/{database}?host={self.directory}"

    def create(self, *, encoding: str = "") -> str:
        """The URL of a fresh database: with our tables, or with none in another encoding."""
        name = f"t{uuid.uuid4().hex[:12]}"
        how = f"TEMPLATE template0 LOCALE 'C' ENCODING '{encoding}'" if encoding else f"TEMPLATE {_TEMPLATE}"
        self._execute(f"CREATE DATABASE {name} {how}")
        return self.url(name)

    def empty(self, url: str) -> None:
        """Delete all rows of our tables and the engine's once nobody is at work on them: ten times as fast as a
        fresh database."""
        with psycopg.connect(url) as connection:
            eventually(lambda: self._is_quiet(connection), "nobody else is at work on the database")
            connection.execute("SET session_replication_role = replica")  # in any order, foreign keys or not
            for schema, table in self._tables(connection):
                name = sql.Identifier(schema, table)
                connection.execute(sql.SQL("DELETE FROM {}").format(name))

    def _is_quiet(self, connection: psycopg.Connection) -> bool:
        found = connection.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
            " AND pid != pg_backend_pid() AND backend_type = 'client backend' AND state != 'idle'"
        ).fetchone()
        connection.rollback()  # what is seen of others stays the same for a transaction
        return found == (0,)

    def _tables(self, connection: psycopg.Connection) -> list[tuple[str, str]]:
        found = connection.execute(
            "SELECT schemaname, tablename FROM pg_tables WHERE schemaname IN ('public', 'dbos')"
            " AND tablename NOT IN ('alembic_version', 'dbos_migrations')"
        )
        return found.fetchall()

    def _execute(self, query: str) -> None:
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            connection.execute(query.encode())

    def _answers(self) -> bool:
        try:
            psycopg.connect(self.url("postgres")).close()
        except psycopg.OperationalError:
            return False
        return True
