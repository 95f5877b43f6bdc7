"""Whose grant a job of an engine runs under: never one of another account than was meant."""

from __future__ import annotations

import pytest

from taskcred.adapters.owners import grant_of
from taskcred.client import Client, Grant
from taskcred.errors import ConfigurationError, ForbiddenError

ADA, HERS, OTHER = "IBMid-ADA", "a" * 32, "b" * 32


class Given(Client):
    """A client of a service that was given these grants."""

    def __init__(self, *given: Grant) -> None:
        super().__init__("http://127.0.0.1:1", client_id="sa", client_secret="not asked for")
        self._given = given

    def grants(self) -> list[Grant]:
        return list(self._given)


def grant(account_id: str, state: str = "active", task: str = "train") -> Grant:
    return Grant(
        id=f"{account_id[0]}-{state}-{task}",
        state=state,
        service_id="sa",
        account_id=account_id,
        iam_id=ADA,
        tasks=(task,),
    )


def test_of_one_account_the_name_alone_is_enough() -> None:
    client = Given(grant(HERS, "ended"), grant(HERS), grant(OTHER, task="another"))
    assert grant_of(client, {"ada": ADA}, "ada", "train") == "a-active-train"


def test_of_several_accounts_one_must_be_named() -> None:
    client = Given(grant(OTHER), grant(HERS))
    with pytest.raises(ConfigurationError) as raised:
        grant_of(client, {"ada": ADA}, "ada", "train")
    assert f"{ADA}@{HERS}" in raised.value.hint
    assert f"{ADA}@{OTHER}" in raised.value.hint
    assert grant_of(client, {"ada": f"{ADA}@{HERS}"}, "ada", "train") == "a-active-train"


def test_a_grant_in_another_account_than_the_named_one_is_none() -> None:
    with pytest.raises(ForbiddenError):
        grant_of(Given(grant(OTHER)), {"ada": f"{ADA}@{HERS}"}, "ada", "train")
