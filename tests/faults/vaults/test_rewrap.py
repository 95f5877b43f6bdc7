"""Rewrap under kill -9 and beside processes that serve."""

from __future__ import annotations

import base64
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from taskcred.domain.secret import Secret
from taskcred.errors import ConfigurationError, ConflictError, WrongMasterKeyError
from taskcred.vaults.embedded import EmbeddedVault
from taskcred.vaults.master_key import MasterKeyFile
from taskcred.vaults.rewrap import Rewrapped, rewrap

RECORDS = 250  # three batches
FEW = 5  # three batches of the program that kills itself
PROGRAM = Path(__file__).with_name("killed_rewrap.py")


def key_file(path: Path) -> Path:
    path.touch(mode=0o600)
    path.write_bytes(base64.b64encode(os.urandom(32)))
    return path


def key_of(directory: Path, named: Path | None = None) -> MasterKeyFile:
    return MasterKeyFile.locate(directory, named, {})


def open_vault(directory: Path, named: Path | None = None) -> EmbeddedVault:
    return EmbeddedVault(directory / "vault.db", key_of(directory, named))


def run(directory: Path, new: Path | None = None, *, named: Path | None = None) -> Rewrapped:
    return rewrap(directory / "vault.db", key_of(directory, named), new, lambda _done, _total: None)


def fill(vault: EmbeddedVault, records: int = RECORDS) -> None:
    for number in range(records):
        vault.store(f"credentials/{number}", Secret(f"text {number}"))


def is_whole(vault: EmbeddedVault, records: int = RECORDS) -> bool:
    return all(vault.open(f"credentials/{number}") == Secret(f"text {number}") for number in range(records))


@pytest.fixture
def vault(tmp_path: Path) -> Iterator[EmbeddedVault]:
    opened = open_vault(tmp_path)
    yield opened
    opened.close()


def killed_at(
    directory: Path, step: int, new: Path | None, named: Path | None
) -> subprocess.CompletedProcess[str]:
    environ = {"PATH": os.environ["PATH"]} | ({"TASKCRED_MASTER_KEY_FILE": str(named)} if named else {})
    arguments = [str(PROGRAM), str(directory), str(step), str(new or "")]
    return subprocess.run(
        [sys.executable, *arguments], env=environ, capture_output=True, text=True, check=False
    )


@pytest.mark.slow
@pytest.mark.promise("last-good-key")
@pytest.mark.parametrize("kind", ["fresh key", "given key", "operator's file"])
def test_killed_at_every_step_the_vault_opens_and_the_next_rewrap_finishes(
    tmp_path_factory: pytest.TempPathFactory, kind: str
) -> None:
    step, has_been_killed = 1, True
    while has_been_killed:
        directory = tmp_path_factory.mktemp("vault")
        named = key_file(directory / "operator.key") if kind == "operator's file" else None
        new = None if kind == "fresh key" else key_file(directory / "new.key")
        serving = open_vault(directory, named)
        fill(serving, FEW)
        (old_id,) = serving.status().master_key_ids

        killed = killed_at(directory, step, new, named)
        has_been_killed = killed.returncode == -9
        assert has_been_killed or killed.returncode == 0, killed.stderr

        # Who served all along reads and writes; who starts now does, too.
        assert is_whole(serving, FEW)
        serving.store("written after", Secret(f"step {step}"))
        started = open_vault(directory, named)
        assert is_whole(started, FEW)
        assert started.open("written after") == Secret(f"step {step}")

        done = run(directory, new, named=named) if has_been_killed else None
        if named is not None:
            assert done is None or not done.is_finished
            named.write_bytes(new.read_bytes() if new else b"")  # the operator exchanges the file
            done = run(directory, named=named)
        assert done is None or done.is_finished

        assert is_whole(serving, FEW)
        assert is_whole(started, FEW)
        last = open_vault(directory, named)
        assert is_whole(last, FEW)
        status = last.status()
        assert len(status.data_key_ids) == 1
        assert len(status.master_key_ids) == 1
        assert old_id not in status.master_key_ids
        assert status.rewrap_target is None
        for vault in (serving, started, last):
            vault.close()
        step += 1
    assert step > 8  # the steps were really counted


def test_others_read_and_write_while_records_move(vault: EmbeddedVault, tmp_path: Path) -> None:
    fill(vault)
    other = open_vault(tmp_path)
    is_over = threading.Event()
    trouble: list[Exception] = []
    written: list[str] = []

    def serve() -> None:
        try:
            while not is_over.is_set():
                path = f"new/{len(written)}"
                other.store(path, Secret(path))
                written.append(path)
                assert vault.open(path) == Secret(path)
                assert other.open("credentials/249") == Secret("text 249")
                other.store("credentials/0", Secret("text 0"))
        except Exception as error:  # noqa: BLE001 - told to the test's own thread
            trouble.append(error)

    server = threading.Thread(target=serve)
    server.start()
    for _ in range(3):
        assert run(tmp_path).is_finished
    is_over.set()
    server.join()
    assert trouble == []
    assert written
    assert is_whole(other)
    assert all(vault.open(path) == Secret(path) for path in written)
    other.close()


def test_progress_is_told_from_nothing_to_all(vault: EmbeddedVault, tmp_path: Path) -> None:
    fill(vault)
    told: list[tuple[int, int]] = []
    done = rewrap(
        tmp_path / "vault.db", key_of(tmp_path), None, lambda moved, total: told.append((moved, total))
    )
    assert told == [(0, 250), (100, 250), (200, 250), (250, 250)]
    assert done == Rewrapped(
        250, is_resumed=False, is_finished=True, master_key_id=key_of(tmp_path).read().id
    )


def test_afterwards_the_old_key_opens_nothing(vault: EmbeddedVault, tmp_path: Path) -> None:
    fill(vault)
    old = (tmp_path / "master.key").read_bytes()
    run(tmp_path)
    assert (tmp_path / "master.key").stat().st_mode & 0o777 == 0o600
    assert sorted(p.name for p in tmp_path.iterdir() if "key" in p.name) == ["master.key"]
    (tmp_path / "master.key").write_bytes(old)
    with pytest.raises(WrongMasterKeyError):
        open_vault(tmp_path)
    with pytest.raises(WrongMasterKeyError):
        run(tmp_path)


def test_sealed_bytes_of_before_are_gone_from_the_file(vault: EmbeddedVault, tmp_path: Path) -> None:
    vault.store("a", Secret("text"))
    vault.close()
    before = (tmp_path / "vault.db").read_bytes()
    tail = before[before.index(b"\x01\x00\x00\x00\x01") :][:33]  # the sealed record's own bytes
    run(tmp_path)
    assert tail not in b"".join(path.read_bytes() for path in tmp_path.iterdir())


def test_a_given_key_becomes_the_default_file_and_stays_where_it_was(
    vault: EmbeddedVault, tmp_path: Path
) -> None:
    fill(vault, FEW)
    new = key_file(tmp_path / "given.key")
    assert run(tmp_path, new).is_finished
    assert is_whole(vault, FEW)
    assert (tmp_path / "master.key").read_bytes() == new.read_bytes()


def test_an_operators_file_is_never_written(tmp_path: Path) -> None:
    named, new = key_file(tmp_path / "operator.key"), key_file(tmp_path / "new.key")
    vault = open_vault(tmp_path, named)
    fill(vault)
    before = named.read_bytes()
    assert run(tmp_path, new, named=named) == Rewrapped(250, False, False, MasterKeyFile(new).read().id)
    assert named.read_bytes() == before
    # Until the operator has exchanged it, either key opens the vault.
    for key in (named, new):
        either = open_vault(tmp_path, key)
        assert is_whole(either)
        either.close()
    assert run(tmp_path, named=new) == Rewrapped(0, True, True, MasterKeyFile(new).read().id)
    with pytest.raises(WrongMasterKeyError):
        open_vault(tmp_path, named)
    vault.close()


def test_an_operators_file_needs_a_new_one_named(tmp_path: Path) -> None:
    named = key_file(tmp_path / "operator.key")
    open_vault(tmp_path, named).close()
    with pytest.raises(ConfigurationError) as refused:
        run(tmp_path, named=named)
    assert "--new-key-file" in refused.value.hint


def test_the_key_in_use_is_no_new_key(vault: EmbeddedVault, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="in use already"):
        run(tmp_path, tmp_path / "master.key")
    assert vault.status().rewrap_target is None


def test_an_unfinished_rewrap_wants_its_own_key_back(tmp_path: Path) -> None:
    named, new = key_file(tmp_path / "operator.key"), key_file(tmp_path / "new.key")
    open_vault(tmp_path, named).close()
    run(tmp_path, new, named=named)
    for other in (None, key_file(tmp_path / "third.key")):
        with pytest.raises(ConfigurationError, match="not at hand") as refused:
            run(tmp_path, other, named=named)
        assert MasterKeyFile(new).read().id in refused.value.message


def test_only_one_rewrap_at_a_time(vault: EmbeddedVault, tmp_path: Path) -> None:
    fill(vault)

    def again(moved: int, _total: int) -> None:
        if moved == 100:
            with pytest.raises(ConflictError):
                run(tmp_path)

    assert rewrap(tmp_path / "vault.db", key_of(tmp_path), None, again).is_finished


def test_where_there_is_no_vault_none_is_made(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="no vault"):
        run(tmp_path)
    assert list(tmp_path.iterdir()) == []
