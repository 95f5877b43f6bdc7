"""Create, rotate and delete a key with the keyboard alone, the focus never lost."""

from __future__ import annotations

from playwright.sync_api import Page, expect

from taskcred.services import credentials
from tests.browser.conftest import Visit
from tests.browser.house import House, Resident

_FOCUSED = """() => {
  const element = document.activeElement;
  if (!element || element === document.body) return "";
  const label = element.labels?.[0]?.textContent ?? "";
  return (element.getAttribute("aria-label") || label || element.textContent || "").trim();
}"""
_RING = "getComputedStyle(document.activeElement).outlineStyle"


def _tab_to(page: Page, name: str) -> None:
    """Press Tab until the element of that name has the focus, which must be visible all the way."""
    for _ in range(60):
        page.keyboard.press("Tab")
        if page.evaluate(_FOCUSED) == name:
            assert page.evaluate(_RING) != "none", f"nobody sees that {name} has the focus"
            return
    raise AssertionError(f"Tab never reached {name}")


def test_the_skip_link_comes_first(ada: Resident, visit: Visit) -> None:
    page = visit(ada)
    page.goto("/profile/api-key")
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to content")).to_be_focused()
    expect(page.get_by_role("link", name="Skip to content")).to_be_in_viewport()
    page.keyboard.press("Enter")
    expect(page.locator("#main")).to_be_focused()


def test_create_rotate_and_delete_by_keyboard(house: House, ada: Resident, visit: Visit) -> None:
    page = visit(ada)
    page.goto("/profile/api-key")
    _tab_to(page, "Create key")
    page.keyboard.press("Enter")
    page.get_by_role("heading", name="Create key").wait_for()
    _tab_to(page, "Create key")
    page.keyboard.press("Enter")
    # Nothing filled in: the summary has the focus, its link leads to the field.
    expect(page.get_by_role("alert")).to_be_focused()
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(page.get_by_label("Name")).to_be_focused()
    page.keyboard.type("My nightly reports")
    page.keyboard.press("Enter")
    expect(page.get_by_text("Your key was created")).to_be_focused()

    _tab_to(page, "Rotate key")
    page.keyboard.press("Enter")
    page.get_by_role("heading", name="Rotate key").wait_for()
    _tab_to(page, "After running jobs")
    page.keyboard.press("ArrowDown")
    expect(page.get_by_label("Now")).to_be_checked()
    _tab_to(page, "Rotate key")
    page.keyboard.press("Enter")
    expect(page.get_by_text("Your key was rotated")).to_be_focused()

    _tab_to(page, "Delete")
    page.keyboard.press("Enter")
    page.get_by_role("heading", name="What would break").wait_for()
    _tab_to(page, "Type the name to confirm")
    page.keyboard.type("My nightly reports")
    page.keyboard.press("Enter")
    expect(page.get_by_text("was deleted")).to_be_focused()
    assert credentials.list_own(house.ctx, ada.principal) == []


def test_the_focus_survives_a_table_that_renews_itself(house: House, ada: Resident, visit: Visit) -> None:
    run = house.start(ada)
    page = visit(ada)
    page.goto("/runs")
    link = page.get_by_role("link", name="Give a key")
    link.focus()
    with page.expect_response(lambda response: "/runs/live" in response.url and response.status == 200):
        house.start(ada, "count-keys")
    expect(page.locator(f"#prompt-{run.id}")).to_be_focused()
