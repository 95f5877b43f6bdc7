"""The list of keys: what it offers for each."""

from __future__ import annotations

import re

import pytest

from taskcred.domain.credentials import Drain, Generated, KeyState
from taskcred.services import credentials
from tests.browser.house import House, Resident
from tests.functional.web.conftest import Client


@pytest.mark.parametrize("leaked", [False, True])
def test_only_a_key_that_can_still_be_ended_can_be_ended_on_the_page(
    house: House, ada: Resident, client: Client, leaked: bool
) -> None:
    credential_id = house.give_key(ada)
    house.rotate(ada)
    credentials.rotate(
        house.ctx, ada.principal, credential_id, source=Generated(), drain=Drain("now"), leaked=leaked
    )
    keys = {key.id: key.state for key in credentials.keys(house.ctx, ada.principal, credential_id)}
    assert set(keys.values()) == {KeyState.ACTIVE, KeyState.PHASED_OUT, KeyState.DESTROYED}
    page = client(ada).get("/profile/api-key").text
    assert "Earlier keys (1)" in page
    offered = re.findall(r"/profile/api-key/keys/([^/]+)/end", page)
    assert offered == [key_id for key_id, state in keys.items() if state is KeyState.PHASED_OUT]
