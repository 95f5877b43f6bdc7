"""What every Vault does: one suite over each implementation."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from taskcred.domain.secret import Secret
from taskcred.errors import RecordNotFoundError
from taskcred.ports import Vault
from taskcred.testing import InMemoryVault
from taskcred.vaults.embedded import EmbeddedVault
from taskcred.vaults.master_key import MasterKeyFile
from taskcred.vaults.openbao import OpenBaoVault
from tests.support.openbao import OpenBao, open_vault, policy_for


@pytest.fixture(params=["memory", "embedded", "openbao"])
def vault(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Vault]:
    if request.param == "memory":
        yield InMemoryVault()
        return
    if request.param == "openbao":
        # With the policy that we ship and nothing else, so that the suite says whether it suffices.
        server: OpenBao = request.getfixturevalue("openbao")
        mount = server.mount()
        with closing(open_vault(server, server.login(tmp_path, policy_for(mount)), mount)) as openbao:
            yield openbao
        return
    embedded = EmbeddedVault(tmp_path / "vault.db", MasterKeyFile.locate(tmp_path, None, {}))
    yield embedded
    embedded.close()


def test_what_was_stored_is_opened(vault: Vault) -> None:
    vault.store("credentials/a/1", Secret("first"))
    assert vault.open("credentials/a/1") == Secret("first")


def test_storing_again_replaces(vault: Vault) -> None:
    vault.store("credentials/a/1", Secret("first"))
    vault.store("credentials/a/1", Secret("second"))
    assert vault.open("credentials/a/1") == Secret("second")
    assert vault.paths() == ["credentials/a/1"]


def test_storing_once_keeps_what_was_first(vault: Vault) -> None:
    assert vault.store_once("credentials/a/1", Secret("first")) == Secret("first")
    assert vault.store_once("credentials/a/1", Secret("second")) == Secret("first")
    assert vault.open("credentials/a/1") == Secret("first")


def test_however_many_store_once_at_once_all_are_answered_the_same(vault: Vault) -> None:
    barrier = threading.Barrier(4)

    def store(number: int) -> Secret:
        barrier.wait()
        return vault.store_once("credentials/a/1", Secret(f"from {number}"))

    with ThreadPoolExecutor(4) as threads:
        answers = set(threads.map(store, range(4)))
    assert answers == {vault.open("credentials/a/1")}


def test_an_empty_secret_is_one_too(vault: Vault) -> None:
    vault.store("credentials/a/1", Secret(""))
    assert vault.open("credentials/a/1") == Secret("")
    assert vault.store_once("credentials/a/1", Secret("second")) == Secret("")


def test_a_path_that_was_destroyed_can_be_stored_at_again(vault: Vault) -> None:
    vault.store("credentials/a/1", Secret("first"))
    vault.destroy("credentials/a/1")
    assert vault.store_once("credentials/a/1", Secret("second")) == Secret("second")
    assert vault.open("credentials/a/1") == Secret("second")


def test_opening_what_is_not_there_says_so(vault: Vault) -> None:
    vault.store("credentials/a/1", Secret("first"))
    with pytest.raises(RecordNotFoundError) as refused:
        vault.open("credentials/a/2")
    assert "credentials/a/2" in refused.value.message


def test_destroyed_is_gone_and_destroying_again_does_nothing(vault: Vault) -> None:
    vault.store("credentials/a/1", Secret("first"))
    vault.destroy("credentials/a/1")
    vault.destroy("credentials/a/1")
    assert vault.paths() == []
    with pytest.raises(RecordNotFoundError):
        vault.open("credentials/a/1")


def test_paths_are_sorted_and_limited_to_the_prefix_as_it_is_written(vault: Vault) -> None:
    for path in ("b/2", "a/1", "b/1", "B/1", "b_1", "b%1", "ab/1"):
        vault.store(path, Secret("x"))
    assert vault.paths("b/") == ["b/1", "b/2"]
    assert vault.paths("b_") == ["b_1"]
    assert vault.paths("b%") == ["b%1"]
    assert vault.paths() == sorted(["b/2", "a/1", "b/1", "B/1", "b_1", "b%1", "ab/1"])


def test_a_healthy_vault_passes_its_check(vault: Vault) -> None:
    vault.check()
    assert vault.failures() == {}


# Everything but surrogates, which no UTF-8 text has, and controls: generated as such, not filtered.
printable = st.characters(exclude_categories=("C", "Z"))
Act = tuple[str, str, str]
acts: st.SearchStrategy[list[Act]] = st.lists(
    st.tuples(
        st.sampled_from(["store", "destroy"]),
        st.text(printable, min_size=1, max_size=8),
        st.text(printable, max_size=40),
    ),
    max_size=12,
)


@pytest.fixture(params=["embedded", "openbao"])
def new_vault(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[], EmbeddedVault | OpenBaoVault]]:
    made: list[EmbeddedVault | OpenBaoVault] = []

    def make() -> EmbeddedVault | OpenBaoVault:
        directory = tmp_path_factory.mktemp("vault")
        if request.param == "openbao":
            server: OpenBao = request.getfixturevalue("openbao")
            mount = server.mount()
            made.append(open_vault(server, server.login(directory, policy_for(mount)), mount))
        else:
            made.append(EmbeddedVault(directory / "vault.db", MasterKeyFile.locate(directory, None, {})))
        return made[-1]

    yield make
    for vault in made:
        vault.close()


@given(acts=acts)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_vault_does_what_a_dictionary_does(
    new_vault: Callable[[], EmbeddedVault | OpenBaoVault], acts: list[Act]
) -> None:
    vault, model = new_vault(), InMemoryVault()
    for act, path, text in acts:
        for each in (vault, model):
            if act == "store":
                each.store(path, Secret(text))
            else:
                each.destroy(path)
    assert vault.paths() == model.paths()
    for path in model.paths():
        assert vault.open(path) == model.open(path)
