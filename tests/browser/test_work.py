"""Tasks, runs, schedules, prompts, tokens and activity as a person meets them."""

from __future__ import annotations

import pytest
from playwright.sync_api import expect

from taskcred.domain.runs import RunState
from taskcred.services import notices, prompts, runs, schedules
from tests.browser.conftest import Visit
from tests.browser.house import House, Resident


def test_a_form_from_a_schema_keeps_values_and_names_what_is_wrong(
    house: House, ada: Resident, visit: Visit
) -> None:
    house.give_key(ada)
    page = visit(ada)
    page.goto("/tasks")
    page.get_by_role("link", name="Train a model").click()
    expect(page.get_by_label("Epochs")).to_have_value("10")
    page.get_by_label("Epochs").fill("500")
    page.get_by_label("Learning rate").fill("fast")
    page.get_by_label("Notes").fill("first\nsecond")
    page.get_by_role("button", name="Run", exact=True).click()
    alert = page.get_by_role("alert")
    expect(alert).to_be_focused()
    expect(alert.get_by_role("link")).to_have_count(4)
    expect(page.get_by_label("Epochs")).to_have_value("500")
    expect(page.get_by_label("Learning rate")).to_have_value("fast")
    expect(page.get_by_label("Notes")).to_have_value("first\nsecond")
    expect(page.get_by_label("Epochs")).to_have_accessible_description(
        "A whole number, from 1 to 100. Error: Epochs must be at most 100."
    )
    alert.get_by_role("link", name="Data set").click()
    expect(page.get_by_label("Data set")).to_be_focused()
    page.get_by_label("Data set").fill("sales")
    page.get_by_label("Epochs").fill("20")
    page.get_by_label("Learning rate").fill("0.01")
    page.get_by_label("Machine size").select_option(label="medium")
    page.get_by_label("Use data until").fill("2026-10-31")
    page.get_by_label("Not before").fill("2026-11-01T06:30")
    page.get_by_label("Publish the result").check()
    page.get_by_label("Labels").fill("a\n\nb")
    page.get_by_label("More options").fill('{"seed": 7}')
    page.get_by_role("button", name="Run", exact=True).click()
    expect(page.get_by_text("The run was started")).to_be_focused()
    (run,) = runs.list_own(house.ctx, ada.principal)[0]
    assert run.parameters == {
        "data_set": "sales",
        "epochs": 20,
        "learning_rate": 0.01,
        "size": "medium",
        "until": "2026-10-31",
        "start_after": "2026-11-01T06:30:00Z",
        "publish": True,
        "labels": ["a", "b"],
        "notes": "first\nsecond",
        "options": {"seed": 7},
    }


def test_schedule_without_a_key_leads_through_the_prompt_and_back(
    house: House, ada: Resident, visit: Visit
) -> None:
    page = visit(ada, timezone_id="Europe/Berlin")
    page.goto("/tasks/train")
    page.get_by_label("Data set").fill("sales")
    page.get_by_label("Machine size").select_option(label="small")
    page.get_by_role("button", name="Schedule").click()
    expect(page.get_by_label("Data set")).to_have_value("sales")
    expect(page.get_by_label("Time zone")).to_have_value("Europe/Berlin")
    page.get_by_label("Times").fill("61 * * * *")
    expect(page.locator("#preview")).to_contain_text("not valid")
    page.get_by_label("Times").fill("0 8 * * 1-5")
    expect(page.locator("#preview li")).to_have_count(5)
    page.get_by_role("button", name="Create schedule").click()
    expect(page.get_by_role("heading", name="A User API key is needed")).to_be_visible()
    expect(page.get_by_role("listitem").filter(has_text="Schedule Train a model")).to_be_visible()
    page.get_by_label("Name").fill("Mine")
    page.get_by_role("button", name="Create key").click()
    expect(page.get_by_role("heading", name="Train a model")).to_be_visible()
    (schedule,) = schedules.list_own(house.ctx, ada.principal)[0]
    assert page.url == f"{house.url}/schedules/{schedule.id}"
    assert (schedule.cron, schedule.timezone) == ("0 8 * * 1-5", "Europe/Berlin")
    assert schedule.parameters["data_set"] == "sales"


def test_a_schedule_is_edited_and_deleted(house: House, ada: Resident, visit: Visit) -> None:
    house.give_key(ada)
    schedule = house.schedule(ada)
    page = visit(ada)
    page.goto("/schedules")
    page.get_by_role("link", name="Every night").click()
    expect(page.locator(".times li")).to_have_count(5)
    page.get_by_role("link", name="Edit").click()
    page.get_by_label("Times").fill("not cron")
    page.get_by_label("Skip it").check()
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_role("alert")).to_be_focused()
    page.get_by_label("Times").fill("15 4 * * *")
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_text("The schedule was saved")).to_be_focused()
    assert schedules.get(house.ctx, ada.principal, schedule.id).cron == "15 4 * * *"
    page.get_by_role("link", name="Delete").click()
    page.get_by_role("button", name="Delete schedule").click()
    expect(page.get_by_text("was deleted")).to_be_focused()
    expect(page.get_by_text("Nothing is scheduled.")).to_be_visible()


@pytest.mark.promise("parked-not-failed")
def test_one_answer_lets_everything_that_waits_go_on(house: House, ada: Resident, visit: Visit) -> None:
    waiting = [house.start(ada).id for _ in range(3)]
    page = visit(ada)
    page.goto("/")
    expect(page.get_by_text("3 runs of yours wait for a User API key.")).to_be_visible()
    page.get_by_role("link", name="Answer now").click()
    page.get_by_label("Name").fill("Mine")
    page.get_by_role("button", name="Create key").click()
    expect(page.get_by_text("What waited for it goes on")).to_be_focused()
    assert {runs.get(house.ctx, ada.principal, run_id).state for run_id in waiting} == {RunState.QUEUED}
    assert prompts.list_own(house.ctx, ada.principal)[0][0].state == "answered"


def test_a_run_is_cancelled(house: House, ada: Resident, visit: Visit) -> None:
    house.give_key(ada)
    run = house.start(ada)
    page = visit(ada)
    page.goto(f"/runs/{run.id}")
    page.get_by_role("link", name="Cancel run").click()
    page.get_by_role("button", name="Cancel run").click()
    expect(page.get_by_text("The run was cancelled")).to_be_focused()
    assert runs.get(house.ctx, ada.principal, run.id).state is RunState.CANCELLED


def test_runs_are_filtered_by_state(house: House, ada: Resident, visit: Visit) -> None:
    waiting = house.start(ada)
    house.give_key(ada)
    runs.cancel(house.ctx, ada.principal, waiting.id)
    house.start(ada)
    page = visit(ada)
    page.goto("/runs")
    expect(page.get_by_role("row")).to_have_count(3)
    page.get_by_label("State").select_option(label="Cancelled")
    page.get_by_role("button", name="Show").click()
    expect(page.get_by_role("row")).to_have_count(2)


def test_live_access_is_shown_and_ended(house: House, ada: Resident, visit: Visit) -> None:
    house.give_key(ada)
    house.work_on(house.start(ada).id)
    page = visit(ada)
    page.goto("/profile")
    page.get_by_role("link", name="Live tokens").click()
    row = page.get_by_role("row", name="Count my API keys")
    expect(row).to_contain_text("Expires in")
    row.get_by_role("link", name="End access").click()
    page.get_by_role("button", name="End access").click()
    expect(page.get_by_text("The run's access was ended")).to_be_focused()


@pytest.mark.promise("audited-or-refused")
def test_activity_tells_who_did_what(house: House, ada: Resident, visit: Visit) -> None:
    house.give_key(ada)
    house.work_on(house.start(ada).id)
    page = visit(ada)
    page.goto("/profile/activity")
    issued = page.get_by_role("row").filter(has_text="A run got an access token")
    expect(issued).to_contain_text("The run")
    expect(page.get_by_role("row").filter(has_text="Created the User API key")).to_contain_text("You")
    with page.expect_download() as download:
        page.get_by_role("link", name="Download as CSV").click()
    assert "credential:create" in download.value.path().read_text()


def test_a_notice_is_put_away(house: House, ada: Resident, visit: Visit) -> None:
    with house.ctx.store.write() as connection:
        notices.add(
            house.ctx,
            connection,
            ada.account_id,
            ada.iam_id,
            "credential_locked",
            {"credential": "Mine", "reason": "A test.", "title": "Your key was locked", "text": "A test."},
        )
    page = visit(ada)
    page.goto("/")
    page.get_by_role("button", name="Put away").click()
    expect(page.get_by_role("button", name="Put away")).to_have_count(0)


def test_the_account_is_switched_in_the_header(house: House, visit: Visit) -> None:
    grace = house.move_in("Grace Hopper", accounts=2)
    house.give_key(grace, "In the first account")
    page = visit(grace)
    page.goto("/profile/api-key")
    expect(page.get_by_role("row", name="In the first account")).to_be_visible()
    page.get_by_label("Account").select_option(label="Acme 2")
    page.get_by_role("button", name="Switch").click()
    page.goto("/profile/api-key")
    expect(page.get_by_text("You have no User API key in this account.")).to_be_visible()
    expect(page.get_by_label("Account").locator("option:checked")).to_have_text("Acme 2")


def test_signing_out_ends_the_session(ada: Resident, visit: Visit) -> None:
    page = visit(ada)
    page.goto("/runs")
    page.get_by_role("button", name="Sign out").click()
    # On to the identity provider, which this house has no pages of.
    page.wait_for_url("**/identity/sign-out")
    page.goto("/")
    expect(page.get_by_role("link", name="Sign in")).to_be_visible()
