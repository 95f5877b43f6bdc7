"""The revocation log."""

from __future__ import annotations

import json
import multiprocessing
from pathlib import Path

import pytest

from taskcred.errors import ConfigurationError, StoreBusyError
from taskcred.revocations import FileRevocationLog, Mark, Revocation, mark, read_since
from taskcred.testing import START, FrozenClock

ENTRY = Revocation("credential", "id-1", "account", "IBMid-1")


def append(log: FileRevocationLog, entry: Revocation = ENTRY) -> None:
    log.append(entry.kind, entry.ref, entry.account_id, entry.iam_id)


def test_a_new_log_is_private_and_names_itself(tmp_path: Path) -> None:
    FileRevocationLog(tmp_path / "log", FrozenClock())
    file = tmp_path / "log" / "revocations.jsonl"
    assert file.stat().st_mode & 0o777 == 0o600
    assert file.parent.stat().st_mode & 0o777 == 0o700
    known = mark(tmp_path / "log")
    assert known
    assert known.size == file.stat().st_size


def test_what_is_appended_is_read_back_with_its_time(tmp_path: Path) -> None:
    log = FileRevocationLog(tmp_path, FrozenClock())
    known = mark(tmp_path)
    append(log)
    assert read_since(tmp_path, known) == [ENTRY]
    last = json.loads((tmp_path / "revocations.jsonl").read_text().splitlines()[-1])
    assert last["at"] == START.isoformat()


def test_opening_again_goes_on_with_the_same_log(tmp_path: Path) -> None:
    append(FileRevocationLog(tmp_path, FrozenClock()))
    known = mark(tmp_path)
    append(FileRevocationLog(tmp_path, FrozenClock()))
    assert read_since(tmp_path, known) == [ENTRY, ENTRY]


def test_half_a_line_is_passed_over_and_swallows_nothing(tmp_path: Path) -> None:
    log = FileRevocationLog(tmp_path, FrozenClock())
    known = mark(tmp_path)
    append(log)
    with (tmp_path / "revocations.jsonl").open("a") as file:
        file.write('{"at":"2026-03-02T09:00:00+00:00","kind":"cred')  # a crash in the middle
    append(log)
    assert read_since(tmp_path, known) == [ENTRY, ENTRY]


@pytest.mark.parametrize("known", [None, Mark("another", 0)])
def test_another_log_or_none_tells_nothing(tmp_path: Path, known: Mark | None) -> None:
    append(FileRevocationLog(tmp_path, FrozenClock()))
    assert read_since(tmp_path, known) is None


def test_a_shorter_log_tells_nothing(tmp_path: Path) -> None:
    log = FileRevocationLog(tmp_path, FrozenClock())
    file = tmp_path / "revocations.jsonl"
    first = file.read_bytes()
    append(log)
    known = mark(tmp_path)
    file.write_bytes(first)
    assert read_since(tmp_path, known) is None
    file.unlink()
    assert read_since(tmp_path, known) is None
    assert mark(tmp_path) is None


def _append_many(directory: Path, name: str) -> None:
    log = FileRevocationLog(directory, FrozenClock())
    for number in range(25):
        log.append("key", f"{name}/{number}", "account", "IBMid-1")


def test_processes_append_to_one_log(tmp_path: Path) -> None:
    spawn = multiprocessing.get_context("spawn")
    processes = [spawn.Process(target=_append_many, args=(tmp_path, name)) for name in "ab"]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    lines = [json.loads(line) for line in (tmp_path / "revocations.jsonl").read_text().splitlines()]
    assert [("log" in line) for line in lines] == [True] + [False] * 50
    assert {line["ref"] for line in lines[1:]} == {
        f"{name}/{number}" for name in "ab" for number in range(25)
    }


def test_a_log_that_cannot_be_made_is_a_refusal_to_start(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigurationError) as refused:
        FileRevocationLog(tmp_path / "file" / "log", FrozenClock())
    assert "revocations_dir" in refused.value.hint


def test_what_cannot_be_logged_is_not_revoked_yet(tmp_path: Path) -> None:
    log = FileRevocationLog(tmp_path / "log", FrozenClock())
    (tmp_path / "log" / "revocations.jsonl").unlink()
    (tmp_path / "log").rmdir()
    with pytest.raises(StoreBusyError):
        append(log)
