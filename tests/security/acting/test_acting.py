"""Who may not act for a service id, and what happens once somebody may not any more."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from flask.testing import FlaskClient

from taskcred.store import tables as t
from tests.support.site import API_KEY_GRANT, Site, make_site

HEADER = "Taskcred-Act-For"


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return make_site(tmp_path)


@pytest.fixture
def robot(site: Site) -> str:
    return site.provider.add_service_id(site.account_id, "nightly")


def _refused(answer: Any) -> tuple[int, str]:
    return answer.status_code, answer.get_json()["code"]


def _refusals(site: Site) -> list[Any]:
    c = t.audit_events.c
    with site.ctx.store.read() as connection:
        query = sa.select(c.action, c.actor, c.iam_id, c.target_id, c.details)
        return [tuple(row) for row in connection.execute(query.where(c.outcome == "refused"))]


def _switch(browser: FlaskClient, chosen: str) -> Any:
    token = browser.get("/token-of-a-page").text
    return browser.post("/account", data={"account_id": chosen, "csrf_token": token})


@pytest.mark.promise("empty-means-no")
def test_without_the_permission_nobody_acts_and_the_try_is_recorded(site: Site, robot: str) -> None:
    me = site.bearer()
    assert _refused(me.get("/v1/runs", headers={HEADER: robot})) == (403, "act_for_refused")
    assert _refusals(site) == [
        ("serviceid:act", site.iam_id, site.iam_id, robot, {"why": "act_for_refused"}),
    ]
    browser = site.signed_in()
    assert _refused(_switch(browser, f"act-for:{robot}")) == (403, "act_for_refused")
    assert browser.get("/v1/runs").status_code == 200  # they go on as themselves


@pytest.mark.promise("empty-means-no")
@pytest.mark.parametrize(
    "named", ["", " ", "x", "..", "../act-for", "a/b", "iam-ServiceId-%2e", "x" * 300, "é", "a;b", "*"]
)
def test_odd_names_are_nobodys_and_the_provider_is_not_asked(site: Site, robot: str, named: str) -> None:
    site.provider.allow_act(site.iam_id, robot)
    asked = site.provider.calls["may_act"]
    assert _refused(site.bearer().get("/v1/runs", headers={HEADER: named})) == (403, "act_for_refused")
    assert site.provider.calls["may_act"] == asked + (named == "x")


@pytest.mark.promise("only-what-the-user-started")
def test_only_a_person_who_signed_in_acts(site: Site, robot: str) -> None:
    site.provider.allow_act(site.iam_id, robot)
    for client, expected in (
        (site.program(), (403, "programmatic_token")),
        (site.run_token(), (403, "run_token")),
        (site.executor(), (403, "forbidden")),
        (site.service().client, (403, "forbidden")),
        (site.signed_in(), (400, "invalid_request")),
        (site.client(), (401, "authentication_required")),
        (site.bearer(iam_id=robot, grant_type=API_KEY_GRANT, client_id="x"), (403, "programmatic_token")),
    ):
        assert _refused(client.get("/v1/runs", headers={HEADER: robot})) == expected


def test_acting_lends_no_more_than_the_sign_in_has(site: Site, robot: str) -> None:
    site.provider.allow_act(site.iam_id, robot)
    old = site.bearer(auth_time=site.clock.now() - timedelta(minutes=16))
    refused = old.post("/v1/task_credentials", json={"name": "n", "generate": True}, headers={HEADER: robot})
    assert (refused.status_code, refused.get_json()["errors"][0]["code"]) == (403, "fresh_sign_in_required")


@pytest.mark.promise("at-once")
def test_a_permission_that_is_taken_away_ends_with_the_next_request(site: Site, robot: str) -> None:
    site.provider.allow_act(site.iam_id, robot)
    me = site.bearer()
    assert me.get("/v1/runs", headers={HEADER: robot}).status_code == 200
    site.provider.disallow_act(site.iam_id, robot)
    for path in ("/v1/runs", "/v1/schedules", "/v1/prompts", "/v1/access"):
        assert _refused(me.get(path, headers={HEADER: robot})) == (403, "act_for_refused")
    refused = me.post("/v1/runs", json={"task": "report"}, headers={HEADER: robot})
    assert _refused(refused) == (403, "act_for_refused")
    with site.ctx.store.read() as connection:
        assert connection.execute(sa.select(t.runs)).first() is None


@pytest.mark.promise("at-once")
def test_a_page_session_ends_with_the_permission_it_acts_by(site: Site, robot: str) -> None:
    site.provider.allow_act(site.iam_id, robot)
    browser = site.signed_in()
    assert _switch(browser, f"act-for:{robot}").status_code == 303
    token = browser.get("/token-of-a-page").text
    site.provider.disallow_act(site.iam_id, robot)
    # Not carried out for the person instead: the form was meant for the service id.
    refused = browser.post("/v1/runs", json={"task": "report"}, headers={"X-CSRF-Token": token})
    assert _refused(refused) == (403, "act_for_refused")
    assert _refused(browser.get("/v1/runs")) == (401, "authentication_required")
    with site.ctx.store.read() as connection:
        assert connection.execute(sa.select(t.runs)).first() is None
        assert connection.execute(sa.select(t.sessions)).first() is None


def test_a_form_of_the_time_before_the_switch_is_refused_after_it(site: Site, robot: str) -> None:
    site.provider.allow_act(site.iam_id, robot)
    browser = site.signed_in()
    before = browser.get("/token-of-a-page").text
    _switch(browser, f"act-for:{robot}")
    refused = browser.post("/v1/runs", json={"task": "report"}, headers={"X-CSRF-Token": before})
    assert _refused(refused) == (403, "csrf_token_required")


def test_the_switch_itself_needs_the_pages_token(site: Site, robot: str) -> None:
    site.provider.allow_act(site.iam_id, robot)
    browser = site.signed_in()
    answer = browser.post("/account", data={"account_id": f"act-for:{robot}"})
    assert _refused(answer) == (403, "csrf_token_required")


@pytest.mark.promise("key-stays-home")
def test_one_person_never_reaches_anothers_through_a_service_id(site: Site, robot: str) -> None:
    site.provider.allow_act(site.iam_id, robot)
    bob = site.provider.add_person(site.account_id, name="Bob")
    assert _refused(site.bearer().get("/v1/runs", headers={HEADER: bob})) == (403, "act_for_refused")
    assert _refused(site.bearer(iam_id=bob).get("/v1/runs", headers={HEADER: robot})) == (
        403,
        "act_for_refused",
    )


@pytest.mark.promise("empty-means-no")
def test_every_route_refuses_whoever_acts_without_the_permission(site: Site, robot: str) -> None:
    document = site.client().get("/openapi.json").get_json()
    me = site.bearer()
    for path, item in document["paths"].items():
        while "{" in path:
            path = path[: path.index("{")] + site.no_id + path[path.index("}") + 1 :]
        for method in item:
            answer = me.open(path, method=method.upper(), headers={HEADER: robot})
            assert (answer.status_code, "act_for_refused" in answer.text) == (403, True), (method, path)
