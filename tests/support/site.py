"""The app on in-memory ports and a real database, and callers of every kind."""

from __future__ import annotations

import base64
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flask import Flask
from flask.testing import FlaskClient
from flask_wtf.csrf import generate_csrf

from taskcred.domain.keytext import new_key
from taskcred.domain.secret import Secret
from taskcred.domain.tasks import Task, TaskKind
from taskcred.errors import KeyRefusedError
from taskcred.http.app import create_app
from taskcred.services import registry
from taskcred.services.broker import TokenBroker
from taskcred.services.context import Context
from taskcred.store import audit, workers
from taskcred.testing import FrozenClock, InMemoryIdentityProvider, InMemoryVault, make_context

BASE = "https://taskcred.test"
API_KEY_GRANT = "urn:ibm:params:oauth:grant-type:apikey"


class Browser(FlaskClient):
    """A client on our own host, by https."""

    def open(self, *args: Any, **kwargs: Any) -> Any:
        kwargs.setdefault("base_url", BASE)
        return super().open(*args, **kwargs)


@dataclass(frozen=True)
class ServiceCaller:
    """A service and a client that sends its id and secret."""

    id: str
    secret: Secret
    client: FlaskClient


@dataclass
class Site:
    """One app with a person in one account, and ways to call it."""

    ctx: Context
    app: Flask
    broker: TokenBroker  # not started: it stays in touch only where a test says so
    provider: InMemoryIdentityProvider
    clock: FrozenClock
    account_id: str
    iam_id: str
    worker: str = field(repr=False)
    vault: InMemoryVault

    @property
    def no_id(self) -> str:
        """An id of nothing."""
        return str(uuid.uuid4())

    def client(self, headers: dict[str, str] | None = None) -> FlaskClient:
        """A client that sends these headers with every request."""
        client = self.app.test_client()
        for name, value in (headers or {}).items():
            client.environ_base[f"HTTP_{name.upper().replace('-', '_')}"] = value
        return client

    def bearer(self, *, iam_id: str | None = None, **claims: Any) -> FlaskClient:
        """A client with an access token; by default the person's own, signed in just now."""
        token = self.provider.token(iam_id or self.iam_id, self.account_id, **claims)
        return self.client({"Authorization": f"Bearer {token.token.reveal()}"})

    def program(self) -> FlaskClient:
        """A client whose access token was made from an API key, elsewhere."""
        return self.bearer(grant_type=API_KEY_GRANT, client_id="default")

    def run_token(self) -> FlaskClient:
        """A client with an access token that was handed to a run."""
        return self.bearer(grant_type=API_KEY_GRANT, client_id="taskcred")

    def executor(self) -> FlaskClient:
        """A client with the worker credential."""
        text = base64.b64encode(self.worker.encode()).decode()
        return self.client({"Authorization": f"Basic {text}"})

    def service(self, name: str = "", **said: Any) -> ServiceCaller:
        """A new service that may start every task, and a client with its id and secret."""
        new = registry.NewService(name or f"service-{uuid.uuid4().hex[:8]}", tuple(TASKS), **said)
        made = registry.create(self.ctx, audit.OPERATOR, new)
        return ServiceCaller(made.service.id, made.secret, self.basic(made.service.id, made.secret))

    def is_alive(self, key: str) -> bool:
        """Whether a stand-in key gets access tokens."""
        try:
            self.broker.issue(key.encode())
        except KeyRefusedError:
            return False
        return True

    def basic(self, client_id: str, secret: Secret) -> FlaskClient:
        """A client with this id and secret."""
        text = base64.b64encode(f"{client_id}:{secret.reveal()}".encode()).decode()
        return self.client({"Authorization": f"Basic {text}"})

    def signed_in(self, *, iam_id: str | None = None, account_id: str | None = None) -> FlaskClient:
        """A browser in which the person signed in."""
        client = self.client()
        leave = client.get("/sign-in")
        code, state = self.provider.approve(
            leave.headers["Location"], iam_id or self.iam_id, account_id or self.account_id
        )
        answer = client.get("/auth/callback", query_string={"code": code, "state": state})
        assert answer.status_code == 303, answer.text
        return client

    def subject(self, iam_id: str | None = None, **claims: Any) -> str:
        """The text of an access token of the person, signed in just now, as a service has it."""
        return self.provider.token(iam_id or self.iam_id, self.account_id, **claims).token.reveal()

    def key(self) -> str:
        """The text of a key that the person made elsewhere."""
        return self.provider.add_key(self.iam_id, self.account_id).reveal()


TASKS = {
    "report": Task("report", TaskKind.COMMAND, title="Report", argv=("true",)),
    "copy": Task(
        "copy",
        TaskKind.COMMAND,
        argv=("cp", "{source}"),
        parameters={
            "type": "object",
            "properties": {"source": {"type": "string", "maxLength": 100}},
            "required": ["source"],
            "additionalProperties": False,
        },
    ),
    "train": Task("train", TaskKind.EXTERNAL, title="Training", sdk_services=("iam_identity",)),
}


def make_site(directory: Path) -> Site:
    """A fresh site whose records lie in `directory`."""
    clock = FrozenClock()
    provider = InMemoryIdentityProvider(clock, url=BASE)
    vault = InMemoryVault()
    ctx = make_context(directory, clock=clock, vault=vault, provider=provider, public_url=BASE, tasks=TASKS)
    account_id = provider.add_account()
    iam_id = provider.add_person(account_id)
    secret = Secret(new_key("tcw_").reveal())
    with ctx.store.write() as connection:
        worker_id = workers.add(connection, "one", secret, ctx.clock.now())
    broker = TokenBroker(ctx)
    app = create_app(ctx, broker, secret_key=new_key("tck_"), cookie_secure=True)
    app.test_client_class = Browser
    app.add_url_rule("/token-of-a-page", "token_of_a_page", generate_csrf)
    return Site(
        ctx, app, broker, provider, clock, account_id, iam_id, f"{worker_id}:{secret.reveal()}", vault
    )
