"""Checks of the installation: this machine, the data directory, the parts, the clock, a running server."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import ssl
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import httpx
import sqlalchemy as sa

from taskcred.config import Settings
from taskcred.data_dir import DataDir
from taskcred.doctor.check import Check
from taskcred.doctor.services import services
from taskcred.doctor.settings import configuration
from taskcred.errors import TaskcredError
from taskcred.jobs import isolation
from taskcred.store import migrate, postgresql
from taskcred.store import tables as t
from taskcred.wiring.common import open_records
from taskcred.wiring.trusted import open_embedded, open_trusted, open_vault

_PATIENCE: Final = 5.0  # seconds for one question to a program or server
_AHEAD: Final = timedelta(seconds=5)  # how far the newest record may lie before the clock


def examine(settings: Settings) -> list[Check]:
    """Everything, in the order in which a mistake would spoil what follows."""
    found = [*configuration(settings), *_isolation(settings)]
    files = DataDir(settings.data_dir)
    if not files.iam.exists():
        words = f"{files.path} holds nothing yet; the first `taskcred serve` fills it."
        return [*found, Check("data directory", "warning", words)]
    records = (
        _guarded("records", lambda: _postgresql(settings))
        if settings.database.url
        else _database("records", files.records, migrate.RECORDS)
    )
    return [
        *found,
        *_modes(files),
        records,
        _database("identity database", files.iam, "taskcred:iam/migrations"),
        _guarded("vault", lambda: _vault(settings)),
        _guarded("identity provider", lambda: _identity_provider(settings)),
        *(services(settings) if records.state == "ok" else ()),
        *(_of_records(settings) if records.state != "failed" else ()),
        _server(files),
    ]


def _guarded(name: str, look: Callable[[], Check]) -> Check:
    """What `look` finds; an error of ours is what it found."""
    try:
        return look()
    except TaskcredError as error:
        return Check(name, "failed", error.message, error.hint)


def _isolation(settings: Settings) -> Iterator[Check]:
    try:
        chosen = isolation.choose(settings.jobs.isolation, settings.jobs.user)
    except TaskcredError as error:
        yield Check("isolation", "failed", error.message, error.hint)
        return
    match chosen.kind:
        case "refused":
            yield Check("isolation", "failed", chosen.words, "Without it only http tasks run.")
        case "none":
            yield Check("isolation", "warning", chosen.words, "Install bubblewrap, then remove the setting.")
        case _:
            yield Check("isolation", "ok", chosen.words)


def _modes(files: DataDir) -> Iterator[Check]:
    """The directory and everything secret in it belong to one user, and nobody else may look."""
    wrong = []
    for path in [files.path, *sorted(files.path.iterdir())]:
        status = path.lstat()
        if status.st_uid != os.geteuid():
            wrong.append(
                Check(
                    "file modes", "failed", f"{path} belongs to another user.", f"chown {os.geteuid()} {path}"
                )
            )
        elif path.is_file() and status.st_mode & 0o077 and path.suffix != ".toml":
            wrong.append(Check("file modes", "failed", f"{path} is open to others.", f"chmod 600 {path}"))
    if files.path.stat().st_mode & 0o077:
        wrong.append(
            Check("file modes", "failed", f"{files.path} is open to others.", f"chmod 700 {files.path}")
        )
    yield from wrong or [Check("file modes", "ok", f"{files.path} is closed to others.")]


def _postgresql(settings: Settings) -> Check:
    """The database answers, can hold the records, and has the schema this version knows."""
    engine = open_records(settings)
    name = f"PostgreSQL's database {engine.url.database!r}"
    try:
        postgresql.verify(engine)
        with engine.connect() as connection:
            version = connection.exec_driver_sql("SHOW server_version").scalar_one()
            if not sa.inspect(connection).has_table("alembic_version"):
                return Check("records", "failed", f"{name} holds none.", "Run `taskcred db migrate`.")
            present = connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalar_one()
    except sa.exc.DBAPIError as error:
        # The driver's words name host, role and database, and no password.
        return Check("records", "failed", f"{name}: {error.orig}", "Look at database.url; is PostgreSQL up?")
    finally:
        engine.dispose()
    newest = migrate.newest()
    if present != newest:
        return _of_another_release("records", name, present, newest)
    return Check("records", "ok", f"{name} answers, version {version}.")


def _of_another_release(name: str, where: object, present: str, newest: str) -> Check:
    return Check(
        name,
        "warning",
        f"{where} has schema {present}, this version's is {newest}.",
        "The next `taskcred serve` brings it up to date, unless it was made by a newer version.",
    )


def _database(name: str, path: Path, script_location: str) -> Check:
    """The file is sound and of the schema this version knows."""
    newest = migrate.newest(script_location)
    try:
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=_PATIENCE)) as connection:
            verdict = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
            present = connection.execute("SELECT version_num FROM alembic_version").fetchone()[0]
    except sqlite3.OperationalError as error:
        return Check(
            name, "failed", f"{path} cannot be opened: {error}.", "Check that it exists and is yours."
        )
    except sqlite3.DatabaseError as error:
        return Check(
            name, "failed", f"{path} is damaged: {error}.", "Stop the server; restore the last backup."
        )
    if verdict != "ok":
        return Check(
            name, "failed", f"{path} is damaged: {verdict}.", "Stop the server; restore the last backup."
        )
    if present != newest:
        return _of_another_release(name, path, present, newest)
    return Check(name, "ok", f"{path} is sound.")


def _vault(settings: Settings) -> Check:
    if settings.vault.kind == "openbao":
        openbao = settings.vault.openbao
        open_vault(settings).close()
        return Check("vault", "ok", f"{openbao.address} lets us in, and the mount {openbao.mount} will do.")
    with closing(open_embedded(settings)) as embedded:
        embedded.check()
        status = embedded.status()
    if status.rewrap_target is not None:
        return Check(
            "vault",
            "warning",
            f"A rewrap to the master key {status.rewrap_target} is unfinished.",
            "Run `taskcred vault rewrap` again.",
        )
    return Check("vault", "ok", f"The master key opens it; it holds {status.records} records.")


def _identity_provider(settings: Settings) -> Check:
    # Where nobody reaches the server its name does not matter: the local IAM answers in this process.
    url = settings.server.public_url or "http://localhost"
    named = settings.server.model_copy(update={"public_url": url})
    trusted = open_trusted(settings.model_copy(update={"server": named}))
    try:
        trusted.ctx.provider.check()
    finally:
        trusted.iam.close()
        trusted.ctx.store.engine.dispose()
    return Check("identity provider", "ok", "The local IAM publishes its keys.")


def _of_records(settings: Settings) -> Iterator[Check]:
    """What the records say; their own check has found them sound."""
    engine = open_records(settings)
    try:
        with engine.connect() as connection:
            given_up = sa.select(sa.func.count()).where(t.intents.c.state == "given_up")
            yield _changes(connection.execute(given_up).scalar_one())
            latest = sa.select(t.audit_events.c.at).order_by(t.audit_events.c.id.desc()).limit(1)
            yield from _clock(connection.execute(latest).scalar())
    finally:
        engine.dispose()


def _changes(given_up: int) -> Check:
    """Whether a change to a credential was given up."""
    if given_up:
        return Check(
            "changes",
            "warning",
            f"Changes that were given up: {given_up}.",
            "`taskcred admin intents` says why; remove the cause, then `taskcred admin retry` them.",
        )
    return Check("changes", "ok", "None was given up.")


def _clock(newest: datetime | None) -> Iterator[Check]:
    """Tokens, schedules and the audit trail stand and fall with it; `newest` is the newest record's time."""
    now = datetime.now(UTC)
    if newest is not None and newest > now + _AHEAD:
        yield Check(
            "clock",
            "failed",
            f"It shows {now:%Y-%m-%d %H:%M:%S} UTC, but the newest record is of {newest:%Y-%m-%d %H:%M:%S}.",
            "Set the clock right before anything else: tokens and schedules follow it.",
        )
        return
    if _is_synchronized() is False:
        yield Check(
            "clock",
            "warning",
            "The system says it is not synchronized.",
            "Turn on time synchronization (timedatectl set-ntp true).",
        )
        return
    yield Check("clock", "ok", f"It shows {now:%Y-%m-%d %H:%M:%S} UTC.")


def _is_synchronized() -> bool | None:
    """What systemd says about it; None where there is no systemd to ask."""
    program = shutil.which("timedatectl")
    if program is None:
        return None
    try:
        answer = subprocess.run(  # noqa: S603 - a fixed program and arguments
            [program, "show", "--property=NTPSynchronized", "--value"],
            capture_output=True,
            text=True,
            timeout=_PATIENCE,
            check=False,
        ).stdout.strip()
    except subprocess.TimeoutExpired:
        return None
    return {"yes": True, "no": False}.get(answer)


def _server(files: DataDir) -> Check:
    """Whether one serves this directory, and what it says of itself."""
    try:
        said = json.loads(files.server.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return Check("server", "ok", "None runs on this data directory now.")
    own = files.own_certificate
    context = ssl.create_default_context(cafile=str(own)) if own.exists() else True
    url = f"{said['url']}/readyz"
    try:
        parts = httpx.get(url, timeout=_PATIENCE, verify=context).json()["parts"]
    except (httpx.TransportError, ValueError) as error:
        return Check(
            "server",
            "failed",
            f"{files.server} says one runs, but {url} does not answer: {error}.",
            f"Start `taskcred serve` again; if it did not end by itself, its log says why. (Process {said['pid']}.)",
        )
    bad = {name: state for name, state in parts.items() if state != "ok"}
    if bad:
        words = ", ".join(f"{name} {state}" for name, state in bad.items())
        return Check(
            "server", "failed", f"{said['url']} is degraded: {words}.", "docs/errors.md explains the codes."
        )
    return Check("server", "ok", f"{said['url']} is ready.")
