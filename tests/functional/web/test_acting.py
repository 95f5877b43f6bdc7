"""Acting for a service id on the pages: offered, said on every page, ended at once with the permission."""

from __future__ import annotations

import re

import httpx
import pytest

from taskcred.services import credentials
from tests.browser.house import House, Resident
from tests.functional.web.conftest import Client, post


@pytest.fixture
def robot(house: House, ada: Resident) -> str:
    iam_id = house.provider.add_service_id(ada.account_id, "nightly")
    house.provider.allow_act(ada.iam_id, iam_id)
    return iam_id


def _act(browser: httpx.Client, robot: str, return_to: str = "/") -> httpx.Response:
    answer = post(browser, "/account", account_id=f"act-for:{robot}", return_to=return_to)
    assert answer.status_code == 303, answer.text
    return browser.get(answer.headers["Location"])


def test_the_switcher_offers_the_service_ids_and_the_page_says_who_one_is(
    ada: Resident, robot: str, client: Client
) -> None:
    browser = client(ada)
    page = browser.get("/runs").text
    assert f'<option value="act-for:{robot}">Acting for nightly</option>' in page
    assert 'name="return_to" value="/runs"' in page
    assert "You are acting for" not in page
    _act(browser, robot)
    for path in ("/", "/tasks", "/runs", "/schedules", "/profile/api-key", "/profile/activity"):
        page = browser.get(path).text
        assert "You are acting for the service id <strong>nightly</strong>" in page
        assert f'<option value="act-for:{robot}" selected>' in page
        assert "Ada Lovelace" in page


def test_who_has_no_service_id_sees_nothing_of_it(ada: Resident, client: Client) -> None:
    assert "service id" not in client(ada).get("/").text


def test_a_key_is_made_for_the_service_id_and_not_for_the_person(
    house: House, ada: Resident, robot: str, client: Client
) -> None:
    browser = client(ada)
    _act(browser, robot)
    made = post(browser, "/profile/api-key/create", source="generate", name="Its own", expiry="90", once="1")
    assert made.status_code == 303, made.text
    (key,) = house.provider.keys_of(robot, ada.account_id)
    assert key.iam_id == robot
    assert credentials.list_own(house.ctx, ada.principal) == []
    assert "by you" in browser.get("/profile/api-key").text
    assert "You" in browser.get("/profile/activity").text
    back = post(browser, "/account", account_id=ada.account_id)
    assert back.status_code == 303
    assert "You are acting for" not in browser.get("/").text
    assert "Its own" not in browser.get("/profile/api-key").text


@pytest.mark.promise("at-once")
def test_a_page_says_that_the_permission_is_gone_and_the_session_ends(
    house: House, ada: Resident, robot: str, client: Client
) -> None:
    browser = client(ada)
    _act(browser, robot)
    house.provider.disallow_act(ada.iam_id, robot)
    page = browser.get("/runs")
    assert page.status_code == 403
    assert "You may not act for this service id" in page.text
    assert 'href="/sign-in"' in page.text or f'href="{house.url}/sign-in"' in page.text
    assert browser.get("/runs").status_code == 303  # to sign in


def test_a_link_to_what_is_a_service_ids_leads_there(
    house: House, ada: Resident, robot: str, client: Client
) -> None:
    browser = client(ada)
    _act(browser, robot)
    started = post(browser, "/tasks/count-keys", once="1")
    prompt_path = started.headers["Location"].partition("?")[0]
    assert prompt_path.startswith("/prompts/")
    post(browser, "/account", account_id=ada.account_id)
    page = browser.get(prompt_path)
    assert page.status_code == 404
    assert "This belongs to the service id nightly" in page.text
    there = _act(browser, robot, return_to=prompt_path)
    assert there.status_code == 200
    assert str(there.url).endswith(prompt_path)
    # And the other way round.
    own = house.start(ada)
    page = browser.get(f"/runs/{own.id}")
    assert (page.status_code, "This belongs to you" in page.text) == (404, True)


@pytest.mark.promise("parked-not-failed")
def test_work_of_a_service_id_that_waits_is_told_to_who_may_act_for_it(
    house: House, ada: Resident, robot: str, client: Client
) -> None:
    browser = client(ada)
    assert "needs a key" not in browser.get("/").text
    _act(browser, robot)
    post(browser, "/tasks/count-keys", once="1")
    assert "The service id nightly needs a key" not in browser.get("/").text  # it says so as its own
    post(browser, "/account", account_id=ada.account_id)
    page = browser.get("/").text
    assert "The service id nightly needs a key" in page
    (prompt,) = re.findall(r'name="return_to" value="(/prompts/[^"]+)"', page)
    assert _act(browser, robot, return_to=prompt).status_code == 200
    assert "needs a key" not in client(house.move_in("Bob")).get("/").text


def test_a_link_to_what_is_somebody_elses_leads_nowhere(
    house: House, ada: Resident, robot: str, client: Client
) -> None:
    bob = house.move_in("Bob")
    browser = client(bob)
    run = house.start(ada)
    assert "This belongs to" not in browser.get(f"/runs/{run.id}").text
    house.provider.disallow_act(ada.iam_id, robot)
    assert "This belongs to" not in client(ada).get(f"/runs/{house.start(bob).id}").text
