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
from typing import Any, Final

import httpx
from alembic.config import Config
from alembic.script import ScriptDirectory

from taskcred.config import Settings
from taskcred.data_dir import DataDir
from taskcred.doctor.check import Check
from taskcred.doctor.services import services
from taskcred.doctor.settings import configuration
from taskcred.errors import TaskcredError
from taskcred.jobs import isolation
from taskcred.wiring.trusted import open_embedded, open_trusted, open_vault

_PATIENCE: Final = 5.0  # seconds for one question to a program or server
_AHEAD: Final = timedelta(seconds=5)  # how far the newest record may lie before the clock


def examine(settings: Settings) -> list[Check]:
    """Everything, in the order in which a mistake would spoil what follows."""
    found = [*configuration(settings), *_isolation(settings)]
    files = DataDir(settings.data_dir)
    if not files.records.exists():
        words = f"{files.path} holds nothing yet; the first `taskcred serve` fills it."
        return [*found, Check("data directory", "warning", words)]
    records = _database("records", files.records, "taskcred:store/migrations")
    return [
        *found,
        *_modes(files),
        records,
        _database("identity database", files.iam, "taskcred:iam/migrations"),
        _guarded("vault", lambda: _vault(settings)),
        _guarded("identity provider", lambda: _identity_provider(settings)),
        *(services(settings) if records.state == "ok" else ()),
        _changes(files),
        *_clock(files),
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


def _database(name: str, path: Path, script_location: str) -> Check:
    """The file is sound and of the schema this version knows."""
    config = Config()
    config.set_main_option("script_location", script_location)
    newest = ScriptDirectory.from_config(config).get_current_head()
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
        return Check(
            name,
            "warning",
            f"{path} has schema {present}, this version's is {newest}.",
            "The next `taskcred serve` brings it up to date, unless it was made by a newer version.",
        )
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


def _changes(files: DataDir) -> Check:
    """Whether a change to a credential was given up."""
    rows = _look_up(files.records, "SELECT count(*) FROM intents WHERE state = 'given_up'")
    if rows and rows[0]:
        return Check(
            "changes",
            "warning",
            f"Changes that were given up: {rows[0]}.",
            "`taskcred admin intents` says why; remove the cause, then `taskcred admin retry` them.",
        )
    return Check("changes", "ok", "None was given up.")


def _clock(files: DataDir) -> Iterator[Check]:
    """Tokens, schedules and the audit trail stand and fall with it."""
    now = datetime.now(UTC)
    newest = _newest_event(files.records)
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


def _newest_event(records: Path) -> datetime | None:
    micros = _look_up(records, "SELECT at FROM audit_events ORDER BY id DESC LIMIT 1")
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=micros[0]) if micros else None


def _look_up(records: Path, query: str) -> Any:
    """The first row; None where there is none, or where the records' own check has said what is wrong."""
    try:
        with closing(sqlite3.connect(f"file:{records}?mode=ro", uri=True, timeout=_PATIENCE)) as connection:
            return connection.execute(query).fetchone()
    except sqlite3.DatabaseError:
        return None


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
