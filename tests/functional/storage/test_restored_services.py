"""Services after a restore: what was taken from them since stays away; without the log nobody is let in."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Protocol

import pytest

from taskcred.backup import backup, restore
from taskcred.config import Settings
from taskcred.domain.secret import Secret
from taskcred.domain.services import ServiceState
from taskcred.errors import ForbiddenError, InvalidTokenError
from taskcred.services import federation, registry, service_secrets
from taskcred.services.context import Context
from taskcred.services.federation import NewTrust
from taskcred.services.registry import Created, NewService
from taskcred.services.sessions import Visit
from taskcred.store import audit

OPERATOR = audit.OPERATOR


class Installation(Protocol):
    settings: Settings
    ctx: Context


Opened = Callable[[Settings], Installation]


def register(ctx: Context, name: str) -> Created:
    made = registry.create(ctx, OPERATOR, NewService(name, ()))
    trust = NewTrust("https://issuer.example", name, "https://taskcred.test")
    federation.add_trust(ctx, OPERATOR, made.service.id, trust)
    return made


def restored(before: Installation, target: Path, opened: Opened) -> Installation:
    data_dir = before.settings.data_dir.with_name("after")
    data_dir.mkdir(mode=0o700)
    shutil.copy2(before.settings.data_dir / "master.key", data_dir / "master.key")
    settings = Settings(data_dir=data_dir, revocations_dir=before.settings.revocations_dir)
    restore(settings, target)
    return opened(settings)


def log_in(ctx: Context, made: Created, secret: Secret | None = None) -> str:
    return service_secrets.authenticate(ctx, made.service.id, secret or made.secret, Visit()).iam_id


@pytest.mark.promise("at-once")
def test_what_was_taken_away_since_stays_away(before: Installation, opened: Opened, tmp_path: Path) -> None:
    ended, rotated, same = (register(before.ctx, name) for name in ("ended", "rotated", "same"))
    backup(before.settings, tmp_path / "then.tar")
    registry.end(before.ctx, OPERATOR, ended.service.id)
    service_secrets.rotate(before.ctx, OPERATOR, rotated.service.id, overlap=timedelta(0))
    trusted = registry.get(before.ctx, OPERATOR, rotated.service.id)[0].trusts
    federation.end_trust(before.ctx, OPERATOR, rotated.service.id, trusted[0].id)

    after = restored(before, tmp_path / "then.tar", opened).ctx
    for gone in (ended, rotated):
        with pytest.raises(InvalidTokenError):
            log_in(after, gone)
    assert [(each.name, len(each.trusts)) for each in registry.list_own(after, OPERATOR)] == [
        ("rotated", 0),
        ("same", 1),
    ]
    assert log_in(after, same) == f"service:{same.service.id}"


@pytest.mark.promise("empty-means-no")
def test_without_the_log_services_come_back_disabled(
    before: Installation, opened: Opened, tmp_path: Path
) -> None:
    made = register(before.ctx, "notebook")
    backup(before.settings, tmp_path / "then.tar")
    assert before.settings.revocations_dir
    (before.settings.revocations_dir / "revocations.jsonl").unlink()
    after = restored(before, tmp_path / "then.tar", opened).ctx
    with pytest.raises(ForbiddenError):
        log_in(after, made)
    assert registry.list_own(after, OPERATOR)[0].state is ServiceState.DISABLED
    registry.enable(after, OPERATOR, made.service.id)
    assert log_in(after, made)
