"""A run's page lives by polling: progress, output and state arrive without a reload."""

from __future__ import annotations

from playwright.sync_api import Response, expect

from taskcred.domain.runs import AttemptOutcome
from taskcred.services import attempts, reports
from tests.browser.conftest import Visit
from tests.browser.house import House, Resident


def test_progress_output_and_the_end_arrive_by_themselves(house: House, ada: Resident, visit: Visit) -> None:
    house.give_key(ada)
    run = house.start(ada)
    page = visit(ada)
    page.goto(f"/runs/{run.id}")
    page.evaluate("window.stayed = true")
    expect(page.get_by_role("status")).to_have_text("")
    expect(page.locator(".output")).to_have_text("")
    attempt_id = house.work_on(run.id)
    reports.progress(house.ctx, attempt_id, 40, 100, "page 4")
    reports.append_output(house.ctx, attempt_id, "<b>page 4</b>\n")
    expect(page.get_by_role("progressbar")).to_have_js_property("value", 40)
    expect(page.get_by_text("40 of 100: page 4")).to_be_visible()
    # What a job prints is text, whatever it looks like.
    expect(page.locator(".output")).to_have_text("<b>page 4</b>\n")
    expect(page.get_by_role("status")).to_have_text("Running")
    reports.append_output(house.ctx, attempt_id, "page 5\n")
    expect(page.locator(".output")).to_have_text("<b>page 4</b>\npage 5\n")
    cancel = page.get_by_role("link", name="Cancel run")
    expect(cancel).to_be_visible()
    reports.append_output(house.ctx, attempt_id, "done\n")
    attempts.finish(house.ctx, attempt_id, AttemptOutcome.SUCCEEDED, exit_code=0)
    expect(page.get_by_role("status")).to_have_text("Succeeded")
    expect(page.locator(".output")).to_have_text("<b>page 4</b>\npage 5\ndone\n")
    expect(cancel).to_be_hidden()
    assert page.evaluate("window.stayed")


def test_polling_costs_nothing_while_nothing_changes(house: House, ada: Resident, visit: Visit) -> None:
    run = house.start(ada)
    page = visit(ada)
    page.goto(f"/runs/{run.id}")
    # Relative times change the page for its first seconds and then once a minute.
    with page.expect_response(lambda answer: _is_unchanged(answer, run.id), timeout=30_000):
        pass


def _is_unchanged(answer: Response, run_id: str) -> bool:
    return answer.url.endswith(f"/runs/{run_id}/live") and answer.status == 304


def test_polling_stops_when_the_run_is_over(house: House, ada: Resident, visit: Visit) -> None:
    house.give_key(ada)
    run = house.start(ada)
    attempt_id = house.work_on(run.id)
    attempts.finish(house.ctx, attempt_id, AttemptOutcome.FAILED, "The job ended with exit status 3.", 3)
    page = visit(ada)
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(f"/runs/{run.id}", wait_until="networkidle")
    expect(page.get_by_text("The job ended with exit status 3.").first).to_be_visible()
    assert not [url for url in asked if url.endswith("/live")]


def test_a_key_list_under_way_renews_itself(house: House, ada: Resident, visit: Visit) -> None:
    page = visit(ada)
    credential_id = house.give_key(ada)
    house.set_creating(credential_id, True)
    page.goto("/profile/api-key")
    expect(page.get_by_text("Your key is being made.")).to_be_visible()
    house.set_creating(credential_id, False)
    expect(page.get_by_role("link", name="Rotate key")).to_be_visible()
