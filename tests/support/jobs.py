"""What a test of jobs stands on: records with the engine's tables, a loopback server that answers the
worker as web does, an owner with a usable task credential, and real worker processes."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
import uuid
from base64 import b64decode
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from socketserver import ThreadingMixIn
from typing import Any
from urllib.parse import parse_qs
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from taskcred.clock import SystemClock
from taskcred.config import TaskSettings
from taskcred.domain.keytext import is_standin_key
from taskcred.domain.permissions import Authentication, Principal
from taskcred.domain.runs import FINAL_STATES, AttemptView, OutputView, RunState, RunView
from taskcred.domain.secret import Secret
from taskcred.errors import UnavailableError
from taskcred.jobs.catalogue import load_tasks
from taskcred.jobs.queue import DbosQueue, migrate_engine
from taskcred.services import attempts, runs
from taskcred.services.material import path as vault_path
from taskcred.store import tables as t
from taskcred.store.engine import sqlite_engine
from taskcred.testing import InMemoryIdentityProvider, InMemoryVault, interactive, make_context

_PROGRAM = Path(__file__).with_name("worker_process.py")
WORKER = "test"

Environ = dict[str, Any]
StartResponse = Callable[[str, list[tuple[str, str]]], Any]


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class _Quiet(WSGIRequestHandler):
    def log_message(self, *_: object) -> None:
        """Nothing: a test's output is for failures."""


class JobsHost:
    """A host in `directory`. `is_away` makes the server answer 503, as a web without a vault does."""

    def __init__(
        self,
        directory: Path,
        tasks: Mapping[str, dict[str, Any]],
        jobs: Mapping[str, Any] | None = None,
        hidden: Iterable[Path] = (),
    ) -> None:
        directory.mkdir(mode=0o700)
        self.data_dir = directory
        self.is_away = False
        self.begun: list[Secret] = []
        self.requests: list[Environ] = []
        self._hidden = (directory, *hidden)
        self._tasks = dict(tasks)
        self._jobs = {"isolation": "none", "kill_grace": "1s", **(jobs or {})}
        self._secret = uuid.uuid4().hex
        clock = SystemClock()
        self.provider = InMemoryIdentityProvider(clock)
        database = directory / "records.db"
        self.queue = DbosQueue(sqlite_engine(database))
        self._server = make_server("127.0.0.1", 0, self._answer, _Server, _Quiet)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        allow = (*self._jobs.get("http_allow", ()), f"127.0.0.1:{self._server.server_port}")
        self._jobs["http_allow"] = allow
        for task in self._tasks.values():
            if "url" in task:
                task["url"] = task["url"].replace("SERVER", self.url)
        self.ctx = make_context(
            directory,
            clock=clock,
            vault=InMemoryVault(),
            provider=self.provider,
            queue=self.queue,
            tasks=load_tasks({name: TaskSettings(**task) for name, task in self._tasks.items()}, allow),
        )
        migrate_engine(self.ctx.store.engine)
        self.account_id = self.provider.add_account()
        self.iam_id, self.credential_id = self.add_owner()
        threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True
        ).start()
        self.workers: list[subprocess.Popen[str]] = []

    # Owners and their runs.

    def add_owner(self) -> tuple[str, str]:
        """A new owner with a usable task credential: iam_id and credential id."""
        iam_id = self.provider.add_person(self.account_id)
        key = self.provider.add_key(iam_id, self.account_id)
        credential_id, key_id, now = str(uuid.uuid4()), str(uuid.uuid4()), self.ctx.clock.now()
        self.ctx.vault.store(vault_path(credential_id, key_id), key)
        with self.ctx.store.write() as connection:
            connection.execute(
                t.task_credentials.insert().values(
                    id=credential_id,
                    account_id=self.account_id,
                    iam_id=iam_id,
                    name="mine",
                    scope={},
                    state="usable",
                    created_at=now,
                    created_by=iam_id,
                    updated_at=now,
                )
            )
            connection.execute(
                t.keys.insert().values(
                    id=key_id,
                    credential_id=credential_id,
                    name="first",
                    state="active",
                    origin="provided",
                    last_four=key.last_four,
                    created_at=now,
                )
            )
        return iam_id, credential_id

    def principal(self, iam_id: str | None = None) -> Principal:
        """The owner, signed in just now."""
        return interactive(iam_id or self.iam_id, self.account_id, auth_time=self.ctx.clock.now())

    def start(self, task: str, iam_id: str | None = None, **parameters: Any) -> str:
        """Start a run; its id."""
        return runs.start(self.ctx, self.principal(iam_id), task=task, parameters=parameters).id

    def get(self, run_id: str, iam_id: str | None = None) -> RunView:
        """The run as its owner sees it."""
        return runs.get(self.ctx, self.principal(iam_id), run_id)

    def cancel(self, run_id: str) -> None:
        """The owner cancels it."""
        runs.cancel(self.ctx, self.principal(), run_id)

    def attempts(self, run_id: str) -> list[AttemptView]:
        """Its attempts, oldest first."""
        return list(runs.attempts(self.ctx, self.principal(), run_id))

    def output(self, run_id: str, attempt: int | None = None) -> OutputView:
        """All it printed so far."""
        return runs.output(self.ctx, self.principal(), run_id, attempt=attempt)

    def wait(self, run_id: str, states: Iterable[RunState] = FINAL_STATES, timeout: float = 30) -> RunView:
        """The run once it is in one of these states."""
        wanted = set(states)
        return self.until(lambda: (run := self.get(run_id)).state in wanted and run, timeout)

    def until(self, look: Callable[[], Any], timeout: float = 30) -> Any:
        """What `look` answers once that is true; fails the test after `timeout` seconds."""
        end = time.monotonic() + timeout
        while time.monotonic() < end:
            found = look()
            if found:
                return found
            time.sleep(0.05)
        raise AssertionError("it did not happen in time")

    # Workers.

    def start_worker(self, **environment: str) -> subprocess.Popen[str]:
        """A worker process that has said it is ready."""
        worker = self.spawn_worker(**environment)
        assert worker.stdout is not None
        assert worker.stdout.readline() == "ready\n", self.log()
        return worker

    def spawn_worker(self, **environment: str) -> subprocess.Popen[str]:
        """A worker process that may not be ready yet."""
        log = (self.data_dir / f"worker{len(self.workers)}.log").open("w")
        worker = subprocess.Popen(
            [sys.executable, str(_PROGRAM)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            env={"PYTHONPATH": str(Path.cwd()), "PATH": "/usr/bin:/bin", **environment},
        )
        log.close()
        self.workers.append(worker)
        assert worker.stdin is not None
        told = {
            "data_dir": str(self.data_dir),
            "name": WORKER,
            "credential": f"w1:{self._secret}",
            "url": self.url,
            "hidden": [str(path) for path in self._hidden],
            "jobs": self._jobs,
            "tasks": self._tasks,
        }
        worker.stdin.write(json.dumps(told) + "\n")
        worker.stdin.flush()
        return worker

    def log(self) -> str:
        """What the workers logged."""
        return "".join(path.read_text() for path in sorted(self.data_dir.glob("worker*.log")))

    def close(self) -> None:
        """End everything that was started."""
        for worker in self.workers:
            if worker.poll() is None:
                worker.send_signal(signal.SIGINT)
        for worker in self.workers:
            try:
                worker.wait(20)
            except subprocess.TimeoutExpired:
                worker.kill()
                worker.wait()
            for stream in (worker.stdin, worker.stdout):
                if stream is not None:
                    stream.close()
        self._server.shutdown()
        self._server.server_close()
        self.ctx.store.engine.dispose()

    # The server.

    def _answer(self, environ: Environ, start_response: StartResponse) -> list[bytes]:
        length = int(environ.get("CONTENT_LENGTH") or 0)
        body = environ["wsgi.input"].read(length)
        environ["body"] = body
        path = environ["PATH_INFO"]
        if path.startswith("/v1/runs/"):
            status, answer = self._begin(environ, path.split("/")[3], body)
        elif path == "/identity/token":
            status, answer = self._token(body)
        else:
            self.requests.append(environ)
            status, answer = self.serve(environ)
        headers = [("Content-Type", "application/json")]
        if status.startswith("3"):
            headers.append(("Location", self.url))
        start_response(status, headers)
        return [answer if isinstance(answer, bytes) else json.dumps(answer).encode()]

    def serve(self, environ: Environ) -> tuple[str, Any]:
        """What any other path answers; tests of http tasks replace it."""
        return "200 OK", {"got": environ["PATH_INFO"]}

    def _begin(self, environ: Environ, run_id: str, body: bytes) -> tuple[str, Any]:
        scheme, _, given = environ.get("HTTP_AUTHORIZATION", "").partition(" ")
        if scheme != "Basic" or b64decode(given).decode() != f"w1:{self._secret}":
            return "401 Unauthorized", {"code": "invalid_token"}
        if self.is_away:
            return "503 Service Unavailable", {"code": "vault_sealed"}
        worker = Principal(f"worker:{WORKER}", "", Authentication.WORKER)
        try:
            begun = attempts.begin(self.ctx, worker, run_id, json.loads(body)["dispatch_no"])
        except UnavailableError as error:
            return "503 Service Unavailable", {"code": error.error_code}
        if isinstance(begun, attempts.NotBegun):
            return "409 Conflict", {"code": begun.why}
        self.begun.append(begun.standin_key)
        return "201 Created", {
            "attempt_id": begun.attempt_id,
            "number": begun.number,
            "stand_in_key": begun.standin_key.reveal(),
            "task": begun.task,
            "parameters": begun.parameters,
        }

    def _token(self, body: bytes) -> tuple[str, Any]:
        given = parse_qs(body.decode())["apikey"][0]
        if not is_standin_key(given):
            return "400 Bad Request", {"errorCode": "BXNIM0415E"}
        return "200 OK", {"access_token": self.access_token}

    access_token = "an-access-token-of-the-owner"
