"""What every Vault does: one suite over each implementation."""

from __future__ import annotations

from collections.abc import Callable, Iterator
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


@pytest.fixture(params=["memory", "embedded"])
def vault(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Vault]:
    if request.param == "memory":
        yield InMemoryVault()
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


@pytest.fixture
def new_vault(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[], EmbeddedVault]]:
    made: list[EmbeddedVault] = []

    def make() -> EmbeddedVault:
        directory = tmp_path_factory.mktemp("vault")
        made.append(EmbeddedVault(directory / "vault.db", MasterKeyFile.locate(directory, None, {})))
        return made[-1]

    yield make
    for vault in made:
        vault.close()


@given(acts=acts)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_embedded_vault_does_what_a_dictionary_does(
    new_vault: Callable[[], EmbeddedVault], acts: list[Act]
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
