"""Refusals that a service can get, as tables: what it is told, and how it comes to it."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from taskcred.domain.runs import Executor
from taskcred.errors import VaultRefusedError
from taskcred.services import federation, grants, registry
from taskcred.store import audit
from taskcred.testing import interactive
from tests.support.site import ServiceCaller, Site


@contextmanager
def refusing(site: Site, code: str) -> Iterator[None]:
    """While the vault refuses every call with `code`."""

    def refuse(method: str) -> None:
        raise VaultRefusedError(f"scripted: {method} is refused", hint="Try again.", code=code)

    site.vault.hook = refuse
    yield
    site.vault.hook = None


class Case:
    """A service, an owner with a credential, and how the service asks."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.service = site.service(executors=(Executor.SERVICE, Executor.WORKER))

    def give_credential(self) -> str:
        body = {"name": "mine", "secret": {"api_key": self.site.key()}}
        made = self.site.bearer().post("/v1/task_credentials", json=body)
        assert made.status_code == 201, made.text
        return str(made.get_json()["id"])

    def start(self, *, by: ServiceCaller | None = None, key: str = "", **body: Any) -> Any:
        asked = {"task": "train", "subject_token": self.site.subject()} | body
        given = {name: value for name, value in asked.items() if value is not None}
        headers = {"Idempotency-Key": key} if key else {}
        return (by or self.service).client.post("/v1/runs", json=given, headers=headers)

    def run(self, **body: Any) -> str:
        started = self.start(**body)
        assert started.status_code == 201, started.text
        return f"/v1/runs/{started.get_json()['id']}"

    def begin(self, run: str, **body: Any) -> Any:
        return self.service.client.post(f"{run}/attempts", json=body)

    def begun(self, run: str) -> str:
        answer = self.begin(run)
        assert answer.status_code == 201, answer.text
        return f"{run}/attempts/{answer.get_json()['attempt_id']}"

    def end(self, attempt: str, outcome: str = "succeeded") -> Any:
        return self.service.client.post(f"{attempt}/end", json={"outcome": outcome})

    def grant(self, *tasks: str) -> str:
        owner = interactive(self.site.iam_id, self.site.account_id, auth_time=self.site.clock.now())
        chosen = tasks or ("train",)
        return grants.give(self.site.ctx, owner, service_id=self.service.id, tasks=chosen, days=1).id

    def end_grant(self, grant_id: str) -> None:
        owner = interactive(self.site.iam_id, self.site.account_id, auth_time=self.site.clock.now())
        grants.end(self.site.ctx, owner, grant_id)

    def disable(self) -> None:
        registry.disable(self.site.ctx, audit.OPERATOR, self.service.id)

    def change(self, **limits: Any) -> None:
        registry.update(self.site.ctx, audit.OPERATOR, self.service.id, registry.Change(**limits))

    def workload(self, subject: str) -> Any:
        """Ask with a token of an issuer that the service trusts, and that nobody can reach."""
        issuer, audience = "http://127.0.0.1:9", "https://taskcred.test"
        trust = federation.NewTrust(issuer, "hub", audience)
        federation.add_trust(self.site.ctx, audit.OPERATOR, self.service.id, trust)
        claims = json.dumps({"iss": issuer, "sub": subject, "aud": audience}).encode()
        said = base64.urlsafe_b64encode(claims).decode().rstrip("=")
        header = base64.urlsafe_b64encode(b'{"alg":"RS256","kid":"one"}').decode().rstrip("=")
        token = f"{header}.{said}.e30"
        return self.site.client({"Authorization": f"Bearer {token}"}).get("/v1/events")

    def with_context(self, **parts: Any) -> None:
        self.site.app.extensions["taskcred"] = replace(self.site.ctx, **parts)


# By name: (status, code, whether a person is led to where they can act, how to provoke it).
Table = dict[str, tuple[int, str, bool, Callable[[Case], Any]]]


def adder(table: Table) -> Callable[..., Callable[[Callable[[Case], Any]], None]]:
    """A decorator that puts functions into the table."""

    def case(status: int, code: str, *, leads: bool = False) -> Callable[[Callable[[Case], Any]], None]:
        def add(provoke: Callable[[Case], Any]) -> None:
            table[provoke.__name__] = (status, code, leads, provoke)

        return add

    return case


def verify(answer: Any, status: int, code: str, *, leads: bool) -> None:
    """The refusal says what happened, and what to do."""
    assert (answer.status_code, answer.mimetype) == (status, "application/problem+json"), answer.text
    told = answer.get_json()
    assert told["code"] == code, told
    assert told["detail"]
    assert told["hint"]
    assert bool(told.get("action_url")) == leads, told
    assert ("Retry-After" in answer.headers) == (status in (429, 503))
    if status == 401:
        assert answer.headers["WWW-Authenticate"].startswith(("Basic", "Bearer"))
