"""axe finds nothing: every page, in every state, in light and in dark."""

from __future__ import annotations

from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page

from tests.browser.conftest import Visit
from tests.browser.house import House, Resident
from tests.browser.scenes import SCENES

_EVERYTHING = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]


def _violations(page: Page, *rules: str) -> list[dict[str, Any]]:
    options = {"runOnly": {"type": "rule", "values": list(rules)} if rules else _EVERYTHING}
    found = Axe().run(page, options=options)
    violations: list[dict[str, Any]] = found.response["violations"]
    if violations:
        print(found.generate_report())  # noqa: T201 - pytest shows it with the failure
    return violations


@pytest.mark.parametrize("name", SCENES)
def test_axe_finds_nothing(house: House, ada: Resident, visit: Visit, name: str) -> None:
    scene = SCENES[name]
    page = visit(ada, reduced_motion="reduce")
    page.goto(scene.arrange(house, ada))
    if scene.act:
        scene.act(page)
    assert not _violations(page)
    # Dark differs in colours only.
    page.emulate_media(color_scheme="dark", reduced_motion="reduce")
    assert not _violations(page, "color-contrast", "link-in-text-block")


def test_axe_finds_nothing_on_the_page_for_strangers(visit: Visit) -> None:
    page = visit(reduced_motion="reduce")
    page.goto("/")
    assert not _violations(page)
    page.emulate_media(color_scheme="dark", reduced_motion="reduce")
    assert not _violations(page, "color-contrast", "link-in-text-block")


def test_axe_would_find_what_is_wrong(ada: Resident, visit: Visit) -> None:
    page = visit(ada)
    page.goto("/profile/api-key/create")
    page.evaluate("document.querySelector('label[for=name]').remove()")
    page.evaluate("document.querySelector('h1').style.color = '#bbbbbb'")
    assert {found["id"] for found in _violations(page)} >= {"label", "color-contrast"}
