"""A server whose vault is OpenBao: a life of a key, a seal in the middle of it, mounts that are not ours."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.openbao import OpenBao, open_vault, policy_for
from tests.support.server import COMMAND, Server, SignedIn, eventually

GRANT = "urn:ibm:params:oauth:grant-type:apikey"


def configured(openbao: OpenBao, mount: str, directory: Path) -> str:
    login = openbao.login(directory, policy_for(mount))
    return f"""
[vault]
kind = "openbao"

[vault.openbao]
address = "{openbao.address}"
mount = "{mount}"
timeout = "30s"
role_id = "{login.role_id}"
secret_id_file = "{login.secret_id_file}"

[tasks.train]
kind = "external"
"""


def begin_run(me: SignedIn) -> str:
    """The stand-in key of a run that its owner carries out."""
    run = me.request("POST", "/v1/runs", json={"task": "train"})
    assert run.status_code == 201, run.text
    begun = me.request("POST", f"/v1/runs/{run.json()['id']}/attempts", json={})
    assert begun.status_code == 201, begun.text
    return str(begun.json()["stand_in_key"])


def token(server: Server, key: str) -> httpx.Response:
    with server.client() as client:
        return client.post("/identity/token", data={"grant_type": GRANT, "apikey": key})


def vault_state(server: Server) -> str:
    with server.client() as client:
        answer = client.get("/readyz")
    assert answer.status_code == 200, answer.text  # degraded at worst
    return str(answer.json()["parts"]["vault"])


@pytest.mark.promise("never-interrupted")
def test_a_seal_in_mid_use_costs_a_running_job_nothing(
    sealable_openbao: OpenBao, start_server: Callable[..., Server], tmp_path: Path
) -> None:
    openbao, mount = sealable_openbao, sealable_openbao.mount()
    server = start_server(config=configured(openbao, mount, tmp_path))
    me = server.sign_in(server.create_person("ada@example.com"))
    body = {"name": "mine", "type": "iam_api_key", "generate": True}
    made = me.request("POST", "/v1/task_credentials", json=body)
    assert made.status_code == 201, made.text
    credential = f"/v1/task_credentials/{made.json()['id']}"
    key = begin_run(me)
    assert token(server, key).status_code == 200
    assert not {"vault.db", "master.key"} & {path.name for path in server.data_dir.iterdir()}

    def rotate() -> httpx.Response:
        return me.request("POST", f"{credential}/rotate", json={"generate": True})

    openbao.seal()
    try:
        refused = rotate()
        assert (refused.status_code, refused.json()["errors"][0]["code"]) == (503, "vault_sealed"), (
            refused.text
        )
        assert token(server, key).status_code == 200
        eventually(lambda: vault_state(server) == "vault_sealed", "health says that it is sealed")
        with server.client() as client:
            assert 'reason="vault_sealed"} ' in client.get("/metrics").text
        server.hang_up()  # no new web process can start now: the one that runs stays
        eventually(lambda: "replacement failed" in server.log.read_text(), "the replacement fails")
        assert token(server, key).status_code == 200
    finally:
        openbao.unseal()
    eventually(lambda: vault_state(server) == "ok", "health says that it is open")
    eventually(lambda: rotate().status_code == 200, "what was refused is done")
    assert token(server, key).status_code == 200

    login = openbao.login(tmp_path, policy_for(mount))
    with closing(open_vault(openbao, login, mount)) as vault:
        assert vault.paths("credentials/")
        assert me.request("DELETE", credential).status_code in {200, 202, 204}
        eventually(lambda: not vault.paths("credentials/"), "the material of ended keys is destroyed")


def test_doctor_backup_and_restore(
    openbao: OpenBao, start_server: Callable[..., Server], tmp_path: Path
) -> None:
    mount = openbao.mount()
    server = start_server(config=configured(openbao, mount, tmp_path))
    ours = ("--data-dir", str(server.data_dir), "--config", str(server.directory / "taskcred.toml"))
    assert f"lets us in, and the mount {mount} will do" in server.command("doctor", *ours, check=False)
    backup, after = tmp_path / "backup.tar", tmp_path / "after"
    assert "its keys are in the vault's own backup" in server.command("backup", str(backup), *ours)
    server.stop()
    assert "embedded vault" in _fails(server, "restore", str(backup), "--yes", "--data-dir", str(after))
    server.command("restore", str(backup), "--yes", "--data-dir", str(after), *ours[2:])
    assert sorted(path.name for path in after.glob("*.db")) == ["iam.db", "records.db"]
    assert "Only the embedded vault" in _fails(server, "vault", "rewrap", *ours)


def test_a_mount_that_is_not_these_records_own_is_refused(
    openbao: OpenBao, start_server: Callable[..., Server], tmp_path: Path
) -> None:
    config = configured(openbao, openbao.mount(), tmp_path)
    server = start_server(config=config)
    server.stop()
    assert "another installation's keys" in _does_not_start(server, tmp_path / "another", config)
    other = configured(openbao, openbao.mount(), tmp_path)
    assert "nothing of this installation" in _does_not_start(server, server.data_dir, other)
    server.start()  # nothing was changed


def _does_not_start(server: Server, data_dir: Path, config: str) -> str:
    file = data_dir.with_suffix(".toml")
    file.write_text(config)
    return _fails(server, "serve", "--port", "0", "--data-dir", str(data_dir), "--config", str(file))


def _fails(server: Server, *arguments: str) -> str:
    """Standard error of a command that ends with the exit code for configurations."""
    done: subprocess.CompletedProcess[Any] = subprocess.run(
        [*COMMAND, *arguments],
        capture_output=True,
        text=True,
        env=server._environment(),
        timeout=120,
        check=False,
    )
    assert done.returncode == 7, done.stderr
    return str(done.stderr)
