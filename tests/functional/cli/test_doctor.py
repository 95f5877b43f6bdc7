"""`taskcred doctor` on sound and on spoilt data directories."""

from __future__ import annotations

import base64
import os
import secrets
import sqlite3
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from taskcred import config, doctor
from taskcred.config import Settings
from taskcred.domain.tasks import Task, TaskKind
from taskcred.services import federation, registry
from taskcred.store import audit, events
from taskcred.store.engine import Store, sqlite_engine
from taskcred.store.epoch import Epoch
from taskcred.testing import InMemoryVault
from taskcred.wiring.prepare import prepare
from taskcred.wiring.worker import build_worker_context


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    for name in [name for name in os.environ if name.startswith("TASKCRED_")]:
        monkeypatch.delenv(name)
    found = config.load(None, tmp_path / "data", server={"public_url": "http://127.0.0.1:8300"})
    prepare(found)
    return found


def states(settings: Settings) -> dict[str, str]:
    return {check.name: check.state for check in doctor.examine(settings)}


def finding(settings: Settings, name: str) -> doctor.Check:
    found = [check for check in doctor.examine(settings) if check.name == name and check.state != "ok"]
    assert found, states(settings)
    return found[0]


def with_jobs(settings: Settings, **changes: object) -> Settings:
    return settings.model_copy(update={"jobs": settings.jobs.model_copy(update=changes)})


def with_server(settings: Settings, **changes: object) -> Settings:
    return settings.model_copy(update={"server": settings.server.model_copy(update=changes)})


def test_a_fresh_directory_is_sound(settings: Settings) -> None:
    found = states(settings)
    assert set(found.values()) <= {"ok", "warning"}
    assert {
        found[name] for name in ("file modes", "records", "identity database", "vault", "identity provider")
    } == {"ok"}


def test_before_the_first_start_nothing_is_wrong(tmp_path: Path) -> None:
    found = states(config.load(None, tmp_path / "none"))
    assert found["data directory"] == "warning"
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("name", ["master.key", "records.db", "vault.db", "iam.db", "worker.credential"])
def test_a_file_that_others_can_read_is_found(settings: Settings, name: str) -> None:
    (settings.data_dir / name).chmod(0o644)
    check = finding(settings, "file modes")
    assert check.state == "failed"
    assert name in check.cure


def test_a_missing_and_a_wrong_master_key_are_told_apart(settings: Settings) -> None:
    key = settings.data_dir / "master.key"
    key.write_bytes(base64.b64encode(secrets.token_bytes(32)))
    wrong = finding(settings, "vault")
    key.unlink()
    missing = finding(settings, "vault")
    assert (wrong.state, missing.state) == ("failed", "failed")
    assert wrong.words != missing.words
    assert "missing" in missing.words


@pytest.mark.parametrize(("file", "name"), [("records.db", "records"), ("iam.db", "identity database")])
def test_a_damaged_database_is_found(settings: Settings, file: str, name: str) -> None:
    path = settings.data_dir / file
    for extra in settings.data_dir.glob(f"{file}-*"):
        extra.unlink()
    path.write_bytes(b"this is no database, and never was" * 100)
    assert finding(settings, name).state == "failed"


def test_a_schema_of_another_version_is_told(settings: Settings) -> None:
    with closing(sqlite3.connect(settings.data_dir / "records.db")) as connection, connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    assert "9999" in finding(settings, "records").words


def test_a_clock_behind_the_records_is_found(settings: Settings) -> None:
    store = Store(sqlite_engine(settings.data_dir / "records.db"), Epoch(settings.data_dir / "epoch"))
    event = audit.Event("credential:create", "success", audit.OPERATOR, "a", "i", "credential", "c")
    with store.write() as connection:
        audit.append(connection, event, datetime.now(UTC) + timedelta(hours=1))
    store.engine.dispose()
    assert finding(settings, "clock").state == "failed"


def test_a_server_that_died_is_noticed(settings: Settings) -> None:
    (settings.data_dir / "server.json").write_text('{"url": "http://127.0.0.1:9", "pid": 1}')
    (settings.data_dir / "server.json").chmod(0o600)
    assert finding(settings, "server").state == "failed"


def test_isolation_that_is_off_or_impossible_is_said(settings: Settings) -> None:
    assert finding(with_jobs(settings, isolation="none"), "isolation").state == "warning"
    assert finding(with_jobs(settings, isolation="user", user=None), "isolation").state == "failed"
    assert finding(with_jobs(settings, user="nobody-of-that-name"), "isolation").state == "failed"


def test_a_revocation_log_inside_the_backups_is_refused(settings: Settings) -> None:
    changed = settings.model_copy(update={"revocations_dir": settings.data_dir / "revocations"})
    assert finding(changed, "revocations_dir").state == "failed"


def test_jobs_must_not_be_shown_the_data_directory(settings: Settings) -> None:
    for path in (settings.data_dir, settings.data_dir.parent, settings.data_dir / "jobs"):
        assert finding(with_jobs(settings, readable=(path,)), "jobs.readable").state == "failed"


def test_http_beyond_this_machine_is_warned_of(settings: Settings) -> None:
    assert (
        finding(with_server(settings, public_url="http://taskcred.example.org"), "public URL").state
        == "warning"
    )
    assert finding(with_server(settings, public_url="taskcred.example.org"), "public URL").state == "failed"


def test_a_key_that_is_not_the_certificates_is_found(settings: Settings, tmp_path: Path) -> None:
    from taskcred.roles.certificates import self_signed

    one, two = self_signed(tmp_path / "one", "localhost"), self_signed(tmp_path / "two", "localhost")
    mixed = with_server(settings, tls_cert=one.certificate, tls_key=two.key)
    assert finding(mixed, "server.tls_key").state == "failed"
    assert "server.tls_key" not in states(with_server(settings, tls_cert=one.certificate, tls_key=one.key))


def test_a_task_that_cannot_work_is_found(settings: Settings) -> None:
    task = config.TaskSettings(kind="command", argv=())
    assert "argv" in finding(settings.model_copy(update={"tasks": {"empty": task}}), "tasks").words


def test_what_is_wrong_with_services_is_told(settings: Settings) -> None:
    assert states(settings)["services"] == "ok"
    ctx = build_worker_context(settings)
    ctx = replace(ctx, vault=InMemoryVault(), tasks={"gone": Task("gone", TaskKind.EXTERNAL)})
    new = registry.NewService("notebook", ("gone",), webhook_url="https://a.example/hook")
    service = registry.create(ctx, audit.OPERATOR, new).service
    # Nobody listens there: the port is reserved for nothing that answers.
    trust = federation.NewTrust("http://127.0.0.1:9", "subject", "https://taskcred.test")
    federation.add_trust(ctx, audit.OPERATOR, service.id, trust)
    now = datetime.now(UTC)
    with ctx.store.write() as connection:
        events.insert(connection, service.id, "run.ended", {}, now)
        (event,) = events.after(connection, service.id, 0, 1)
        events.close(connection, event.id, "given_up", now, "The webhook answered with status 500.")
    ctx.store.engine.dispose()
    found = [check for check in doctor.examine(settings) if check.name == "services"]
    assert [check.state for check in found] == ["warning"] * 3
    for check, words in zip(
        found, ("may start gone", "http://127.0.0.1:9 cannot be reached", "status 500"), strict=True
    ):
        assert words in check.words
        assert check.cure
