"""A cluster's parts and a server that trusts it, with an owner who gave a grant."""

from __future__ import annotations

import json
import secrets
import shlex
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from taskcred.clock import SystemClock
from taskcred.domain.secret import Secret
from taskcred.iam.operator import Operator
from tests.support.cluster import Issuer, Pod
from tests.support.server import Person, Server, SignedIn

MANIFESTS = Path(__file__).parents[3] / "deploy" / "kubernetes"
CONFIG = """

[tasks.nightly-report]
kind = "external"
title = "Nightly report"
sdk_services = ["iam_identity"]
"""


@dataclass
class Cluster:
    """Where pods run: each is the manifest's, with the addresses and the grant of here."""

    directory: Path
    issuer: Issuer
    server: Server
    owner: SignedIn
    grant_id: str
    pods: list[Pod]

    def pod(
        self, *, manifest: str = "job.yaml", job: str = "true", like: Pod | None = None, **put: str
    ) -> Pod:
        """A pod whose main container runs the shell command `job`; `like` is one to have the uid of."""
        made = Pod(
            MANIFESTS / manifest,
            self.directory / f"pod{len(self.pods)}",
            self.issuer,
            {"taskcred": [sys.executable, "-m", "taskcred"]},
            {
                "value: https://taskcred.example.org": f"value: {self.server.url}",
                "e1741e99-3246-4216-8fc5-cdb6582e8f03": self.grant_id,
                "python nightly_report.py": job,
                **put,
            },
            **({"uid": like.uid} if like else {}),
        )
        self.pods.append(made)
        return made

    def answer(self, method: str, path: str, expected: int = 200, **options: Any) -> Any:
        """The JSON of a request of the owner's."""
        response = self.owner.request(method, path, **options)
        assert response.status_code == expected, response.text
        return response.json()

    def runs(self) -> list[dict[str, Any]]:
        """The owner's, newest first."""
        found: list[dict[str, Any]] = self.answer("GET", "/v1/runs")["items"]
        return found

    def make_key(self) -> None:
        """The owner's task credential."""
        made = {"name": "key", "generate": True}
        self.answer("POST", "/v1/task_credentials", 201, json=made)


@dataclass
class Site:
    """What all pods share."""

    issuer: Issuer
    server: Server
    service_id: str


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    issuer = Issuer()
    server = Server(tmp_path_factory.mktemp("site"), config=CONFIG)
    server.start()
    at_home = ("--data-dir", str(server.data_dir), "--config", str(server.directory / "taskcred.toml"))
    service = json.loads(
        server.command(
            "admin", "service", "create", "reports", "--tasks", "nightly-report", *at_home, "--json"
        )
    )
    trusted = shlex.split(
        f"--issuer {issuer.url} --subject system:serviceaccount:default:nightly-report "
        "--audience https://taskcred.example.org"
    )
    server.command("admin", "service", "trust", "reports", *trusted, *at_home)
    yield Site(issuer, server, service["client_id"])
    server.stop()
    issuer.close()


@pytest.fixture
def cluster(tmp_path: Path, site: Site) -> Iterator[Cluster]:
    """With an owner of its own, who gave a grant."""
    email, password = f"owner-{secrets.token_hex(4)}@example.com", secrets.token_urlsafe(18)
    with Operator(site.server.data_dir / "iam.db", SystemClock()) as operator:
        made = operator.create_user(account="Engineering", email=email, password=Secret(password))
    owner = site.server.sign_in(Person(email, password, made.iam_id, made.account_id))
    given = owner.request(
        "POST", "/v1/grants", json={"service_id": site.service_id, "tasks": ["nightly-report"]}
    )
    assert given.status_code == 201, given.text
    here = Cluster(tmp_path, site.issuer, site.server, owner, given.json()["id"], [])
    yield here
    for pod in here.pods:
        pod.close()
