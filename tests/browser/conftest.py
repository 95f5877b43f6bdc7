"""Browser tests: headless Chromium against a real server. Without Chromium they are skipped, aloud."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Page

from tests.browser.house import House, Resident


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """A server for the tests of a module; each test brings its own person."""
    opened = House(tmp_path_factory.mktemp("house"))
    yield opened
    opened.close()


@pytest.fixture
def ada(house: House) -> Resident:
    """A person who has nothing yet."""
    return house.move_in()


Visit = Callable[..., Page]


@pytest.fixture
def visit(browser: Browser, house: House) -> Iterator[Visit]:
    """Open a browser window, signed in as the person given; keyword arguments are the window's settings."""
    windows: list[BrowserContext] = []
    complaints: list[str] = []

    def open_window(
        who: Resident | None = None, *, signed_in_ago: timedelta = timedelta(0), **settings: Any
    ) -> Page:
        window = browser.new_context(base_url=house.url, **settings)
        windows.append(window)
        if who is not None:
            window.add_cookies([house.cookie(who, signed_in_ago=signed_in_ago)])  # type: ignore[list-item]  # a plain dict will do
        page = window.new_page()
        page.set_default_timeout(10_000)
        page.on("pageerror", lambda error: complaints.append(f"script: {error}"))
        page.on(
            "console",
            lambda message: complaints.append(message.text) if "Content Security" in message.text else None,
        )
        return page

    yield open_window
    for window in windows:
        window.close()
    assert not complaints, "a page's script failed or our own policy blocked a part of it"
