"""Everything works without JavaScript: forms, links and whole pages."""

from __future__ import annotations

import pytest
from playwright.sync_api import Page, expect

from taskcred.domain.runs import AttemptOutcome
from taskcred.services import attempts, credentials, reports, runs, schedules
from tests.browser.conftest import Visit
from tests.browser.house import House, Resident


@pytest.fixture
def page(ada: Resident, visit: Visit) -> Page:
    """A window without JavaScript."""
    return visit(ada, java_script_enabled=False)


@pytest.mark.promise("parked-not-failed")
def test_run_leads_through_the_prompt_and_back(house: House, ada: Resident, page: Page) -> None:
    page.goto("/tasks/count-keys")
    page.get_by_role("button", name="Run", exact=True).click()
    expect(page.get_by_role("heading", name="A User API key is needed")).to_be_visible()
    expect(page.get_by_role("listitem").filter(has_text="Run Count my API keys")).to_be_visible()
    page.get_by_label("Name").fill("Mine")
    page.get_by_role("button", name="Create key").click()
    (run,) = runs.list_own(house.ctx, ada.principal)[0]
    assert page.url == f"{house.url}/runs/{run.id}"
    expect(page.get_by_text("Queued")).to_be_visible()
    attempt_id = house.work_on(run.id)
    reports.append_output(house.ctx, attempt_id, "three keys\n")
    page.get_by_role("link", name="Refresh").click()
    expect(page.get_by_role("region", name="Output")).to_have_text("three keys\n")
    attempts.finish(house.ctx, attempt_id, AttemptOutcome.SUCCEEDED, exit_code=0)
    page.get_by_role("link", name="Refresh").click()
    expect(page.get_by_text("Succeeded").first).to_be_visible()
    expect(page.get_by_role("link", name="Refresh")).to_have_count(0)


def test_keys_are_created_rotated_and_deleted(house: House, ada: Resident, page: Page) -> None:
    page.goto("/profile/api-key/create")
    page.get_by_label("Name").fill("Mine")
    page.get_by_label("Provide an existing one").check()
    pasted = house.provider.add_key(ada.iam_id, ada.account_id)
    # The browser needs the text, as a person would paste it.
    page.get_by_label("API key", exact=True).fill(pasted.reveal())
    page.get_by_role("button", name="Create key").click()
    expect(page.get_by_role("row", name="Mine")).to_contain_text("Provided by you")
    page.get_by_role("link", name="Rotate key").click()
    page.get_by_role("button", name="Rotate key").click()
    expect(page.get_by_text("Your key was rotated")).to_be_visible()
    page.get_by_role("link", name="Delete", exact=True).click()
    page.get_by_label("Type the name to confirm").fill("Mine")
    page.get_by_role("button", name="Delete key").click()
    expect(page.get_by_text("was deleted")).to_be_visible()
    assert credentials.list_own(house.ctx, ada.principal) == []


def test_a_schedule_is_previewed_and_created(house: House, ada: Resident, page: Page) -> None:
    house.give_key(ada)
    page.goto("/tasks/count-keys")
    page.get_by_role("button", name="Schedule").click()
    page.get_by_label("Times").fill("30 6 1 1 *")
    page.get_by_label("Time zone").fill("Europe/Berlin")
    page.get_by_role("button", name="Show the next times").click()
    expect(page.locator("#preview li")).to_have_count(5)
    expect(page.locator("#preview li").first).to_contain_text("-01-01 06:30 CET")
    page.get_by_role("button", name="Create schedule").click()
    expect(page.get_by_text("The schedule was created")).to_be_visible()
    (schedule,) = schedules.list_own(house.ctx, ada.principal)[0]
    assert schedule.cron == "30 6 1 1 *"
    page.get_by_role("button", name="Pause").click()
    expect(page.get_by_text("Paused", exact=True)).to_be_visible()
    page.get_by_role("button", name="Resume").click()
    expect(page.get_by_text("On", exact=True)).to_be_visible()


def test_acting_for_a_service_id_and_back(house: House, ada: Resident, page: Page) -> None:
    robot = house.provider.add_service_id(ada.account_id, "nightly")
    house.provider.allow_act(ada.iam_id, robot)
    page.goto("/profile/api-key")
    page.get_by_label("Account").select_option(label="Acting for nightly")
    page.get_by_role("button", name="Switch").click()
    strip = page.get_by_role("region", name="Acting for a service id")
    expect(strip).to_contain_text("You are acting for the service id nightly")
    assert page.url == f"{house.url}/profile/api-key"
    page.goto("/profile/api-key/create")
    page.get_by_label("Name").fill("Its own")
    page.get_by_role("button", name="Create key").click()
    expect(page.get_by_role("row", name="Its own")).to_be_visible()
    assert len(house.provider.keys_of(robot, ada.account_id)) == 1
    strip.get_by_role("button", name="Act as yourself again").click()
    expect(strip).to_have_count(0)
    assert house.provider.keys_of(ada.iam_id, ada.account_id) == []
