"""A platform on Celery: a real server, a real Redis, workers as processes, owners who gave grants."""

from __future__ import annotations

import importlib.util
import json
import os
import secrets
import shutil
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from taskcred.adapters import celery as adapter
from taskcred.client import Client
from taskcred.clock import SystemClock
from taskcred.domain.secret import Secret
from taskcred.iam.operator import Operator
from tests.support.server import Person, Server, SignedIn, eventually

HERE = Path(__file__).parent
CATALOGUE = """
[tasks.inventory]
kind = "external"
title = "List my API keys"

[tasks.inventory.parameters]
type = "object"
required = ["number"]
additionalProperties = false
properties.number = { type = "integer" }
"""


class PlainServer(Server):
    """Over http: its clients need not read the public authorities, which takes longer than a request."""

    @property
    def verify(self) -> bool:
        return False


@pytest.fixture(scope="session")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A Redis server of our own."""
    program = shutil.which("redis-server")
    if program is None:
        pytest.skip("redis-server is not on PATH: apt-get install redis-server")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    directory = tmp_path_factory.mktemp("redis")
    with (directory / "redis.log").open("w") as log:
        process = subprocess.Popen(
            [program, "--bind", "127.0.0.1", "--port", str(port), "--dir", str(directory), "--save", ""],
            stdout=log,
            stderr=log,
        )
    eventually(lambda: _listens(port), "Redis listens")
    yield f"redis://127.0.0.1:{port}/0"
    process.terminate()
    process.wait(20)


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@dataclass
class Owner:
    """A person with a task credential, who granted the platform their work."""

    signed_in: SignedIn
    credential_id: str | None
    grant_id: str

    @property
    def iam_id(self) -> str:
        return self.signed_in.person.iam_id


@dataclass
class Platform:
    """What a platform has: a server, its service file, its tasks, its workers."""

    server: Server
    client: Client
    service_id: str
    jobs: ModuleType
    environment: dict[str, str]
    directory: Path = Path()  # where jobs leave notes and workers log
    workers: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def log(self) -> str:
        """What the workers said."""
        return "".join(path.read_text() for path in sorted(self.directory.glob("worker*.log")))

    def owners(self, count: int, *, with_credential: bool = True) -> list[Owner]:
        """New people, signed in, each with a generated key and a grant for this platform."""
        people = []
        with Operator(self.server.data_dir / "iam.db", SystemClock()) as operator:
            for number in range(count):
                email, password = (
                    f"owner{number}-{secrets.token_hex(4)}@example.com",
                    secrets.token_urlsafe(18),
                )
                made = operator.create_user(account="Engineering", email=email, password=Secret(password))
                people.append(Person(email, password, made.iam_id, made.account_id))
        with ThreadPoolExecutor(4) as threads:
            return list(threads.map(lambda person: self._owner(person, with_credential), people))

    def _owner(self, person: Person, with_credential: bool) -> Owner:
        signed_in = self.server.sign_in(person)
        credential_id = create_credential(signed_in) if with_credential else None
        granted = signed_in.request(
            "POST", "/v1/grants", json={"service_id": self.service_id, "tasks": ["inventory"]}
        )
        assert granted.status_code == 201, granted.text
        return Owner(signed_in, credential_id, granted.json()["id"])

    def start_worker(self, *arguments: str, **environment: str) -> subprocess.Popen[bytes]:
        """A worker that is ready; its log is in `log`."""
        number = len(self.workers)
        log = self.directory / f"worker{number}.log"
        with log.open("wb") as file:
            worker = subprocess.Popen(
                [
                    *(sys.executable, "-m", "celery", "-A", "jobs", "worker", "--loglevel", "INFO"),
                    *(
                        "--hostname",
                        f"worker{number}@here",
                        "--without-gossip",
                        "--without-mingle",
                        *arguments,
                    ),
                ],
                stdout=file,
                stderr=file,
                cwd=HERE,
                env=self.environment | environment,
            )
        self.workers.append(worker)
        eventually(lambda: b" ready." in log.read_bytes(), f"the worker is ready: {log}", within=60)
        return worker

    def clear(self, directory: Path) -> None:
        """End the workers and forget what they had to do; the next ones work in `directory`."""
        for worker in self.workers:
            worker.kill()
            worker.wait()
        self.workers.clear()
        self.jobs.app.backend.client.flushdb()
        self.directory = directory
        self.environment["JOBS_DIRECTORY"] = str(directory)

    def ends(self, result: Any, within: float = 30) -> Any:
        """The run of a sent task, once it has ended."""
        return eventually(
            lambda: (run := self.client.run(result.run.id)).is_final and run, "the run ends", within
        )

    def key(self, attempt: int, within: float = 30) -> tuple[int, Secret]:
        """What the job `long` left in its attempt of that number: its process and its stand-in key."""
        note = self.directory / f"{attempt}.key"
        process, key = eventually(
            lambda: note.exists() and note.read_text().split(), f"attempt {attempt}", within
        )
        return int(process), Secret(key)

    def exchanges(self) -> dict[str, int]:
        """How often the local IAM exchanged keys of each owner: its own count. Stops the server, which writes
        down then what it had counted."""
        self.server.stop()
        with sqlite3.connect(f"file:{self.server.data_dir / 'iam.db'}?mode=ro", uri=True) as database:
            return dict(database.execute("SELECT iam_id, SUM(authn_count) FROM api_keys GROUP BY iam_id"))

    def is_good(self, key: Secret) -> bool:
        """Whether the token endpoint accepts the key."""
        with self.server.client() as client:
            answer = client.post(
                "/identity/token",
                # the one place where the key belongs
                data={"grant_type": "urn:ibm:params:oauth:grant-type:apikey", "apikey": key.reveal()},
            )
        assert answer.status_code in (200, 400), answer.text
        return answer.status_code == 200


def create_credential(signed_in: SignedIn) -> str:
    """A task credential with a key that is made at the identity provider."""
    made = signed_in.request("POST", "/v1/task_credentials", json={"name": "mine", "generate": True})
    assert made.status_code == 201, made.text
    return str(made.json()["id"])


@pytest.fixture(scope="module")
def running(
    redis_url: str, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[Platform]:
    """A platform without workers: for all tests of a module, for a server takes seconds to start. The module's
    CONFIGURATION, if any, is the server's, too."""
    directory = tmp_path_factory.mktemp("platform")
    config = CATALOGUE + getattr(request.module, "CONFIGURATION", "")
    server = PlainServer(directory / "server", config=config)
    file = directory / "service.json"
    with pytest.MonkeyPatch.context() as patch:
        try:
            server.start()
            made = json.loads(
                server.command(
                    *("admin", "service", "create", "platform", "--tasks", "inventory", "--json"),
                    *("--starts-per-minute", "100000", "--file", str(file)),
                    *(
                        "--data-dir",
                        str(server.data_dir),
                        "--config",
                        str(server.directory / "taskcred.toml"),
                    ),
                )
            )
            told = {
                "TASKCRED_SERVICE_FILE": str(file),
                "TASKCRED_URL": server.url,
                "REDIS_URL": redis_url,
                "JOBS_DIRECTORY": str(directory),
            }
            for name, value in told.items():
                patch.setenv(name, value)
            with Client() as client:
                platform = Platform(server, client, made["client_id"], _load_jobs(), dict(os.environ))
                yield platform
                platform.jobs.inventory.taskcred.close()
                platform.jobs.app.close()
        finally:
            adapter._client.cache_clear()  # the next module has another server
            server.stop()


@pytest.fixture
def platform(running: Platform, tmp_path: Path) -> Iterator[Platform]:
    """The platform, with a Redis that is empty and no workers yet."""
    running.clear(tmp_path)
    yield running
    running.clear(tmp_path)


def _load_jobs() -> ModuleType:
    """jobs.py as it is with this environment."""
    spec = importlib.util.spec_from_file_location("jobs", HERE / "jobs.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
