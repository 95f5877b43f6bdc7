"""The OpenBao vault on a real server: what is left, who is let in, and what each failure is called."""

from __future__ import annotations

import base64
import json
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from hvac.api.secrets_engines import KvV2

from taskcred.clock import SystemClock
from taskcred.domain.secret import Secret
from taskcred.errors import (
    IntegrityError,
    RecordNotFoundError,
    TaskcredError,
    VaultRefusedError,
    VaultSealedError,
    VaultUnreachableError,
)
from taskcred.roles.certificates import self_signed
from taskcred.testing import FrozenClock
from taskcred.vaults.openbao import OpenBaoVault
from taskcred.vaults.openbao_http import Place
from taskcred.vaults.openbao_login import AppRoleLogin, KubernetesLogin, TokenFileLogin
from tests.support.cluster import Issuer
from tests.support.openbao import OpenBao, open_vault, policy_for, standby_of
from tests.support.server import eventually

PATH = "credentials/a/1"
KEY = Secret("the key")

Open = Callable[..., OpenBaoVault]


@pytest.fixture
def mount(openbao: OpenBao) -> str:
    return openbao.mount()


@pytest.fixture
def opened(openbao: OpenBao, mount: str, tmp_path: Path) -> Iterator[Open]:
    """Open the mount with the policy that we ship; all are closed at the end."""
    with ExitStack() as stack:

        def make(
            *, clock: FrozenClock | None = None, policy: str = "", on: str = "", **role: Any
        ) -> OpenBaoVault:
            login = openbao.login(tmp_path, policy or policy_for(mount), **role)
            return stack.enter_context(closing(open_vault(openbao, login, on or mount, clock=clock)))

        yield make


@contextmanager
def refused(code: str) -> Iterator[None]:
    with pytest.raises(VaultRefusedError) as error:
        yield
    assert error.value.error_code == code
    assert error.value.hint


# What is left.


def test_of_a_destroyed_record_nothing_is_left(openbao: OpenBao, mount: str, opened: Open) -> None:
    vault = opened()
    vault.store(PATH, Secret("first"))
    vault.store(PATH, Secret("second"))
    vault.destroy(PATH)
    assert openbao.ask("GET", f"{mount}/metadata/{PATH}").status_code == 404
    for version in (1, 2):
        answer = openbao.ask("GET", f"{mount}/data/{PATH}?version={version}")
        assert (answer.status_code, answer.json().get("data")) == (404, None)
    assert openbao.ask("LIST", f"{mount}/metadata/").status_code == 404


def test_of_a_replaced_record_only_the_new_one_is_left(openbao: OpenBao, mount: str, opened: Open) -> None:
    vault = opened()
    vault.store(PATH, Secret("first"))
    vault.store(PATH, Secret("second"))
    assert list(openbao.do("GET", f"{mount}/metadata/{PATH}")["data"]["versions"]) == ["2"]
    assert openbao.ask("GET", f"{mount}/data/{PATH}?version=1").status_code == 404


def test_storing_the_same_again_writes_nothing(openbao: OpenBao, mount: str, opened: Open) -> None:
    vault = opened()
    vault.store(PATH, KEY)
    vault.store(PATH, KEY)  # as a stage does whose first answer was lost
    assert openbao.do("GET", f"{mount}/metadata/{PATH}")["data"]["current_version"] == 1


def test_of_two_writers_one_is_told(openbao: OpenBao, mount: str, opened: Open) -> None:
    vault = opened()
    vault.store(PATH, Secret("first"))
    find = vault._find

    def overtaken(*arguments: Any) -> Any:
        found = find(*arguments)
        body = {"data": {"path": PATH, "value": "another's"}, "options": {"cas": 1}}
        openbao.do("POST", f"{mount}/data/{PATH}", body)
        return found

    vault._find = overtaken  # type: ignore[method-assign]  # the moment between two calls, made to happen
    with refused("vault_conflict"):
        vault.store(PATH, Secret("second"))
    vault._find = find  # type: ignore[method-assign]
    assert vault.open(PATH) == Secret("another's")
    assert vault.failures() == {"vault_conflict": 1}


def test_a_record_that_somebody_deleted_is_not_taken_for_none(
    openbao: OpenBao, mount: str, opened: Open
) -> None:
    vault = opened()
    vault.store(PATH, KEY)
    openbao.do("DELETE", f"{mount}/data/{PATH}")
    for act in (lambda: vault.open(PATH), lambda: vault.store_once(PATH, Secret("another"))):
        with pytest.raises(IntegrityError, match="deleted by somebody else"):
            act()
    openbao.do("POST", f"{mount}/undelete/{PATH}", {"versions": [1]})
    assert vault.open(PATH) == KEY
    openbao.do("DELETE", f"{mount}/data/{PATH}")
    vault.destroy(PATH)
    assert vault.paths() == []


def test_a_record_that_was_moved_is_refused(openbao: OpenBao, mount: str, opened: Open) -> None:
    vault = opened()
    vault.store(PATH, KEY)
    copied = openbao.do("GET", f"{mount}/data/{PATH}")["data"]["data"]
    openbao.do("POST", f"{mount}/data/credentials/b/1", {"data": copied, "options": {"cas": 0}})
    with pytest.raises(IntegrityError, match="altered or moved"):
        vault.open("credentials/b/1")


# Who is let in.


def test_the_policy_we_ship_suffices_and_gives_no_more(openbao: OpenBao, mount: str, tmp_path: Path) -> None:
    """That it suffices is what the contract suite and this module run on; here is what it denies."""
    login = openbao.login(tmp_path, policy_for(mount))
    answer = openbao.client.post(
        "auth/approle/login",
        json={"role_id": login.role_id, "secret_id": login.secret_id_file.read_text().strip()},
    )
    ours = OpenBao(openbao.address, answer.json()["auth"]["client_token"])
    other = openbao.mount()
    denied = (
        ("GET", f"{other}/data/{PATH}", None),
        ("POST", f"{other}/data/{PATH}", {"data": {}}),
        ("LIST", f"{other}/metadata/", None),
        ("DELETE", f"{mount}/data/{PATH}", None),
        ("POST", f"{mount}/delete/{PATH}", {"versions": [1]}),
        ("POST", f"{mount}/undelete/{PATH}", {"versions": [1]}),
        ("PUT", f"{mount}/destroy/{PATH}", {"versions": [1]}),
        ("GET", f"{mount}/metadata/{PATH}", None),
        ("POST", f"{mount}/metadata/{PATH}", {"max_versions": 9}),
        ("POST", f"{mount}/config", {"max_versions": 9}),
        ("POST", f"sys/mounts/{mount}-more", {"type": "kv"}),
        ("GET", "sys/mounts", None),
        ("GET", "sys/policies/acl", None),
        ("POST", "auth/token/create", {}),
        ("LIST", "auth/approle/role", None),
    )
    with closing(ours.client):
        for method, path, body in denied:
            assert ours.ask(method, path, body).status_code == 403, (method, path)


@pytest.mark.parametrize(
    ("rule", "act"),
    [
        ("data/*", lambda vault: vault.open(PATH)),
        ("data/*", lambda vault: vault.store(PATH, KEY)),
        ("metadata/*", lambda vault: vault.destroy(PATH)),
        ("metadata/*", lambda vault: vault.paths()),
        ("config", lambda vault: vault.check()),
    ],
)
def test_without_a_rule_of_the_policy_the_call_is_denied(
    opened: Open, mount: str, rule: str, act: Callable[[OpenBaoVault], object]
) -> None:
    vault = opened(policy=policy_for(mount).replace(f"{mount}/{rule}", f"{mount}/none/{rule}"))
    with refused("vault_denied"):
        act(vault)
    assert vault.failures() == {"vault_denied": 1}


def test_a_token_is_renewed_before_it_expires(openbao: OpenBao, opened: Open) -> None:
    clock = FrozenClock()
    vault = opened(clock=clock, token_ttl="1h")
    vault.store(PATH, KEY)
    first = vault._token.get()
    clock.advance(timedelta(minutes=39))
    vault.open(PATH)
    assert "last_renewal" not in _looked_up(openbao, first)
    clock.advance(timedelta(minutes=2))
    vault.open(PATH)
    assert _looked_up(openbao, first)["last_renewal"]
    assert vault._token.get() == first


def test_a_token_that_can_only_be_renewed_for_less_is_replaced(openbao: OpenBao, opened: Open) -> None:
    clock = FrozenClock()
    vault = opened(clock=clock, token_ttl="1h")
    vault.store(PATH, KEY)
    first = vault._token.get()
    role = _looked_up(openbao, first)["meta"]["role_name"]
    openbao.do("POST", f"auth/approle/role/{role}", {"token_ttl": "10m"})  # as one does near its longest life
    clock.advance(timedelta(minutes=41))
    assert vault.open(PATH) == KEY
    assert vault._token.get() != first


def test_a_token_that_expired_by_the_clock_is_replaced_unasked(opened: Open) -> None:
    clock = FrozenClock()
    vault = opened(clock=clock)
    vault.store(PATH, KEY)
    first = vault._token.get()
    clock.advance(timedelta(hours=2))
    assert vault.open(PATH) == KEY
    assert vault._token.get() != first


def test_a_token_that_the_vault_forgot_is_replaced_and_the_call_repeated(
    openbao: OpenBao, opened: Open
) -> None:
    vault = opened()
    vault.store(PATH, KEY)
    first = vault._token.get()
    _revoke(openbao, first)
    assert vault.open(PATH) == KEY
    assert vault._token.get() != first
    assert vault.failures() == {}


def test_many_threads_with_a_forgotten_token_log_in_once(openbao: OpenBao, opened: Open) -> None:
    vault = opened()
    vault.store(PATH, KEY)
    _revoke(openbao, vault._token.get())
    with ThreadPoolExecutor(4) as threads:
        assert set(threads.map(lambda _: vault.open(PATH), range(4))) == {KEY}
    assert vault.failures() == {}


def test_a_login_that_is_refused_says_so_and_mends_itself(
    openbao: OpenBao, mount: str, tmp_path: Path
) -> None:
    login = openbao.login(tmp_path, policy_for(mount))
    right = login.secret_id_file.read_text()
    login.secret_id_file.write_text("wrong")
    with closing(open_vault(openbao, login, mount)) as vault:
        with refused("vault_login_refused"):
            vault.check()
        login.secret_id_file.unlink()
        with refused("vault_login_refused"):
            vault.check()
        login.secret_id_file.write_text(right)
        vault.check()
        assert vault.failures() == {"vault_login_refused": 2}


def test_a_login_where_none_is_mounted_says_so(openbao: OpenBao, mount: str, tmp_path: Path) -> None:
    made = openbao.login(tmp_path, policy_for(mount))
    login = AppRoleLogin(made.role_id, made.secret_id_file, "nowhere")
    with closing(open_vault(openbao, login, mount)) as vault, refused("vault_login_refused"):
        vault.check()


def test_while_it_cannot_be_renewed_a_token_that_is_good_is_used(
    openbao: OpenBao, mount: str, tmp_path: Path
) -> None:
    clock = FrozenClock()
    policy = policy_for(mount).replace("auth/token/renew-self", "auth/token/none")
    login = openbao.login(tmp_path, policy)
    with closing(open_vault(openbao, login, mount, clock=clock)) as vault:
        vault.store(PATH, KEY)
        login.secret_id_file.unlink()
        clock.advance(timedelta(minutes=50))
        assert vault.open(PATH) == KEY
        clock.advance(timedelta(minutes=11))
        with refused("vault_login_refused"):
            vault.open(PATH)


def test_a_token_file_is_read_again_when_its_token_is_no_good(
    openbao: OpenBao, mount: str, tmp_path: Path
) -> None:
    file = tmp_path / "token"
    name = openbao.login(tmp_path, policy_for(mount)).secret_id_file.name.replace("secret-id", "policy")
    openbao.do("PUT", f"sys/policies/acl/{name}", {"policy": policy_for(mount)})

    def new_token() -> Secret:
        made = openbao.do(
            "POST", "auth/token/create", {"policies": [name], "ttl": "1h", "no_default_policy": True}
        )
        file.write_text(made["auth"]["client_token"])
        return Secret(made["auth"]["client_token"])

    first = new_token()
    with closing(open_vault(openbao, TokenFileLogin(file), mount)) as vault:
        vault.store(PATH, KEY)
        _revoke(openbao, first)
        with refused("vault_login_refused"):
            vault.open(PATH)
        new_token()
        assert vault.open(PATH) == KEY


def _revoke(openbao: OpenBao, token: Secret) -> None:
    openbao.do("POST", "auth/token/revoke", {"token": token.reveal()})


def _looked_up(openbao: OpenBao, token: Secret) -> dict[str, Any]:
    found: dict[str, Any] = openbao.do("POST", "auth/token/lookup", {"token": token.reveal()})["data"]
    return found


# The mount.


def test_a_mount_that_is_not_there_says_so(opened: Open) -> None:
    with refused("vault_denied"):  # a narrow policy denies before anybody looks
        opened(on="nowhere").check()
    vault = opened(on="nowhere", policy=policy_for("nowhere"))
    for act in (vault.check, lambda: vault.open(PATH), lambda: vault.store(PATH, KEY), vault.paths):
        with refused("vault_wrong_mount"):
            act()


def test_a_mount_of_version_1_says_so(openbao: OpenBao, opened: Open) -> None:
    openbao.do("POST", "sys/mounts/kv-old", {"type": "kv", "options": {"version": "1"}})
    try:
        with refused("vault_wrong_mount"):
            opened(on="kv-old", policy=policy_for("kv-old")).check()
    finally:
        openbao.do("DELETE", "sys/mounts/kv-old")


@pytest.mark.parametrize(
    "config", [{"max_versions": 0}, {"max_versions": 2}, {"delete_version_after": "24h"}]
)
def test_a_mount_that_keeps_or_deletes_by_itself_is_refused(
    openbao: OpenBao, mount: str, opened: Open, config: dict[str, Any]
) -> None:
    vault = opened()
    vault.check()
    openbao.do("POST", f"{mount}/config", config)
    with refused("vault_wrong_mount"):
        vault.check()


def test_a_write_that_the_vault_would_delete_by_itself_is_refused(
    openbao: OpenBao, mount: str, opened: Open
) -> None:
    vault = opened()
    openbao.do("POST", f"{mount}/config", {"delete_version_after": "24h"})
    with refused("vault_wrong_mount"):
        vault.store(PATH, KEY)


def test_a_mount_where_everybody_must_check_and_set_will_do(
    openbao: OpenBao, mount: str, opened: Open
) -> None:
    openbao.do("POST", f"{mount}/config", {"cas_required": True})
    vault = opened()
    vault.check()
    vault.store(PATH, Secret("first"))
    vault.store(PATH, Secret("second"))
    assert vault.open(PATH) == Secret("second")


def test_a_namespace_that_is_not_there_says_so(openbao: OpenBao, mount: str, tmp_path: Path) -> None:
    login = openbao.login(tmp_path, policy_for(mount))
    place = Place(openbao.address, "nowhere", None, timedelta(seconds=30))
    vault = OpenBaoVault(place, login, mount=mount, permits=1, clock=SystemClock())
    with closing(vault), pytest.raises(VaultRefusedError):
        vault.check()


def test_everything_may_lie_in_a_namespace(openbao: OpenBao, tmp_path: Path) -> None:
    if openbao.ask("POST", "sys/namespaces/team").status_code == 404:
        pytest.skip("this vault knows no namespaces")
    inside = replace(openbao, namespace="team")
    with closing(inside.client):
        mount = inside.mount()
        with closing(open_vault(inside, inside.login(tmp_path, policy_for(mount)), mount)) as vault:
            vault.check()
            vault.store(PATH, KEY)
            assert vault.open(PATH) == KEY
            assert vault.paths() == [PATH]
            vault.destroy(PATH)


# Kubernetes.


@contextmanager
def cluster() -> Iterator[tuple[str, list[str]]]:
    """The one route of a cluster's API server that the vault asks: who a token is of. Its tokens are the
    texts in the list, all of the same service account."""
    good: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            status: dict[str, Any] = {"authenticated": asked["spec"]["token"] in good}
            if status["authenticated"]:
                claims = json.loads(base64.urlsafe_b64decode(asked["spec"]["token"].split(".")[1] + "=="))
                account = claims["kubernetes.io"]["serviceaccount"]
                status["audiences"] = claims["aud"]
                status["user"] = {"username": claims["sub"], "uid": account["uid"], "groups": []}
            body = json.dumps(asked | {"status": status}).encode()
            self.send_response(201)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name for it
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", good
        finally:
            server.shutdown()
            thread.join()


def test_a_pod_logs_in_by_its_service_account(openbao: OpenBao, mount: str, tmp_path: Path) -> None:
    issuer, name, file = Issuer(), f"k8s-{mount}", tmp_path / "token"
    openbao.do("POST", f"sys/auth/{name}", {"type": "kubernetes"})
    openbao.do("PUT", f"sys/policies/acl/{name}", {"policy": policy_for(mount)})
    with cluster() as (address, good):
        authority = self_signed(tmp_path / "tls", "127.0.0.1").certificate.read_text()
        config = {
            "kubernetes_host": address,
            "kubernetes_ca_cert": authority,  # must be there, also where there is no TLS
            "disable_local_ca_jwt": True,
        }
        openbao.do("POST", f"auth/{name}/config", config)
        bound = {"bound_service_account_names": "taskcred", "bound_service_account_namespaces": "default"}
        openbao.do("POST", f"auth/{name}/role/web", {**bound, "token_policies": [name], "token_ttl": "1h"})

        def mounted() -> str:
            token = issuer.token(address, account="taskcred", namespace="default")
            file.write_text(token)
            return token

        clock = FrozenClock()
        with closing(open_vault(openbao, KubernetesLogin("web", file, name), mount, clock=clock)) as vault:
            mounted()
            with refused("vault_login_refused"):
                vault.check()  # the cluster does not know it
            good.append(mounted())
            vault.store(PATH, KEY)
            good[:] = [mounted()]  # the kubelet replaced it
            clock.advance(timedelta(hours=2))
            assert vault.open(PATH) == KEY
    issuer.close()


# TLS.


def test_an_authority_of_ones_own_is_trusted_where_it_is_named(
    sealable_openbao: OpenBao, tmp_path: Path
) -> None:
    mount = sealable_openbao.mount()
    login = sealable_openbao.login(tmp_path, policy_for(mount))

    def secured(ca_file: Path | None) -> OpenBaoVault:
        place = Place(sealable_openbao.tls_address, "", ca_file, timedelta(seconds=30))
        return OpenBaoVault(place, login, mount=mount, permits=1, clock=SystemClock())

    with closing(secured(sealable_openbao.certificate)) as vault:
        vault.store(PATH, KEY)
        assert vault.open(PATH) == KEY
    with closing(secured(None)) as vault, pytest.raises(VaultUnreachableError, match="TLS certificate"):
        vault.check()
    with closing(secured(tmp_path / "none.pem")) as vault, pytest.raises(VaultUnreachableError) as error:
        vault.check()
    assert "ca_file" in error.value.hint


# Sealed, away, hung.


@pytest.mark.promise("never-interrupted")
def test_sealed_in_mid_use_and_unsealed_again(sealable_openbao: OpenBao, tmp_path: Path) -> None:
    mount = sealable_openbao.mount()
    login = sealable_openbao.login(tmp_path, policy_for(mount))
    with closing(open_vault(sealable_openbao, login, mount)) as vault:
        vault.store(PATH, KEY)
        sealable_openbao.seal()
        try:
            acts: list[Callable[[], object]] = [
                lambda: vault.open(PATH),
                lambda: vault.store(PATH, Secret("another")),
                lambda: vault.destroy(PATH),
                vault.paths,
                vault.check,
            ]
            for act in acts:
                with pytest.raises(VaultSealedError):
                    act()
            with (
                closing(open_vault(sealable_openbao, login, mount)) as fresh,
                pytest.raises(VaultSealedError),
            ):
                fresh.check()  # a login meets the same
        finally:
            sealable_openbao.unseal()
        assert vault.open(PATH) == KEY
        assert vault.paths() == [PATH]
        assert vault.failures() == {"vault_sealed": len(acts)}


@pytest.mark.promise("last-good-key")
def test_a_standby_is_not_believed_that_a_record_is_missing_or_destroyed(
    sealable_openbao: OpenBao, tmp_path: Path
) -> None:
    mount = sealable_openbao.mount()
    login = sealable_openbao.login(tmp_path, policy_for(mount))
    with (
        standby_of(sealable_openbao, tmp_path) as standby,
        closing(open_vault(standby, login, mount)) as vault,
        closing(open_vault(sealable_openbao, login, mount)) as active,
    ):
        with pytest.raises(VaultUnreachableError, match="standby"):
            vault.open(PATH)
        with pytest.raises(RecordNotFoundError):
            active.open(PATH)
        active.store(PATH, KEY)

        def has_heard() -> bool:
            try:
                return vault.store_once(PATH, Secret("another")) == KEY
            except VaultRefusedError:  # it lags behind, and what it forwards is refused
                return False

        eventually(has_heard, "the standby has the record")
        with pytest.raises(VaultUnreachableError, match="standby"):
            vault.destroy(PATH)
        assert active.open(PATH) == KEY


def away(
    address: str, *, timeout: float = 30.0, permits: int = 1, ca_file: Path | None = None
) -> OpenBaoVault:
    """A vault whose server is something else; its login is never come to, or never answered."""
    place = Place(address, "", ca_file, timedelta(seconds=timeout))
    login = AppRoleLogin("role", Path(__file__))
    return OpenBaoVault(place, login, mount="taskcred", permits=permits, clock=SystemClock())


def test_a_server_that_is_not_there_is_unreachable() -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))  # bound and not listening: refused
        with closing(away(f"http://127.0.0.1:{nobody.getsockname()[1]}")) as vault:
            with pytest.raises(VaultUnreachableError, match="cannot be reached"):
                vault.check()
            assert vault.failures() == {"vault_unreachable": 1}


@contextmanager
def silent() -> Iterator[tuple[str, threading.Event, threading.Event]]:
    """A server that accepts and never answers; set when it has been asked, and to let it hang up."""
    asked, enough = threading.Event(), threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def accept() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(1)
                asked.set()
                enough.wait(60)

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}", asked, enough
        finally:
            enough.set()
            thread.join()


def test_a_server_that_hangs_is_given_up_in_time() -> None:
    late = pytest.raises(VaultUnreachableError, match="did not answer in time")
    with silent() as (address, *_), closing(away(address, timeout=0.2)) as vault, late:
        vault.check()


def test_a_server_that_hangs_holds_no_more_threads_than_allowed() -> None:
    with (
        silent() as (address, asked, enough),
        closing(away(address)) as vault,
        ThreadPoolExecutor(1) as threads,
    ):
        hung = threads.submit(vault.check)
        assert asked.wait(60)
        with pytest.raises(VaultUnreachableError, match="as are allowed at once"):
            vault.check()
        enough.set()
        with pytest.raises(VaultUnreachableError, match="cannot be reached"):
            hung.result()
        assert vault.failures() == {"vault_unreachable": 2}


@contextmanager
def answering(answer: bytes) -> Iterator[str]:
    """A server that has one answer for everybody."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def accept() -> None:
            with listener.accept()[0] as connection:
                connection.recv(65536)
                connection.sendall(answer)

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        thread.join()


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\nno", "no vault"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", "no vault"),
        (b"HTTP/1.1 307 Go\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n", "no vault"),
        (b"HTTP/1.1 502 Bad\r\nContent-Length: 0\r\n\r\n", "ill"),
        (b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n", "ill"),
        (b"HTTP/1.1 429 Slow\r\nContent-Length: 0\r\n\r\n", "slow down"),
        (b"nonsense\r\n\r\n", "cannot be reached"),
    ],
)
def test_what_is_no_vault_is_not_believed(answer: bytes, words: str) -> None:
    doubt = pytest.raises(VaultUnreachableError, match=words)
    with answering(answer) as address, closing(away(address)) as vault, doubt:
        vault.check()


def test_what_is_not_destroyed_by_a_vault_is_not_taken_for_destroyed(
    opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    vault = opened()
    vault.store(PATH, KEY)
    with answering(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok") as address:
        delete = KvV2.delete_metadata_and_all_versions

        def elsewhere(kv: KvV2, *arguments: Any, **options: Any) -> Any:
            kv._adapter.base_uri = address  # a proxy that answers everything by itself
            return delete(kv, *arguments, **options)

        monkeypatch.setattr(KvV2, "delete_metadata_and_all_versions", elsewhere)
        with pytest.raises(VaultUnreachableError, match="no vault"):
            vault.destroy(PATH)
    assert vault.open(PATH) == KEY


def test_no_error_shows_a_secret(openbao: OpenBao, mount: str, opened: Open, tmp_path: Path) -> None:
    login = openbao.login(tmp_path, policy_for(mount))
    secret_id = login.secret_id_file.read_text().strip()
    shown: list[str] = []
    for act in (
        lambda: opened(on="nowhere").store(PATH, KEY),
        lambda: opened(policy=policy_for("elsewhere")).store(PATH, KEY),
        lambda: open_vault(openbao, AppRoleLogin(secret_id, login.secret_id_file), mount).check(),
    ):
        with pytest.raises(TaskcredError) as error:
            act()
        shown.append(f"{error.value.message} {error.value.hint} {error.value.details}")
        assert error.value.__cause__ is None
        assert error.value.__suppress_context__
    assert not any(text in each for each in shown for text in (KEY.reveal(), secret_id))


def test_a_record_that_is_not_there_is_no_failure(opened: Open) -> None:
    vault = opened()
    with pytest.raises(RecordNotFoundError):
        vault.open(PATH)
    assert vault.failures() == {}
