"""Zoomed to 200 and 400 per cent, and with text twice as large, nothing is cut off or scrolls sideways."""

from __future__ import annotations

import pytest

from tests.browser.conftest import Visit
from tests.browser.house import House, Resident
from tests.browser.scenes import SCENES

_TOO_WIDE = "document.documentElement.scrollWidth - document.documentElement.clientWidth"


@pytest.mark.parametrize("name", SCENES)
def test_no_page_scrolls_sideways(house: House, ada: Resident, visit: Visit, name: str) -> None:
    scene = SCENES[name]
    # 1280 px wide at 100 % are 640 px at 200 % and 320 px at 400 % (WCAG 1.4.10).
    page = visit(ada, viewport={"width": 640, "height": 512})
    page.goto(scene.arrange(house, ada))
    if scene.act:
        scene.act(page)
    assert page.evaluate(_TOO_WIDE) <= 0
    page.set_viewport_size({"width": 320, "height": 256})
    assert page.evaluate(_TOO_WIDE) <= 0
    page.set_viewport_size({"width": 1280, "height": 1024})
    page.evaluate("document.documentElement.style.fontSize = '200%'")
    assert page.evaluate(_TOO_WIDE) <= 0
