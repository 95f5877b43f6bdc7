"""The pages of schedules that are not as they should be."""

from __future__ import annotations

from taskcred.store import tables as t
from tests.browser.house import House, Resident
from tests.functional.web.conftest import Client


def test_a_schedule_whose_time_zone_is_gone_says_so_and_can_be_edited(
    house: House, ada: Resident, client: Client
) -> None:
    house.give_key(ada)
    schedule = house.schedule(ada)
    browser = client(ada)
    told = "no longer knows the time zone Atlantis/Capital"
    assert "no longer knows the time zone" not in browser.get(f"/schedules/{schedule.id}").text
    with house.ctx.store.write() as connection:
        row = t.schedules.c.id == schedule.id
        connection.execute(t.schedules.update().where(row).values(timezone="Atlantis/Capital"))

    page = browser.get(f"/schedules/{schedule.id}")
    assert page.status_code == 200
    assert told in page.text
    assert browser.get("/schedules").status_code == 200
    form = browser.get(f"/schedules/{schedule.id}/edit")
    assert form.status_code == 200
    assert "There is no such time zone." in form.text
