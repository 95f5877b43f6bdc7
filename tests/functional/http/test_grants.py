"""/v1/grants and /v1/events over HTTP, by owners and by services."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from taskcred.domain.runs import Executor
from taskcred.store import service_tables as st
from tests.support.site import ServiceCaller, Site


@pytest.fixture
def service(site: Site) -> ServiceCaller:
    """A service whose runs anybody may carry out."""
    return site.service(title="Notebooks", executors=(Executor.WORKER, Executor.SERVICE))


def _give(site: Site, service: ServiceCaller, iam_id: str = "", **said: Any) -> dict[str, Any]:
    body = {"service_id": service.id, "tasks": ["train"], **said}
    answer = site.bearer(iam_id=iam_id or None).post("/v1/grants", json=body)
    assert answer.status_code == 201, answer.text
    assert answer.headers["Location"] == f"/v1/grants/{answer.get_json()['id']}"
    given: dict[str, Any] = answer.get_json()
    return given


def _start(service: ServiceCaller, grant_id: str, task: str = "train") -> Any:
    return service.client.post("/v1/runs", json={"task": task, "grant_id": grant_id})


def test_an_owner_gives_it_and_both_sides_see_it(site: Site, service: ServiceCaller) -> None:
    given = _give(site, service, days=30)
    for client in (site.bearer(), service.client):
        assert client.get(f"/v1/grants/{given['id']}").get_json() == given
        assert client.get("/v1/grants").get_json() == {"items": [given], "next": None}
    assert (given["state"], given["service_title"], given["tasks"]) == ("active", "Notebooks", ["train"])


def test_a_repeated_request_gives_one_grant(site: Site, service: ServiceCaller) -> None:
    body = {"service_id": service.id, "tasks": ["train"]}
    first, again = (
        site.bearer().post("/v1/grants", json=body, headers={"Idempotency-Key": "k"}) for _ in range(2)
    )
    assert (first.get_json(), again.headers["Idempotency-Replayed"]) == (again.get_json(), "true")


def test_an_unchanged_grant_is_not_sent_again(site: Site, service: ServiceCaller) -> None:
    path = f"/v1/grants/{_give(site, service)['id']}"
    tag = service.client.get(path).headers["ETag"]
    assert service.client.get(path, headers={"If-None-Match": tag}).status_code == 304
    _start(service, path.rpartition("/")[2])
    site.clock.advance(timedelta(seconds=1))
    assert service.client.get(path, headers={"If-None-Match": tag}).status_code == 200


@pytest.mark.promise("only-what-the-user-started")
def test_a_service_gives_and_ends_nothing(site: Site, service: ServiceCaller) -> None:
    grant_id = _give(site, service)["id"]
    for path, body in (
        ("/v1/grants", {"service_id": service.id, "tasks": ["train"]}),
        (f"/v1/grants/{grant_id}/end", None),
    ):
        answer = service.client.post(path, json=body)
        assert (answer.status_code, answer.get_json()["code"]) == (403, "forbidden")
        answer = site.program().post(path, json=body)
        assert (answer.status_code, answer.get_json()["code"]) == (403, "programmatic_token")
        old = site.bearer(auth_time=site.clock.now() - timedelta(minutes=16))
        answer = old.post(path, json=body)
        assert (answer.status_code, answer.get_json()["code"]) == (403, "fresh_sign_in_required")
    assert len(service.client.get("/v1/grants").get_json()["items"]) == 1


def test_what_is_anothers_is_not_there(site: Site, service: ServiceCaller) -> None:
    grant_id = _give(site, service)["id"]
    stranger = site.bearer(iam_id=site.provider.add_person(site.account_id))
    other = site.service()
    for client in (stranger, other.client):
        answer = client.get(f"/v1/grants/{grant_id}")
        assert (answer.status_code, answer.get_json()["code"]) == (404, "not_found")
        assert client.get("/v1/grants").get_json()["items"] == []
    assert stranger.post(f"/v1/grants/{grant_id}/end").status_code == 404
    answer = _start(other, grant_id)
    assert (answer.status_code, answer.get_json()["code"]) == (404, "not_found")
    assert other.client.get("/v1/events").get_json() == {"items": [], "next": 0}


@pytest.mark.parametrize(
    ("code", "spoil"),
    [
        ("grant_ended", lambda site, grant_id: site.bearer().post(f"/v1/grants/{grant_id}/end")),
        ("grant_expired", lambda site, _id: site.clock.advance(timedelta(days=90))),
    ],
)
def test_a_start_that_the_grant_no_longer_carries_says_where_a_new_one_is_had(
    site: Site, service: ServiceCaller, code: str, spoil: Any
) -> None:
    grant_id = _give(site, service)["id"]
    assert _start(service, grant_id).status_code == 201
    spoil(site, grant_id)
    answer = _start(service, grant_id)
    problem = answer.get_json()
    assert (answer.status_code, problem["code"]) == (403, code)
    where = urlsplit(problem["action_url"])
    assert (where.path, parse_qs(where.query)) == (
        "/grants/new",
        {"service": [service.id], "tasks": ["train"]},
    )


def test_a_task_that_was_not_granted_is_asked_for_beside_the_others(
    site: Site, service: ServiceCaller
) -> None:
    problem = _start(service, _give(site, service)["id"], "report").get_json()
    assert problem["code"] == "task_not_granted"
    assert parse_qs(urlsplit(problem["action_url"]).query)["tasks"] == ["report,train"]


def test_what_cannot_be_granted_says_why(site: Site, service: ServiceCaller) -> None:
    me = site.bearer()
    for body, status, code in (
        ({"service_id": site.no_id, "tasks": ["train"]}, 404, "not_found"),
        ({"service_id": service.id, "tasks": ["nonsense"]}, 400, "task_not_offered"),
    ):
        answer = me.post("/v1/grants", json=body)
        assert (answer.status_code, answer.get_json()["code"]) == (status, code)
    with site.ctx.store.write() as connection:
        connection.execute(st.services.update().values(state="disabled"))
    answer = me.post("/v1/grants", json={"service_id": service.id, "tasks": ["train"]})
    assert (answer.status_code, answer.get_json()["code"]) == (409, "service_not_active")


def test_a_service_polls_from_where_it_was(site: Site, service: ServiceCaller) -> None:
    given = _give(site, service)
    page = service.client.get("/v1/events").get_json()
    (event,) = page["items"]
    assert (event["type"], event["data"]["grant_id"], page["next"]) == (
        "grant.given",
        given["id"],
        event["id"],
    )
    nothing = service.client.get(f"/v1/events?after={page['next']}")
    assert nothing.get_json() == {"items": [], "next": page["next"]}
    tag = {"If-None-Match": nothing.headers["ETag"]}
    assert service.client.get(f"/v1/events?after={page['next']}", headers=tag).status_code == 304
    site.bearer().post(f"/v1/grants/{given['id']}/end")
    answer = service.client.get(f"/v1/events?after={page['next']}", headers=tag).get_json()
    assert [each["type"] for each in answer["items"]] == ["grant.ended"]
    assert answer["items"][0]["webhook_id"].startswith("evt_")


def test_who_acts_for_a_service_id_gives_its_grants_and_is_named(site: Site, service: ServiceCaller) -> None:
    robot = site.provider.add_service_id(site.account_id, "nightly")
    site.provider.allow_act(site.iam_id, robot)
    me = site.client(
        {
            "Authorization": site.bearer().environ_base["HTTP_AUTHORIZATION"],
            "Taskcred-Act-For": robot,
        }
    )
    given = me.post("/v1/grants", json={"service_id": service.id, "tasks": ["train"]}).get_json()
    assert (given["iam_id"], given["acting_iam_id"]) == (robot, site.iam_id)
    run = _start(service, given["id"]).get_json()
    assert (run["iam_id"], run["acting_iam_id"]) == (robot, site.iam_id)
    # It is the service id's, not the person's own.
    assert site.bearer().get("/v1/grants").get_json()["items"] == []
    assert me.post(f"/v1/grants/{given['id']}/end").get_json()["state"] == "ended"


def test_metrics_count_grants_and_what_services_were_told(site: Site, service: ServiceCaller) -> None:
    _give(site, service)
    text = site.client().get("/metrics").text
    assert 'taskcred_grants{state="active"} 1.0' in text
    assert 'taskcred_events{state="no_webhook"} 1.0' in text
    assert 'taskcred_events{state="given_up"} 0.0' in text
