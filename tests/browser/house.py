"""A web server in this process for browser tests: the real app, services and records, with the shipped
in-memory vault and identity provider, so that a test can arrange any state and look at what came of it."""

from __future__ import annotations

import contextlib
import socket
import threading
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

from flask import Flask
from werkzeug.serving import WSGIRequestHandler, make_server

from taskcred.clock import SystemClock
from taskcred.domain.credentials import CredentialState, Generated
from taskcred.domain.grants import GrantView
from taskcred.domain.permissions import Authentication, Principal
from taskcred.domain.runs import Executor, RetryRule, RunView, ScheduleView
from taskcred.domain.secret import Secret
from taskcred.domain.tasks import Task, TaskKind
from taskcred.errors import ConflictError
from taskcred.http.app import create_app
from taskcred.http.authentication import SESSION_ID
from taskcred.services import (
    attempts,
    credentials,
    grants,
    registry,
    reports,
    runs,
    schedules,
    sessions,
    starting,
    tokens,
)
from taskcred.services.broker import TokenBroker
from taskcred.services.context import Context
from taskcred.store import audit
from taskcred.store import credentials as credentials_store
from taskcred.store import runs as run_store
from taskcred.store import tokens as tokens_store
from taskcred.testing import InMemoryIdentityProvider, make_context
from taskcred.web import pages

TASKS: Final[Mapping[str, Task]] = {
    task.name: task
    for task in (
        Task(
            "count-keys",
            TaskKind.COMMAND,
            title="Count my API keys",
            description="Asks the identity provider how many API keys you have.",
            argv=("true",),
        ),
        Task(
            "train",
            TaskKind.COMMAND,
            title="Train a model",
            description="Trains a model on a data set and writes it back to the project.",
            argv=("true",),
            retry=RetryRule(max_attempts=3),
            parameters={
                "type": "object",
                "additionalProperties": False,
                "required": ["data_set", "epochs", "size"],
                "properties": {
                    "data_set": {
                        "type": "string",
                        "title": "Data set",
                        "description": "Name of the data set in your project.",
                        "minLength": 3,
                        "maxLength": 60,
                    },
                    "epochs": {"type": "integer", "minimum": 1, "maximum": 100, "default": 10},
                    "learning_rate": {
                        "type": "number",
                        "title": "Learning rate",
                        "exclusiveMinimum": 0,
                        "maximum": 1,
                    },
                    "size": {"enum": ["small", "medium", "large"], "title": "Machine size"},
                    "until": {"type": "string", "format": "date", "title": "Use data until"},
                    "start_after": {"type": "string", "format": "date-time", "title": "Not before"},
                    "publish": {
                        "type": "boolean",
                        "title": "Publish the result",
                        "description": "Others in your project can use it then.",
                    },
                    "labels": {"type": "array", "items": {"type": "string"}, "title": "Labels"},
                    "notes": {"type": "string", "maxLength": 500, "title": "Notes"},
                    "options": {"type": "object", "title": "More options"},
                },
            },
        ),
    )
}


class _Quiet(WSGIRequestHandler):
    def log(self, type: str, message: str, *args: Any) -> None:  # noqa: A002 - the base class names it so
        """Nothing: a test's output is its own."""


@dataclass(frozen=True, slots=True)
class Resident:
    """A person of a house and one of their accounts, as services see them."""

    iam_id: str
    account_id: str
    principal: Principal


class House:
    """The server at `url`; `ctx` and `provider` are its insides."""

    def __init__(self, directory: Path, tasks: Mapping[str, Task] = TASKS) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        clock = SystemClock()
        self.provider = InMemoryIdentityProvider(clock, url=self.url)
        self.ctx: Context = make_context(
            directory, clock=clock, provider=self.provider, public_url=self.url, tasks=tasks
        )
        self.app: Flask = create_app(
            self.ctx, TokenBroker(self.ctx), secret_key=Secret("k" * 32), cookie_secure=False
        )
        pages.register(self.app, self.ctx)
        self._server = make_server(
            "127.0.0.1",
            0,
            self.app,
            threaded=True,
            request_handler=_Quiet,
            fd=self._socket.fileno(),
        )
        self._thread = threading.Thread(target=self._server.serve_forever, name="house")
        self._thread.start()

    def close(self) -> None:
        """Stop serving."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
        self._socket.close()
        self.ctx.store.engine.dispose()

    def move_in(self, name: str = "Ada Lovelace", *, accounts: int = 1) -> Resident:
        """A new person with that many accounts."""
        ids = [self.provider.add_account(f"Acme {number + 1}") for number in range(accounts)]
        iam_id = self.provider.add_person(*ids, name=name, email="ada@example.test")
        token = self.provider.token(iam_id, ids[0])
        principal = Principal(
            iam_id,
            ids[0],
            Authentication.SESSION,
            auth_time=self.ctx.clock.now(),
            email="ada@example.test",
            name=name,
            token=token.token,
        )
        return Resident(iam_id, ids[0], principal)

    def cookie(self, who: Resident, *, signed_in_ago: timedelta = timedelta(0)) -> dict[str, Any]:
        """The cookie of a browser in which the person signed in so long ago."""
        proved_at = self.ctx.clock.now() - signed_in_ago
        sign_in = self.provider.sign_in(who.iam_id, who.account_id, auth_time=proved_at)
        session_id = sessions.begin(self.ctx, sign_in, sessions.Visit(address="127.0.0.1"))
        serializer = self.app.session_interface.get_signing_serializer(self.app)  # type: ignore[attr-defined]  # of Flask's own class
        # The browser is the one holder of the id.
        value = serializer.dumps({SESSION_ID: session_id.reveal()})
        return {"name": self.app.config["SESSION_COOKIE_NAME"], "value": value, "url": self.url}

    # What a test arranges.

    def give_key(self, who: Resident, name: str = "My nightly reports", purpose: str = "") -> str:
        """The person gets a usable key; the task credential's id."""
        source = Generated(expires_at=self.ctx.clock.now() + timedelta(days=90))
        return credentials.create(
            self.ctx, who.principal, name=name, description=purpose, source=source
        ).credential.id

    def start(self, who: Resident, task: str = "count-keys", **parameters: Any) -> RunView:
        """The person starts a run."""
        return runs.start(self.ctx, who.principal, task=task, parameters=parameters)

    def work_on(self, run_id: str) -> str:
        """A worker begins the run, and its job fetches an access token; the attempt's id."""
        with self.ctx.store.read() as connection:
            row = run_store.find(connection, run_id)
        assert row is not None
        worker = Principal("worker:embedded", "", Authentication.WORKER)
        begun = attempts.begin(self.ctx, worker, run_id, row.dispatch_no)
        assert isinstance(begun, attempts.Begun)
        reports.set_launcher(self.ctx, begun.attempt_id, {"pid": 1, "started": 1}, "bubblewrap")
        # The broker needs the stand-in key's text, as a job would send it.
        TokenBroker(self.ctx).issue(begun.standin_key.reveal().encode())
        return begun.attempt_id

    def rotate(self, who: Resident) -> None:
        """The person rotates their key; the old one is phased out."""
        credential = credentials.list_own(self.ctx, who.principal)[0]
        credentials.rotate(self.ctx, who.principal, credential.id, source=Generated())

    def refuse_key(self, who: Resident) -> None:
        """Somebody deletes the person's keys at the identity provider, and a refresh finds out."""
        for key in self.provider.keys_of(who.iam_id, who.account_id):
            self.provider.delete_key(self.provider.token(who.iam_id, who.account_id).token, key.id)
        credential = credentials.list_own(self.ctx, who.principal)[0]
        with self.ctx.store.write() as connection:
            tokens_store.drop(connection, credential.id)
        with contextlib.suppress(ConflictError):  # says that it is unusable, which is what was wanted
            tokens.ensure(self.ctx, credential.id)

    def schedule(self, who: Resident, name: str = "Every night", task: str = "count-keys") -> ScheduleView:
        """The person schedules a task for every night."""
        return schedules.create(
            self.ctx, who.principal, name=name, task=task, parameters={}, cron="0 2 * * *", timezone="UTC"
        )

    def service(self, back_to: str = "https://notebooks.example.test/back") -> str:
        """A registered service that may start every task; its id."""
        new = registry.NewService(
            f"notebooks-{uuid.uuid4().hex[:8]}",
            tuple(self.ctx.tasks),
            title="Notebook server",
            description="Runs your notebooks, also at night, and keeps what they print.",
            executors=(Executor.WORKER, Executor.SERVICE),
            callback_urls=(back_to,),
        )
        return registry.create(self.ctx, audit.OPERATOR, new).service.id

    def grant(self, who: Resident, *tasks: str, service_id: str = "") -> GrantView:
        """The person lets a service, a new one where none is named, start these tasks."""
        service_id = service_id or self.service()
        return grants.give(self.ctx, who.principal, service_id=service_id, tasks=tasks or ("count-keys",))

    def start_under(self, grant: GrantView, return_to: str = "") -> str:
        """The grant's service starts a run of its first task; the run's id."""
        service = Principal(f"service:{grant.service_id}", "", Authentication.SERVICE)
        run = starting.start(
            self.ctx,
            service,
            task=grant.tasks[0],
            parameters={},
            grant_id=grant.id,
            return_to=return_to,
        )
        return run.id

    def set_creating(self, credential_id: str, creating: bool) -> None:
        """What a create that is still under way looks like to its owner."""
        state = CredentialState.CREATING if creating else CredentialState.USABLE
        with self.ctx.store.write() as connection:
            credentials_store.change(connection, credential_id, self.ctx.clock.now(), state=state)
