"""A real OpenBao (or HashiCorp Vault) on a free loopback port, and an administrator's hands on it."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import socket
import subprocess
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from taskcred.clock import SystemClock
from taskcred.ports import Clock
from taskcred.roles.certificates import self_signed
from taskcred.vaults.openbao import OpenBaoVault
from taskcred.vaults.openbao_http import Place
from taskcred.vaults.openbao_login import AppRoleLogin, Login
from tests.support.server import eventually

BINARY = shutil.which("bao") or shutil.which("vault")
MISSING = "no `bao` or `vault` on PATH"
POLICY = (Path(__file__).parents[2] / "deploy" / "openbao" / "taskcred.hcl").read_text(encoding="utf-8")


@dataclass
class OpenBao:
    """One that runs; `token` is root's, and `unseal_key` opens it where it was set up here. `tls_address` has
    a certificate that is its own authority, in `certificate`."""

    address: str
    token: str = field(repr=False)
    unseal_key: str = field(default="", repr=False)
    tls_address: str = ""
    certificate: Path | None = None
    namespace: str = ""
    client: httpx.Client = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self.client = httpx.Client(base_url=f"{self.address}/v1/", timeout=30, trust_env=False)

    def ask(self, method: str, path: str, body: Any = None) -> httpx.Response:
        """A call as root, whatever comes of it."""
        headers = {"X-Vault-Token": self.token, "X-Vault-Namespace": self.namespace}
        return self.client.request(method, path, json=body, headers=headers)

    def do(self, method: str, path: str, body: Any = None) -> dict[str, Any]:
        """A call as root that must succeed; what it answers."""
        answer = self.ask(method, path, body)
        assert answer.is_success, (path, answer.status_code, answer.text)
        return dict(answer.json()) if answer.content else {}

    def seal(self) -> None:
        self.do("PUT", "sys/seal")

    def unseal(self) -> None:
        self.do("PUT", "sys/unseal", {"key": self.unseal_key})
        eventually(lambda: self.client.get("sys/health").status_code == 200, "the vault is active")

    def mount(self) -> str:
        """A fresh KV mount as the how-to makes it; its name."""
        name = f"kv-{uuid.uuid4().hex}"
        self.do("POST", f"sys/mounts/{name}", {"type": "kv", "options": {"version": "2"}})
        # For a moment after it was made a mount of version 2 says that it is being upgraded.
        settings = {"max_versions": 1}
        eventually(lambda: self.ask("POST", f"{name}/config", settings).is_success, "the mount is there")
        return name

    def app_role(self, policy: str, **role: Any) -> tuple[str, str]:
        """A role with `policy` and nothing else; its id and a secret id."""
        name = f"role-{uuid.uuid4().hex}"
        self.do("PUT", f"sys/policies/acl/{name}", {"policy": policy})
        if "approle/" not in self.do("GET", "sys/auth")["data"]:
            self.do("POST", "sys/auth/approle", {"type": "approle"})
        settings = {"token_policies": [name], "token_no_default_policy": True, "token_ttl": "1h", **role}
        self.do("POST", f"auth/approle/role/{name}", settings)
        role_id = self.do("GET", f"auth/approle/role/{name}/role-id")["data"]["role_id"]
        return role_id, self.do("POST", f"auth/approle/role/{name}/secret-id")["data"]["secret_id"]

    def login(self, directory: Path, policy: str, **role: Any) -> AppRoleLogin:
        """A login by a fresh role, whose secret id lies in `directory`."""
        role_id, secret_id = self.app_role(policy, **role)
        file = directory / f"secret-id-{uuid.uuid4().hex}"
        file.write_text(f"{secret_id}\n")
        file.chmod(0o600)
        return AppRoleLogin(role_id, file)


def policy_for(mount: str) -> str:
    """The policy that we ship, for `mount`."""
    return POLICY.replace('path "taskcred/', f'path "{mount}/')


def open_vault(
    openbao: OpenBao, login: Login, mount: str, *, clock: Clock | None = None, permits: int = 4
) -> OpenBaoVault:
    place = Place(openbao.address, openbao.namespace, None, timedelta(seconds=30))
    return OpenBaoVault(place, login, mount=mount, permits=permits, clock=clock or SystemClock())


@contextmanager
def dev_server(directory: Path) -> Iterator[OpenBao]:
    """In memory, unsealed by itself. The one at BAO_ADDR with BAO_TOKEN, where these are set."""
    if os.environ.get("BAO_ADDR"):
        openbao = OpenBao(os.environ["BAO_ADDR"].rstrip("/"), os.environ["BAO_TOKEN"])
        with closing(openbao.client):
            yield openbao
        return
    token, (port,) = f"root-{secrets.token_hex(16)}", _free_ports(1)
    arguments = ["-dev", "-dev-no-store-token", f"-dev-root-token-id={token}"]
    with _running(directory, [*arguments, f"-dev-listen-address=127.0.0.1:{port}"]):
        openbao = OpenBao(f"http://127.0.0.1:{port}", token)
        with closing(openbao.client):
            _wait_for(openbao)
            yield openbao


@contextmanager
def standby_of(active: OpenBao, directory: Path) -> Iterator[OpenBao]:
    """A second server of the cluster, which answers reads by itself where the vault is of a kind that does."""
    with _raft(directory, "two", {"retry_join": [{"leader_api_addr": active.address}]}) as openbao:
        openbao.token, openbao.unseal_key = active.token, active.unseal_key

        def is_standby() -> bool:
            # It joins by itself, and takes the key only then.
            openbao.client.put("sys/unseal", json={"key": active.unseal_key})
            return openbao.client.get("sys/health").status_code == 429

        try:
            eventually(is_standby, "the standby stands by", within=60)
            yield openbao
        finally:  # else the active one would wait for its vote
            active.do("POST", "sys/storage/raft/remove-peer", {"server_id": "two"})


@contextmanager
def raft_server(directory: Path) -> Iterator[OpenBao]:
    """On disk, with an unseal key: it can be sealed and unsealed."""
    with _raft(directory, "one", {}) as openbao:
        made = openbao.do("PUT", "sys/init", {"secret_shares": 1, "secret_threshold": 1})
        openbao.token, openbao.unseal_key = made["root_token"], made["keys_base64"][0]
        openbao.unseal()
        yield openbao


@contextmanager
def _raft(directory: Path, node: str, storage: dict[str, Any]) -> Iterator[OpenBao]:
    port, tls_port, cluster_port, tls_cluster_port = _free_ports(4)
    data = directory / "raft"
    data.mkdir()
    tls = self_signed(directory / "tls", "127.0.0.1")
    secured = {"tls_cert_file": str(tls.certificate), "tls_key_file": str(tls.key)}
    plain = {
        "address": f"127.0.0.1:{port}",
        "cluster_address": f"127.0.0.1:{cluster_port}",
        "tls_disable": True,
    }
    tls_too = {
        "address": f"127.0.0.1:{tls_port}",
        "cluster_address": f"127.0.0.1:{tls_cluster_port}",
    } | secured
    config = directory / "server.json"
    config.write_text(
        json.dumps(
            {
                "storage": {"raft": {"path": str(data), "node_id": node} | storage},
                "listener": [{"tcp": plain}, {"tcp": tls_too}],
                "api_addr": f"http://127.0.0.1:{port}",
                "cluster_addr": f"https://127.0.0.1:{cluster_port}",
                "disable_mlock": True,
            }
        )
    )
    with _running(directory, [f"-config={config}"]):
        openbao = OpenBao(
            f"http://127.0.0.1:{port}",
            "",
            tls_address=f"https://127.0.0.1:{tls_port}",
            certificate=tls.certificate,
        )
        with closing(openbao.client):
            _wait_for(openbao)
            yield openbao


@contextmanager
def _running(directory: Path, arguments: list[str]) -> Iterator[None]:
    if BINARY is None:
        pytest.skip(MISSING)
    environment = {"HOME": str(directory), "PATH": os.environ["PATH"]}
    with (directory / "server.log").open("wb") as log:
        process = subprocess.Popen(
            [BINARY, "server", *arguments], stdout=log, stderr=log, stdin=subprocess.DEVNULL, env=environment
        )
    try:
        yield
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_for(openbao: OpenBao) -> None:
    def answers() -> bool:
        try:
            return openbao.client.get("sys/seal-status").is_success
        except httpx.TransportError:
            return False

    eventually(answers, "the vault answers", within=60)


def _free_ports(number: int) -> list[int]:
    with ExitStack() as probes:  # all at once, so that they differ
        found = [probes.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(number)]
        return [int(probe.getsockname()[1]) for probe in found]
