"""What a real server does without its master key, and while its records are out of reach."""

from __future__ import annotations

import fcntl
import hashlib
import json
import shutil
import sqlite3
import struct
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.support.server import COMMAND, Server, SignedIn, eventually

GRACE = 6  # seconds
CONFIG = f"""
[tokens]
outage_grace = {GRACE}

[jobs]
isolation = "none"

[tasks.hold]
kind = "command"
argv = ["/bin/sh", "-c", "echo $IBMCLOUD_API_KEY > $0; sleep 600", "{{file}}"]
parameters = {{ type = "object", required = ["file"], properties = {{ file = {{ type = "string" }} }} }}
"""
GRANT = "urn:ibm:params:oauth:grant-type:apikey"


def digests(directory: Path) -> dict[str, str]:
    """What is kept; not the files that only say who is at work."""
    passing = {"serve.lock", "server.json", "worker.lock", "epoch"}
    return {
        str(path.relative_to(directory)): hashlib.sha256(_content(path)).hexdigest()
        for path in sorted(directory.rglob("*"))
        if path.is_file() and path.name not in passing and not path.name.endswith(("-wal", "-shm"))
    }


def _content(path: Path) -> bytes:
    if path.suffix != ".db":
        return path.read_bytes()
    # Not the file's bytes: SQLite moves what was committed from the write-ahead log whenever a file is closed.
    with closing(sqlite3.connect(path)) as connection:
        return "\n".join(connection.iterdump()).encode()


def wrong(key: Path) -> None:
    key.write_bytes(bytes(byte ^ 1 if byte in b"abcdefgh" else byte for byte in key.read_bytes()))


def missing(key: Path) -> None:
    key.unlink()


@pytest.mark.promise("last-good-key")
@pytest.mark.parametrize("spoil", [wrong, missing])
def test_without_its_master_key_a_server_says_so_and_changes_nothing(
    start_server: Callable[..., Server], spoil: Callable[[Path], None]
) -> None:
    server = start_server()
    person = server.create_person("ada@example.com", api_key=True)
    created = server.sign_in(person).request(
        "POST",
        "/v1/task_credentials",
        json={"name": "mine", "type": "iam_api_key", "secret": {"api_key": person.api_key}},
    )
    assert created.status_code == 201
    server.stop()
    key = server.data_dir / "master.key"
    shutil.copy2(key, server.directory / "kept")
    spoil(key)
    before = digests(server.data_dir)
    refused = subprocess.run(
        [*COMMAND, "serve", "--data-dir", str(server.data_dir), "--port", "0"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert refused.returncode in {7, 8}  # configuration, integrity: docs/cli.md
    assert "master key" in refused.stderr
    assert "What to do" in refused.stderr
    assert digests(server.data_dir) == before

    shutil.copy2(server.directory / "kept", key)
    server.start()
    shown = server.sign_in(person).request("GET", f"/v1/task_credentials/{created.json()['id']}")
    assert shown.json()["state"] == "usable"


class Holder:
    """An owner with a live run, and the stand-in key of its attempt."""

    def __init__(self, server: Server) -> None:
        self.server = server
        person = server.create_person("ada@example.com")
        self.me: SignedIn = server.sign_in(person)
        created = self.me.request(
            "POST", "/v1/task_credentials", json={"name": "mine", "type": "iam_api_key", "generate": True}
        )
        assert created.status_code == 201, created.text
        self.credential_id = created.json()["id"]
        file = server.directory / "stand-in"
        parameters = {"file": str(file)}
        started = self.me.request("POST", "/v1/runs", json={"task": "hold", "parameters": parameters})
        assert started.status_code == 201, started.text
        self.run_id = started.json()["id"]
        self.key = eventually(
            lambda: file.read_text().strip() if file.exists() else "", "the job has its key"
        )

    def ask(self) -> httpx.Response:
        with self.server.client() as client:
            return client.post("/identity/token", data={"grant_type": GRANT, "apikey": self.key})

    def metric(self, name: str) -> float:
        with self.server.client() as client:
            families = text_string_to_metric_families(client.get("/metrics").text)
            (value,) = (
                sample.value for family in families for sample in family.samples if sample.name == name
            )
        return float(value)

    def readiness(self) -> tuple[int, dict[str, str]]:
        with self.server.client() as client:
            answer = client.get("/readyz")
        return answer.status_code, answer.json()["parts"]


@pytest.fixture
def holder(start_server: Callable[..., Server]) -> Iterator[Holder]:
    holder = Holder(start_server(config=CONFIG))
    yield holder
    # Else the server would wait for the job before it stops.
    holder.me.request("POST", f"/v1/runs/{holder.run_id}/cancel")


@pytest.mark.promise("never-interrupted")
def test_a_long_writer_delays_changes_and_no_cached_token(holder: Holder) -> None:
    assert holder.ask().status_code == 200
    with closing(sqlite3.connect(holder.server.data_dir / "records.db", isolation_level=None)) as writer:
        writer.execute("BEGIN EXCLUSIVE")
        until = time.monotonic() + GRACE + 4
        while time.monotonic() < until:
            assert holder.ask().status_code == 200
            time.sleep(0.2)
        assert holder.readiness()[0] == 200  # readers never wait for a writer
        writer.execute("ROLLBACK")
    assert (
        holder.me.request(
            "PATCH",
            f"/v1/task_credentials/{holder.credential_id}",
            json={"name": "renamed"},
            headers={"If-Match": "*"},
        ).status_code
        == 200
    )


@contextmanager
def out_of_reach(records: Path) -> Iterator[None]:
    """Nobody can read or write the records: every lock of SQLite's write-ahead log is taken, as a file system
    that hangs would have it (sqlite.org/walformat.html, section 2.3)."""
    with Path(f"{records}-shm").open("r+b") as shared:
        for byte in range(120, 128):  # write, checkpoint, recover, five readers
            # F_OFD_SETLKW: waits for its turn. `struct flock` of 64-bit Linux.
            wanted = struct.pack("hhqqi4x", fcntl.F_WRLCK, 0, byte, 1, 0)
            fcntl.fcntl(shared, 38, wanted)
        yield


@pytest.mark.promise("at-once")
@pytest.mark.promise("never-interrupted")
def test_out_of_touch_a_server_goes_on_for_its_grace_and_then_fails_closed(holder: Holder) -> None:
    assert holder.ask().status_code == 200
    with out_of_reach(holder.server.data_dir / "records.db"):
        began = time.monotonic()  # the last reading lies before this, by a second or so
        while time.monotonic() < began + GRACE - 3:
            assert holder.ask().status_code == 200
            time.sleep(0.1)
        time.sleep(began + GRACE - time.monotonic())
        refused = holder.ask()
        assert refused.status_code == 503
        assert refused.headers["Retry-After"]
        assert holder.key not in refused.text
        eventually(lambda: holder.readiness()[0] == 503, "readyz says so")
        parts = holder.readiness()[1]
        assert (parts["records"], parts["tokens"]) == ("store_busy", "out_of_touch")
        assert holder.metric("taskcred_in_touch") == 0
    eventually(lambda: holder.readiness()[0] == 200, "it is ready again", within=60)
    eventually(lambda: holder.metric("taskcred_in_touch") == 1, "the metrics say so too")
    eventually(lambda: holder.ask().status_code == 200, "tokens are given out again", within=60)
    # The run went on: neither it nor its key was lost.
    assert holder.me.request("GET", f"/v1/runs/{holder.run_id}").json()["state"] == "running"
    deleted = holder.me.request("DELETE", f"/v1/task_credentials/{holder.credential_id}")
    assert deleted.status_code == 204, json.dumps(deleted.json())
    assert holder.ask().status_code == 400
