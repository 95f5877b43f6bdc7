"""A wrong, missing, malformed or open master key is a clear refusal that changes nothing."""

from __future__ import annotations

import base64
import multiprocessing
import os
from pathlib import Path

import pytest

from taskcred.domain.secret import Secret
from taskcred.errors import ConfigurationError, IntegrityError, WrongMasterKeyError
from taskcred.vaults.embedded import EmbeddedVault
from taskcred.vaults.master_key import MasterKeyFile


def open_vault(directory: Path, named: Path | None = None) -> EmbeddedVault:
    return EmbeddedVault(directory / "vault.db", MasterKeyFile.locate(directory, named, {}))


def write_key(path: Path, raw: bytes | None = None) -> Path:
    path.touch(mode=0o600)
    path.write_bytes(base64.b64encode(raw or os.urandom(32)))
    return path


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A data directory with a vault that holds one record."""
    vault = open_vault(tmp_path)
    vault.store("a", Secret("text"))
    vault.close()
    return tmp_path


def contents(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def test_the_first_start_makes_a_private_key_and_a_private_database(directory: Path) -> None:
    assert (directory / "master.key").stat().st_mode & 0o777 == 0o600
    assert (directory / "vault.db").stat().st_mode & 0o777 == 0o600
    assert sorted(path.name for path in directory.iterdir()) == ["master.key", "vault.db"]


def test_the_next_start_opens_what_the_first_one_sealed(directory: Path) -> None:
    vault = open_vault(directory)
    assert vault.open("a") == Secret("text")
    vault.close()


def test_a_wrong_key_is_refused_and_nothing_changes(directory: Path) -> None:
    right = (directory / "master.key").read_bytes()
    write_key(directory / "master.key")
    before = contents(directory)
    with pytest.raises(WrongMasterKeyError) as refused:
        open_vault(directory)
    assert "does not open this vault" in refused.value.message
    assert refused.value.hint
    assert contents(directory) == before
    (directory / "master.key").write_bytes(right)
    test_the_next_start_opens_what_the_first_one_sealed(directory)


def test_a_missing_key_is_refused_and_none_is_made(directory: Path) -> None:
    kept = (directory / "master.key").read_bytes()
    (directory / "master.key").unlink()
    before = contents(directory)
    with pytest.raises(ConfigurationError) as refused:
        open_vault(directory)
    assert refused.value.error_code == "master_key_missing"
    assert contents(directory) == before
    write_key(directory / "master.key", base64.b64decode(kept))
    test_the_next_start_opens_what_the_first_one_sealed(directory)


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"\n",
        b"not base64!",
        base64.b64encode(bytes(31)),
        base64.b64encode(bytes(33)),
        bytes(32),
        b"\xff\xfe",
    ],
)
def test_a_malformed_key_is_refused_and_not_repeated(directory: Path, text: bytes) -> None:
    (directory / "master.key").write_bytes(text)
    before = contents(directory)
    with pytest.raises(ConfigurationError) as refused:
        open_vault(directory)
    assert refused.value.error_code == "master_key_malformed"
    assert not text.strip() or repr(text)[2:-1] not in refused.value.message
    assert contents(directory) == before


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644, 0o660])
def test_a_key_that_others_may_read_is_refused(directory: Path, mode: int) -> None:
    (directory / "master.key").chmod(mode)
    with pytest.raises(ConfigurationError) as refused:
        open_vault(directory)
    assert refused.value.error_code == "master_key_too_open"
    assert "chmod 600" in refused.value.hint


def test_a_named_key_file_is_the_operators_and_never_made(tmp_path: Path) -> None:
    named = tmp_path / "elsewhere.key"
    with pytest.raises(ConfigurationError) as refused:
        open_vault(tmp_path, named)
    assert refused.value.error_code == "master_key_missing"
    assert list(tmp_path.iterdir()) == []
    write_key(named)
    open_vault(tmp_path, named).close()
    assert not (tmp_path / "master.key").exists()


def test_where_the_key_is_looked_for(tmp_path: Path) -> None:
    credentials = tmp_path / "credentials"
    credentials.mkdir()
    default = MasterKeyFile.locate(tmp_path, None, {"CREDENTIALS_DIRECTORY": str(credentials)})
    assert default == MasterKeyFile(tmp_path / "master.key", is_ours=True)

    # systemd gives the service's user access by an access list, which reads as group bits.
    write_key(credentials / "master.key").chmod(0o440)
    environ = {"CREDENTIALS_DIRECTORY": str(credentials)}
    by_systemd = MasterKeyFile.locate(tmp_path, None, environ)
    assert by_systemd.path == credentials / "master.key"
    by_systemd.read()

    by_setting = MasterKeyFile.locate(tmp_path, Path("/set"), environ)
    assert by_setting == MasterKeyFile(Path("/set"))
    by_variable = MasterKeyFile.locate(
        tmp_path, Path("/set"), {**environ, "TASKCRED_MASTER_KEY_FILE": "/named"}
    )
    assert by_variable == MasterKeyFile(Path("/named"))


def test_a_file_that_is_no_vault_is_an_integrity_error(directory: Path) -> None:
    (directory / "vault.db").write_bytes(os.urandom(8192))
    with pytest.raises(IntegrityError) as refused:
        open_vault(directory)
    assert "damaged" in refused.value.message


def test_a_vault_copied_over_another_one_is_refused(
    directory: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    other = tmp_path_factory.mktemp("other")
    open_vault(other).close()
    (directory / "vault.db").write_bytes((other / "vault.db").read_bytes())
    with pytest.raises(WrongMasterKeyError):
        open_vault(directory)


def _first_start(directory: Path, number: int) -> None:
    vault = open_vault(directory)
    vault.store(f"record/{number}", Secret(f"text {number}"))
    vault.close()


def test_processes_that_start_first_at_the_same_time_agree(tmp_path: Path) -> None:
    spawn = multiprocessing.get_context("spawn")
    processes = [spawn.Process(target=_first_start, args=(tmp_path, number)) for number in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * 4
    vault = open_vault(tmp_path)
    assert [vault.open(path) for path in vault.paths()] == [Secret(f"text {number}") for number in range(4)]
    vault.close()


def test_texts_do_not_lie_in_the_file(directory: Path) -> None:
    vault = open_vault(directory)
    canary = base64.b64encode(os.urandom(30)).decode()
    vault.store("canary", Secret(canary))
    everything = b"".join(contents(directory).values())  # the write-ahead log too
    vault.close()
    assert b"canary" in everything
    assert canary.encode() not in everything


def test_what_was_destroyed_is_overwritten_in_the_file(directory: Path) -> None:
    vault = open_vault(directory)
    vault.store("to-be-destroyed", Secret("text"))
    vault.destroy("to-be-destroyed")
    vault.close()
    assert b"to-be-destroyed" not in (directory / "vault.db").read_bytes()
