"""Consent in a real browser, whose own rules hold a form's redirect too; and its end."""

from __future__ import annotations

from urllib.parse import parse_qsl, urlencode, urlsplit

import pytest
from playwright.sync_api import Page, expect

from taskcred.domain.grants import GrantState
from taskcred.services import grants
from tests.browser.conftest import Visit
from tests.browser.house import House, Resident

BACK = "https://notebooks.example.test/back"


def _arrive(page: Page) -> None:
    """What the service's own page is to the browser."""
    page.route(f"{BACK}**", lambda route: route.fulfill(body="<h1>Notebooks</h1>", content_type="text/html"))


def _link(house: House) -> str:
    query = {"service": house.service(BACK), "tasks": "count-keys", "return_to": BACK, "state": "s 1"}
    return f"/grants/new?{urlencode(query)}"


def _told(page: Page) -> dict[str, str]:
    """What the address says that the browser was led to."""
    page.get_by_role("heading", name="Notebooks").wait_for()
    return dict(parse_qsl(urlsplit(page.url).query))


@pytest.mark.parametrize("script", [True, False], ids=["with scripts", "without"])
def test_allow_leads_back_with_the_grant_and_refuse_without(
    house: House, ada: Resident, visit: Visit, script: bool
) -> None:
    house.give_key(ada)
    page = visit(ada, java_script_enabled=script)
    _arrive(page)
    link = _link(house)
    page.goto(link)
    page.get_by_role("button", name="Refuse").click()
    assert _told(page) == {"error": "access_denied", "state": "s 1"}
    assert grants.list_own(house.ctx, ada.principal)[0] == []
    page.goto(link)
    page.get_by_label("For how long").select_option("7 days")
    page.get_by_role("button", name="Allow").click()
    told = _told(page)
    (grant,) = grants.list_own(house.ctx, ada.principal)[0]
    assert told == {"grant_id": grant.id, "state": "s 1"}
    assert (grant.expires_at - grant.created_at).days == 7


def test_without_a_key_the_way_leads_through_its_making(house: House, ada: Resident, visit: Visit) -> None:
    page = visit(ada, java_script_enabled=False)
    _arrive(page)
    page.goto(_link(house))
    page.get_by_role("button", name="Allow").click()
    expect(page.get_by_text("One thing is missing.")).to_be_visible()
    page.get_by_role("link", name="Create key").click()
    page.get_by_label("Name").fill("Mine")
    page.get_by_role("button", name="Create key").click()
    expect(page.get_by_text("Everything is in place.")).to_be_visible()
    page.get_by_role("link", name="Back to Notebook server").click()
    assert _told(page)["state"] == "s 1"


def test_a_grant_is_ended_by_keyboard(house: House, ada: Resident, visit: Visit) -> None:
    house.give_key(ada)
    grant = house.grant(ada)
    run_id = house.start_under(grant)
    page = visit(ada)
    page.goto("/profile/grants")
    page.get_by_role("link", name="End", exact=True).focus()
    page.keyboard.press("Enter")
    expect(page.get_by_text("1 run will be ended at once")).to_be_visible()
    page.get_by_role("button", name="End grant").focus()
    page.keyboard.press("Enter")
    expect(page.get_by_text("The grant was ended.")).to_be_focused()
    assert grants.get(house.ctx, ada.principal, grant.id).state is GrantState.ENDED
    page.goto(f"/runs/{run_id}")
    expect(page.get_by_text("The grant it was started under was ended.")).to_be_visible()
