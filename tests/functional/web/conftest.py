"""The pages over HTTP, without a browser."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from datetime import timedelta

import httpx
import pytest

from tests.browser.house import House, Resident


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """A server for the tests of a module."""
    opened = House(tmp_path_factory.mktemp("house"))
    yield opened
    opened.close()


@pytest.fixture
def ada(house: House) -> Resident:
    """A person who has nothing yet."""
    return house.move_in()


Client = Callable[..., httpx.Client]


@pytest.fixture
def client(house: House) -> Iterator[Client]:
    """An HTTP client that behaves like a browser in which the person given is signed in."""
    opened: list[httpx.Client] = []

    def open_client(who: Resident | None = None, *, signed_in_ago: timedelta = timedelta(0)) -> httpx.Client:
        made = httpx.Client(base_url=house.url, headers={"Accept": "text/html,*/*;q=0.8"}, timeout=30)
        opened.append(made)
        if who is not None:
            cookie = house.cookie(who, signed_in_ago=signed_in_ago)
            made.cookies.set(cookie["name"], cookie["value"], domain="127.0.0.1")
        return made

    yield open_client
    for each in opened:
        each.close()


def form_token(page: httpx.Response) -> str:
    """The CSRF token of a page's forms."""
    found = re.search(r'name="csrf_token" value="([^"]+)"', page.text)
    assert found is not None
    return found[1]


def post(client: httpx.Client, path: str, **fields: str) -> httpx.Response:
    """Send a form as the page at the home address would: with its CSRF token."""
    return client.post(path, data={"csrf_token": form_token(client.get("/")), **fields})
