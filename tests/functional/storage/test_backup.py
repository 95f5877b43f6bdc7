"""Backup of a serving installation, and restore: what was ended since stays ended."""

from __future__ import annotations

import io
import json
import secrets
import shutil
import tarfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import pytest
import sqlalchemy as sa

from taskcred.backup import Restored, backup, restore
from taskcred.clock import SystemClock
from taskcred.config import Settings
from taskcred.domain.credentials import CredentialState, CredentialView, Drain, Generated, KeyState, Provided
from taskcred.domain.secret import Secret
from taskcred.errors import ConfigurationError, IntegrityError, KeyRefusedError
from taskcred.iam.app import create_app
from taskcred.iam.operator import Made, Operator
from taskcred.iam.service import LocalIam
from taskcred.services import credentials, intents, tokens
from taskcred.services.context import Context
from taskcred.store import audit
from taskcred.store import tables as t


class Installation(Protocol):
    settings: Settings
    ctx: Context
    iam: LocalIam

    def add_owner(self, name: str) -> Made: ...
    def create(self, owner: Made) -> CredentialView: ...
    def find(self, credential_id: str) -> CredentialView: ...
    def key_states(self, credential_id: str) -> list[KeyState]: ...
    def signed_in(self, owner: Made) -> object: ...


Opened = Callable[[Settings], Installation]


@pytest.fixture(params=["archive.tar", "directory"])
def target(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return tmp_path / request.param


def restored_to(before: Installation, target: Path) -> tuple[Settings, Restored]:
    """Restore into a new data directory, to which the operator has brought the master key."""
    data_dir = before.settings.data_dir.with_name("after")
    data_dir.mkdir(mode=0o700)
    shutil.copy2(before.settings.data_dir / "master.key", data_dir / "master.key")
    settings = Settings(data_dir=data_dir, revocations_dir=before.settings.revocations_dir)
    return settings, restore(settings, target)


def material(before: Installation, credential: CredentialView) -> Secret:
    assert credential.active_key
    return before.ctx.vault.open(f"credentials/{credential.id}/{credential.active_key.id}")


def finish_intents(installation: Installation) -> None:
    while intents.advance_due(installation.ctx, "keeper"):
        pass


def test_everything_comes_back(before: Installation, opened: Opened, target: Path) -> None:
    owner = before.add_owner("ada")
    credential = before.create(owner)
    made = backup(before.settings, target)
    settings, restored = restored_to(before, target)
    after = opened(settings)
    assert after.find(credential.id).state is CredentialState.USABLE
    assert material(after, credential) == material(before, credential)
    tokens.ensure(after.ctx, credential.id)
    assert owner.api_key
    assert after.ctx.provider.exchange(owner.api_key, for_run=False).iam_id == owner.iam_id
    assert restored.master_key_ids == made.master_key_ids
    assert (restored.replayed.has_log, restored.replayed.ended_credentials) == (True, 0)
    assert sorted(path.name for path in settings.data_dir.iterdir() if path.suffix == ".db") == [
        "iam.db", "records.db", "vault.db",
    ]  # fmt: skip


def test_what_was_deleted_since_stays_ended(before: Installation, opened: Opened, target: Path) -> None:
    owner, other = before.add_owner("ada"), before.add_owner("bob")
    credential, untouched = before.create(owner), before.create(other)
    value = material(before, credential)
    backup(before.settings, target)
    credentials.delete(before.ctx, before.signed_in(owner), credential.id)

    settings, restored = restored_to(before, target)
    assert restored.replayed.ended_credentials == 1
    after = opened(settings)
    assert after.find(credential.id).state is CredentialState.ENDED
    with pytest.raises(KeyRefusedError):
        after.ctx.provider.exchange(value, for_run=True)
    finish_intents(after)
    assert after.key_states(credential.id) == [KeyState.DESTROYED]
    assert after.ctx.vault.paths(f"credentials/{credential.id}") == []
    assert after.find(untouched.id).state is CredentialState.USABLE
    tokens.ensure(after.ctx, untouched.id)
    assert after.create(owner).state is CredentialState.USABLE  # one-per-owner is free again


def test_a_key_that_was_rotated_out_since_stays_ended(
    before: Installation, opened: Opened, target: Path
) -> None:
    owner = before.add_owner("ada")
    credential = before.create(owner)
    old = material(before, credential)
    backup(before.settings, target)
    credentials.rotate(
        before.ctx, before.signed_in(owner), credential.id, source=Generated(), drain=Drain("now")
    )
    finish_intents(before)

    settings, restored = restored_to(before, target)
    assert (restored.replayed.ended_credentials, restored.replayed.ended_keys) == (0, 1)
    after = opened(settings)
    found = after.find(credential.id)
    assert found.state is CredentialState.UNUSABLE
    assert found.state_reason
    with pytest.raises(KeyRefusedError):
        after.ctx.provider.exchange(old, for_run=True)
    # The answer is the one any unusable credential has: a new key, in place.
    rotated = credentials.rotate(
        after.ctx, after.signed_in(owner), credential.id, source=Generated(), drain=Drain("now")
    )
    assert rotated.credential.state is CredentialState.USABLE


def test_what_was_ended_in_the_local_iam_since_stays_ended(
    before: Installation, opened: Opened, target: Path
) -> None:
    boss, deleted, disabled, enabled = (before.add_owner(name) for name in ("boss", "ada", "bob", "cy"))
    with Operator(before.settings.data_dir / "iam.db", SystemClock()) as operator:
        robot = operator.create_service_id(account="acme", name="robot", with_api_key=True)
    backup(before.settings, target)
    iam = create_app(before.iam).test_client()
    headers = {"Authorization": f"Bearer {_own_key(before, boss)[1]}"}
    again = _own_key(before, enabled)[0]
    for method, path in (
        ("DELETE", f"apikeys/{_own_key(before, deleted)[0]}"),
        ("POST", f"apikeys/{_own_key(before, disabled)[0]}/disable"),
        ("POST", f"apikeys/{again}/disable"),
        ("DELETE", f"serviceids/{robot.iam_id.removeprefix('iam-')}"),
    ):
        assert iam.open(f"/v1/{path}", method=method, headers=headers).status_code == 204
    assert iam.delete(f"/v1/apikeys/{again}/disable", headers=headers).status_code == 204

    settings, _ = restored_to(before, target)
    after = opened(settings)
    for owner in (deleted, disabled, robot):
        assert owner.api_key
        with pytest.raises(KeyRefusedError):
            after.ctx.provider.exchange(owner.api_key, for_run=False)
    assert _own_key(after, enabled)[0] == again


def test_a_provided_key_that_leaked_stays_disabled(
    before: Installation, opened: Opened, target: Path
) -> None:
    owner = before.add_owner("ada")
    assert owner.api_key
    given = Provided(owner.api_key)
    credential = credentials.create(before.ctx, before.signed_in(owner), name="mine", source=given).credential
    backup(before.settings, target)
    rotating = before.signed_in(owner)
    credentials.rotate(
        before.ctx, rotating, credential.id, source=Generated(), drain=Drain("now"), leaked=True
    )
    finish_intents(before)

    after = opened(restored_to(before, target)[0])
    with pytest.raises(KeyRefusedError):
        after.ctx.provider.exchange(owner.api_key, for_run=False)


def _own_key(installation: Installation, owner: Made) -> tuple[str, str]:
    """The id of the owner's key, and a token made from it."""
    assert owner.api_key
    # The local IAM is asked as a client would ask it.
    token = installation.ctx.provider.exchange(owner.api_key, for_run=False).token
    return installation.ctx.provider.key_details(owner.api_key, token).id, token.reveal()


def _lose(log: Path) -> None:
    log.unlink()


def _replace(log: Path) -> None:
    log.write_text(json.dumps({"log": "another"}) + "\n" + log.read_text() * 2)


def _shorten(log: Path) -> None:
    log.write_bytes(log.read_bytes()[:-1])


@pytest.mark.parametrize("harm", [_lose, _replace, _shorten])
def test_without_the_log_of_that_time_everything_comes_back_locked(
    before: Installation, opened: Opened, target: Path, harm: Callable[[Path], None]
) -> None:
    owner = before.add_owner("ada")
    credential = before.create(owner)
    backup(before.settings, target)
    assert before.settings.revocations_dir
    harm(before.settings.revocations_dir / "revocations.jsonl")

    settings, restored = restored_to(before, target)
    assert (restored.replayed.has_log, restored.replayed.locked) == (False, 1)
    after = opened(settings)
    found = after.find(credential.id)
    assert found.state is CredentialState.LOCKED
    assert "without the log" in (found.state_reason or "")
    assert after.key_states(credential.id) == [KeyState.PHASED_OUT]
    # An operator who knows better lifts the lock.
    credentials.unlock(after.ctx, audit.OPERATOR, credential.id)
    assert after.find(credential.id).state is CredentialState.USABLE
    tokens.ensure(after.ctx, credential.id)


def test_what_lives_briefly_ends_with_a_restore(before: Installation, opened: Opened, target: Path) -> None:
    credential = before.create(before.add_owner("ada"))
    tokens.ensure(before.ctx, credential.id)
    now, digest = before.ctx.clock.now(), secrets.token_bytes(32)
    with before.ctx.store.write() as connection:
        connection.execute(
            t.runs.insert().values(
                id="run", account_id="a", iam_id="i", task="t", parameters={}, state="running", started_by="i", created_at=now
            )
        )  # fmt: skip
        connection.execute(
            t.attempts.insert().values(
                id="attempt", run_id="run", number=1, credential_id=credential.id, executor="w",
                standin_digest=digest, standin_last_four="abcd", started_at=now, heartbeat_at=now,
            )
        )  # fmt: skip
        connection.execute(
            t.sessions.insert().values(
                digest=digest, account_id="a", iam_id="i", auth_time=now, created_at=now, last_seen_at=now,
                token_expires_at=now, sealed_token=b"sealed",
            )
        )  # fmt: skip
    backup(before.settings, target)
    after = opened(restored_to(before, target)[0])
    with after.ctx.store.read() as connection:
        assert connection.execute(sa.select(t.sessions)).all() == []
        assert connection.execute(sa.select(t.access_tokens)).all() == []
        assert connection.execute(sa.select(t.attempts.c.standin_digest)).scalar_one() != digest


def test_a_restore_is_in_the_audit(before: Installation, opened: Opened, target: Path) -> None:
    backup(before.settings, target)
    after = opened(restored_to(before, target)[0])
    with after.ctx.store.read() as connection:
        row = connection.execute(
            sa.select(t.audit_events).where(t.audit_events.c.action == "data:restore")
        ).one()
    assert (row.actor, row.outcome) == ("operator", "success")


@pytest.mark.promise("key-stays-home")
def test_a_backup_holds_no_key_in_the_clear(before: Installation, target: Path) -> None:
    credential = before.create(before.add_owner("ada"))
    backup(before.settings, target)
    files = [target] if target.is_file() else list(target.iterdir())
    everything = b"".join(path.read_bytes() for path in files)
    assert material(before, credential).reveal().encode() not in everything
    assert (before.settings.data_dir / "master.key").read_bytes().strip() not in everything
    assert all(path.stat().st_mode & 0o077 == 0 for path in [target, *files] if path.name != "manifest.json")


def test_a_backup_never_overwrites_and_leaves_nothing_half_made(before: Installation, tmp_path: Path) -> None:
    target = tmp_path / "mine.tar"
    target.write_text("something else")
    with pytest.raises(ConfigurationError, match="exists already"):
        backup(before.settings, target)
    assert target.read_text() == "something else"
    with pytest.raises(ConfigurationError, match="cannot be written"):
        backup(before.settings, tmp_path / "no such place" / "mine.tar")
    with pytest.raises(ConfigurationError, match=r"no vault\.db"):
        backup(Settings(data_dir=tmp_path / "nothing"), tmp_path / "new.tar")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["before", "mine.tar", "revocations"]


def test_a_restore_wants_an_empty_directory(before: Installation, target: Path) -> None:
    backup(before.settings, target)
    with pytest.raises(ConfigurationError) as refused:
        restore(before.settings, target)
    assert refused.value.error_code == "data_dir_not_empty"
    assert not (before.settings.data_dir / ".restore").exists()


@pytest.mark.parametrize("name", ["records.db", "iam.db", "vault.db"])
def test_a_damaged_backup_is_refused_and_leaves_nothing(
    before: Installation, tmp_path: Path, name: str
) -> None:
    target = tmp_path / "backup"
    backup(before.settings, target)
    damaged = bytearray((target / name).read_bytes())
    damaged[len(damaged) // 2] ^= 1
    (target / name).write_bytes(damaged)
    settings = Settings(data_dir=tmp_path / "after")
    with pytest.raises(IntegrityError, match=name):
        restore(settings, target)
    assert list(settings.data_dir.iterdir()) == []


def _nothing(_path: Path) -> None:
    pass


def _no_archive(path: Path) -> None:
    path.write_text("no archive")


def _empty_archive(path: Path) -> None:
    tarfile.open(path, "w").close()


def _odd_manifest(path: Path) -> None:
    with tarfile.open(path, "w") as tar:
        member = tarfile.TarInfo("manifest.json")
        member.size = 4
        tar.addfile(member, io.BytesIO(b"[{}]"))


def _linked_manifest(path: Path) -> None:
    with tarfile.open(path, "w") as tar:
        member = tarfile.TarInfo("manifest.json")
        member.type = tarfile.SYMTYPE
        member.linkname = "/etc/passwd"
        tar.addfile(member)


@pytest.mark.parametrize("make", [_no_archive, _empty_archive, _odd_manifest, _linked_manifest, _nothing])
def test_what_is_no_backup_is_refused_and_leaves_nothing(
    tmp_path: Path, make: Callable[[Path], None]
) -> None:
    make(tmp_path / "backup.tar")
    settings = Settings(data_dir=tmp_path / "after")
    with pytest.raises(ConfigurationError, match="no backup of taskcred"):
        restore(settings, tmp_path / "backup.tar")
    assert list(settings.data_dir.iterdir()) == []


@pytest.mark.promise("last-good-key")
def test_a_backup_amid_changes_is_one_that_a_crash_could_have_left(
    before: Installation, opened: Opened, tmp_path: Path
) -> None:
    """Credentials are created and deleted all the while; in each backup every key that is active can be
    exchanged, and after the keeper's round no other key of ours is alive."""
    owners = [before.add_owner(f"owner{number}") for number in range(2)]
    is_over = threading.Event()

    def change(owner: Made) -> None:
        while not is_over.is_set():
            made = before.create(owner)
            credentials.delete(before.ctx, before.signed_in(owner), made.id)

    changers = [threading.Thread(target=change, args=(owner,)) for owner in owners]
    for thread in changers:
        thread.start()
    targets = [tmp_path / f"backup{number}" for number in range(6)]
    for target in targets:
        backup(before.settings, target)
    is_over.set()
    for thread in changers:
        thread.join()

    for target in targets:
        shutil.rmtree(before.settings.data_dir.with_name("after"), ignore_errors=True)
        # As if nothing had been revoked since: else the log would end everything.
        manifest = json.loads((target / "manifest.json").read_text())
        log = before.settings.data_dir.with_name("log-then") / "revocations.jsonl"
        log.parent.mkdir(exist_ok=True)
        assert before.settings.revocations_dir
        whole = (before.settings.revocations_dir / log.name).read_bytes()
        log.write_bytes(whole[: manifest["revocation_log"]["size"]])
        data_dir = before.settings.data_dir.with_name("after")
        data_dir.mkdir()
        shutil.copy2(before.settings.data_dir / "master.key", data_dir)
        settings = Settings(data_dir=data_dir, revocations_dir=log.parent)
        restore(settings, target)
        after = opened(settings)
        finish_intents(after)
        with after.ctx.store.read() as connection:
            rows = connection.execute(sa.select(t.keys)).all()
        active = [row for row in rows if row.state == KeyState.ACTIVE]
        for row in active:
            value = after.ctx.vault.open(f"credentials/{row.credential_id}/{row.id}")
            assert after.ctx.provider.exchange(value, for_run=True)
        with after.iam.database.read() as connection:
            alive = {row.id for row in connection.execute(sa.text("SELECT id, name FROM api_keys"))}
        pasted = {  # the owners' own, made by the operator
            key.id
            for owner in owners
            if owner.api_key
            for key in [after.ctx.provider.key_details(owner.api_key, after.signed_in(owner).token)]
        }
        assert alive - pasted == {row.provider_key_id for row in active}
