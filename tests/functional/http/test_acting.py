"""Acting for a service id: over REST by a header, on the pages by a choice; both identities are recorded."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from flask.testing import FlaskClient

from taskcred.services import intents, ticker
from taskcred.store import tables as t
from taskcred.testing import Failure
from tests.support.site import Site

PATH = "/v1/task_credentials"


@dataclass
class Robot:
    """A service id that the person of the site may act for."""

    site: Site
    iam_id: str

    def client(self, person: str | None = None, **claims: Any) -> FlaskClient:
        """The person's program, which acts for the service id."""
        token = self.site.provider.token(person or self.site.iam_id, self.site.account_id, **claims)
        return self.site.client(
            {"Authorization": f"Bearer {token.token.reveal()}", "Taskcred-Act-For": self.iam_id}
        )

    def key(self) -> str:
        """The text of a key that the service id has elsewhere."""
        return self.site.provider.add_key(self.iam_id, self.site.account_id).reveal()


@pytest.fixture
def robot(site: Site) -> Robot:
    iam_id = site.provider.add_service_id(site.account_id, "nightly")
    site.provider.allow_act(site.iam_id, iam_id)
    return Robot(site, iam_id)


def _switch(browser: FlaskClient, chosen: str) -> Any:
    token = browser.get("/token-of-a-page").text
    return browser.post("/account", data={"account_id": chosen, "csrf_token": token})


def _credential(client: FlaskClient, **source: Any) -> Any:
    made = client.post(PATH, json={"name": "its own", **(source or {"generate": True})})
    assert made.status_code == 201, made.text
    return made.get_json()


def _events(site: Site, iam_id: str) -> list[tuple[str, str, str]]:
    c = t.audit_events.c
    with site.ctx.store.read() as connection:
        rows = connection.execute(
            sa.select(c.action, c.actor, c.outcome).where(c.iam_id == iam_id).order_by(c.id)
        )
        return [(row.action, row.actor, row.outcome) for row in rows]


def test_a_credential_of_the_service_id_is_made_and_kept_apart_from_the_persons(
    site: Site, robot: Robot
) -> None:
    made = _credential(robot.client())
    (key,) = site.provider.keys_of(robot.iam_id, site.account_id)
    assert key.iam_id == robot.iam_id
    assert site.provider.keys_of(site.iam_id, site.account_id) == []
    assert made["created_by"] == site.iam_id
    me = site.bearer()
    assert me.get(PATH).get_json() == {"credentials": []}
    assert me.get(f"{PATH}/{made['id']}").status_code == 404
    listed = robot.client().get(PATH).get_json()["credentials"]
    assert [each["id"] for each in listed] == [made["id"]]


@pytest.mark.promise("one-per-owner")
def test_a_service_id_has_one_credential_whoever_acts_for_it(site: Site, robot: Robot) -> None:
    bob = site.provider.add_person(site.account_id, name="Bob")
    site.provider.allow_act(bob, robot.iam_id)
    clients = [robot.client(person) for person in (site.iam_id, bob) * 4]
    with ThreadPoolExecutor(len(clients)) as pool:
        answers = list(
            pool.map(lambda client: client.post(PATH, json={"name": "n", "generate": True}), clients)
        )
    assert sorted(answer.status_code for answer in answers) == [201] + [409] * 7
    assert len(site.provider.keys_of(robot.iam_id, site.account_id)) == 1
    assert _credential(site.bearer())["id"]  # the persons' own places are free


def test_a_provided_key_must_be_the_service_ids(site: Site, robot: Robot) -> None:
    refused = robot.client().post(PATH, json={"name": "n", "secret": {"api_key": site.key()}})
    assert (refused.status_code, refused.get_json()["errors"][0]["code"]) == (400, "key_of_other_owner")
    assert _credential(robot.client(), secret={"api_key": robot.key()})["id"]


def test_a_key_is_rotated_and_deleted_by_whoever_acts(site: Site, robot: Robot) -> None:
    credential = _credential(robot.client())["id"]
    rotated = robot.client().post(f"{PATH}/{credential}/rotate", json={"generate": True, "drain": "now"})
    assert rotated.status_code == 200, rotated.text
    assert len(site.provider.keys_of(robot.iam_id, site.account_id)) == 1
    assert robot.client().delete(f"{PATH}/{credential}").status_code == 204
    assert site.provider.keys_of(robot.iam_id, site.account_id) == []


@pytest.mark.promise("last-good-key")
def test_what_a_lost_permission_leaves_half_done_is_finished_with_the_keys_own_token(
    site: Site, robot: Robot
) -> None:
    credential = _credential(robot.client())["id"]
    site.provider.script("create_key", Failure.UNAVAILABLE)
    begun = robot.client().post(f"{PATH}/{credential}/rotate", json={"generate": True, "drain": "now"})
    assert begun.status_code == 202, begun.text
    site.provider.disallow_act(site.iam_id, robot.iam_id)
    for _ in range(30):
        intents.advance_due(site.ctx, "keeper")
        site.clock.advance(timedelta(seconds=31))
    with site.ctx.store.read() as connection:
        states = {row.kind: row.state for row in connection.execute(sa.select(t.intents))}
    assert states == {"create": "done", "rotate": "done", "end_key": "done"}
    assert len(site.provider.keys_of(robot.iam_id, site.account_id)) == 1


@pytest.mark.promise("only-what-the-user-started")
def test_a_run_and_its_events_carry_the_service_id_and_the_person(site: Site, robot: Robot) -> None:
    _credential(robot.client())
    run = robot.client().post("/v1/runs", json={"task": "report"}).get_json()
    assert run["state"] == "queued"
    assert run["acting_iam_id"] == site.iam_id
    with site.ctx.store.read() as connection:
        row = connection.execute(sa.select(t.runs)).one()
    assert (row.iam_id, row.acting_iam_id, row.started_by) == (robot.iam_id, site.iam_id, site.iam_id)
    assert ("run:start", site.iam_id, "success") in _events(site, robot.iam_id)
    assert {actor for _, actor, _ in _events(site, robot.iam_id)} == {site.iam_id}
    assert _events(site, site.iam_id) == []
    me = site.bearer()
    assert me.get("/v1/runs").get_json()["items"] == []
    assert me.get(f"/v1/runs/{run['id']}").status_code == 404
    seen = robot.client().get("/v1/audit").get_json()["items"]
    assert {each["action"] for each in seen} >= {"run:start", "credential:create"}


def test_schedules_and_prompts_of_a_service_id_work_as_a_persons(site: Site, robot: Robot) -> None:
    client = robot.client()
    body = {"name": "nightly", "task": "report", "cron": "0 2 * * *", "timezone": "UTC"}
    assert client.post("/v1/schedules", json=body).status_code == 201
    (prompt,) = client.get("/v1/prompts?state=open").get_json()["items"]
    assert site.bearer().get("/v1/prompts").get_json()["items"] == []
    answered = client.post(f"/v1/prompts/{prompt['id']}/answer", json={"generate": True})
    assert answered.status_code == 200, answered.text
    assert len(client.get("/v1/schedules").get_json()["items"]) == 1


def test_a_service_id_of_another_account_is_not_acted_for_here(site: Site) -> None:
    other = site.provider.add_account("other")
    elsewhere = site.provider.add_service_id(other, "elsewhere")
    site.provider.allow_act(site.iam_id, elsewhere)
    refused = Robot(site, elsewhere).client().get("/v1/runs")
    assert (refused.status_code, refused.get_json()["code"]) == (403, "act_for_refused")


def test_a_provider_that_is_away_lets_nobody_act(site: Site, robot: Robot) -> None:
    site.provider.script("may_act", Failure.UNAVAILABLE)
    assert robot.client().get("/v1/runs").status_code == 503
    browser = site.signed_in()
    _switch(browser, f"act-for:{robot.iam_id}")
    site.provider.script("may_act", Failure.UNAVAILABLE)
    assert browser.get("/v1/runs").status_code == 503
    assert browser.get("/v1/runs").status_code == 200  # the session outlives it


def test_a_page_session_goes_on_for_a_service_id_and_back(site: Site, robot: Robot) -> None:
    browser = site.signed_in()
    answer = _switch(browser, f"act-for:{robot.iam_id}")
    assert answer.status_code == 303, answer.text
    token = browser.get("/token-of-a-page").text
    made = browser.post(PATH, json={"name": "n", "generate": True}, headers={"X-CSRF-Token": token})
    assert made.status_code == 201, made.text
    assert len(site.provider.keys_of(robot.iam_id, site.account_id)) == 1
    assert ("session:act_for", site.iam_id, "success") in _events(site, robot.iam_id)
    assert _switch(browser, site.account_id).status_code == 303
    assert browser.get(PATH).get_json() == {"credentials": []}


def test_a_session_that_acts_keeps_acting_when_its_token_is_renewed(site: Site, robot: Robot) -> None:
    browser = site.signed_in()
    _switch(browser, f"act-for:{robot.iam_id}")
    _credential_by_page(browser)
    for _ in range(4):
        site.clock.advance(timedelta(minutes=20))
        assert len(browser.get(PATH).get_json()["credentials"]) == 1


def test_one_can_go_from_one_service_id_to_the_next(site: Site, robot: Robot) -> None:
    second = site.provider.add_service_id(site.account_id, "weekly")
    site.provider.allow_act(site.iam_id, second)
    browser = site.signed_in()
    _switch(browser, f"act-for:{robot.iam_id}")
    _credential_by_page(browser)
    assert _switch(browser, f"act-for:{second}").status_code == 303
    assert browser.get(PATH).get_json() == {"credentials": []}
    assert ("session:act_for", site.iam_id, "success") in _events(site, second)


def _credential_by_page(browser: FlaskClient) -> None:
    token = browser.get("/token-of-a-page").text
    made = browser.post(PATH, json={"name": "n", "generate": True}, headers={"X-CSRF-Token": token})
    assert made.status_code == 201, made.text


def _sign_in_again(site: Site, browser: FlaskClient, account_id: str) -> Any:
    leave = browser.get("/sign-in?fresh=1&return_to=/profile/api-key/create")
    code, state = site.provider.approve(leave.headers["Location"], site.iam_id, account_id)
    return browser.get("/auth/callback", query_string={"code": code, "state": state})


def test_a_new_proof_of_identity_on_the_way_changes_nothing_else(site: Site, robot: Robot) -> None:
    other = site.provider.add_account("other")
    site.provider.people[site.iam_id] = replace(
        site.provider.people[site.iam_id], account_ids=(other, site.account_id)
    )
    browser = site.signed_in()
    _switch(browser, f"act-for:{robot.iam_id}")
    site.clock.advance(timedelta(minutes=16))
    # Where a sign-in begins is the provider's choice: here another account than the one they were in.
    assert _sign_in_again(site, browser, other).headers["Location"] == "/profile/api-key/create"
    _credential_by_page(browser)
    assert len(site.provider.keys_of(robot.iam_id, site.account_id)) == 1
    assert site.provider.keys_of(site.iam_id, other) == []
    assert _switch(browser, site.account_id).status_code == 303
    assert _sign_in_again(site, browser, other).status_code == 303
    assert browser.get("/v1/task_credentials").get_json() == {"credentials": []}
    _credential_by_page(browser)
    assert len(site.provider.keys_of(site.iam_id, site.account_id)) == 1


@pytest.mark.promise("at-once")
def test_who_signs_in_again_and_may_not_act_any_more_is_not_taken_for_oneself(
    site: Site, robot: Robot
) -> None:
    browser = site.signed_in()
    _switch(browser, f"act-for:{robot.iam_id}")
    site.provider.disallow_act(site.iam_id, robot.iam_id)
    with site.ctx.store.read() as connection:
        (row,) = connection.execute(sa.select(t.sessions)).all()
    assert row.acting_iam_id == site.iam_id
    leave = browser.get("/sign-in?fresh=1")
    code, state = site.provider.approve(leave.headers["Location"], site.iam_id, site.account_id)
    refused = browser.get("/auth/callback", query_string={"code": code, "state": state})
    assert (refused.status_code, refused.get_json()["code"]) == (403, "act_for_refused")
    with site.ctx.store.read() as connection:
        assert connection.execute(sa.select(t.sessions)).first() is None


def test_somebody_else_at_the_same_browser_begins_as_themselves(site: Site, robot: Robot) -> None:
    bob = site.provider.add_person(site.account_id, name="Bob")
    browser = site.signed_in()
    _switch(browser, f"act-for:{robot.iam_id}")
    leave = browser.get("/sign-in?fresh=1")
    code, state = site.provider.approve(leave.headers["Location"], bob, site.account_id)
    browser.get("/auth/callback", query_string={"code": code, "state": state})
    _credential_by_page(browser)
    assert len(site.provider.keys_of(bob, site.account_id)) == 1


def test_scheduled_runs_of_a_service_id_name_who_scheduled_them(site: Site, robot: Robot) -> None:
    _credential(robot.client())
    body = {"name": "nightly", "task": "report", "cron": "0 2 * * *", "timezone": "UTC"}
    assert robot.client().post("/v1/schedules", json=body).status_code == 201
    site.clock.advance(timedelta(days=1))
    ticker.tick(site.ctx)
    with site.ctx.store.read() as connection:
        row = connection.execute(sa.select(t.runs)).one()
    assert (row.iam_id, row.acting_iam_id, row.started_by) == (robot.iam_id, site.iam_id, site.iam_id)
