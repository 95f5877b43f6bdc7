"""What a service's own engine carries out ends with the service, or with its being disabled."""

from __future__ import annotations

from typing import Any

import pytest
from flask.testing import FlaskClient

from taskcred.services import registry
from taskcred.store import audit, events
from tests.support.site import ServiceCaller, Site


@pytest.fixture
def service(site: Site) -> ServiceCaller:
    return site.service()


@pytest.fixture
def owner(site: Site) -> FlaskClient:
    """The owner, who has a task credential."""
    client = site.bearer()
    made = client.post("/v1/task_credentials", json={"name": "mine", "secret": {"api_key": site.key()}})
    assert made.status_code == 201, made.text
    return client


def start(site: Site, service: ServiceCaller) -> str:
    started = service.client.post("/v1/runs", json={"task": "train", "subject_token": site.subject()})
    assert started.status_code == 201, started.text
    return str(started.get_json()["id"])


def begin(service: ServiceCaller, run: str) -> dict[str, Any]:
    begun = service.client.post(f"/v1/runs/{run}/attempts", json={})
    assert begun.status_code == 201, begun.text
    return dict(begun.get_json())


@pytest.mark.promise("at-once")
def test_disabling_takes_the_running_attempt_away_and_the_run_waits(
    site: Site, service: ServiceCaller, owner: FlaskClient
) -> None:
    run = start(site, service)
    begun = begin(service, run)
    assert site.is_alive(begun["stand_in_key"])
    registry.disable(site.ctx, audit.OPERATOR, service.id)
    assert not site.is_alive(begun["stand_in_key"])
    seen = owner.get(f"/v1/runs/{run}").get_json()
    assert (seen["state"], "disabled" in seen["reason"]) == ("queued", True)
    beat = f"/v1/runs/{run}/attempts/{begun['attempt_id']}/heartbeat"
    assert service.client.post(beat, json={}).get_json()["code"] == "service_disabled"

    registry.enable(site.ctx, audit.OPERATOR, service.id)
    assert service.client.post(beat, json={}).get_json()["code"] == "attempt_ended"
    again = begin(service, run)
    assert again["number"] == 2
    assert site.is_alive(again["stand_in_key"])
    told = [event["type"] for event in service.client.get("/v1/events").get_json()["items"]]
    assert told == ["attempt.ended", "run.queued"]


@pytest.mark.promise("at-once")
def test_the_end_cancels_what_it_was_to_carry_out(site: Site, owner: FlaskClient) -> None:
    service = site.service(webhook_url="https://a.example/hook")
    running, queued = start(site, service), start(site, service)
    begun = begin(service, running)
    registry.end(site.ctx, audit.OPERATOR, service.id)
    assert not site.is_alive(begun["stand_in_key"])
    with site.ctx.store.read() as connection:
        assert {event.state for event in events.after(connection, service.id, 0, 10)} == {"no_webhook"}
    for run in (running, queued):
        seen = owner.get(f"/v1/runs/{run}").get_json()
        assert (seen["state"], seen["reason"]) == ("cancelled", "The service carrying it out was ended.")


def test_a_run_that_waited_for_a_key_asks_its_owner_no_more(site: Site, service: ServiceCaller) -> None:
    owner = site.bearer()
    run = start(site, service)
    assert owner.get(f"/v1/runs/{run}").get_json()["state"] == "waiting_for_credential"
    assert len(owner.get("/v1/prompts?state=open").get_json()["items"]) == 1
    registry.end(site.ctx, audit.OPERATOR, service.id)
    assert owner.get(f"/v1/runs/{run}").get_json()["state"] == "cancelled"
    assert owner.get("/v1/prompts?state=open").get_json()["items"] == []


def test_other_services_go_on(site: Site, service: ServiceCaller, owner: FlaskClient) -> None:
    other = site.service()
    run = start(site, other)
    begun = begin(other, run)
    registry.end(site.ctx, audit.OPERATOR, service.id)
    assert site.is_alive(begun["stand_in_key"])
    assert owner.get(f"/v1/runs/{run}").get_json()["state"] == "running"


def test_its_grants_end_with_it_and_outlast_its_being_disabled(
    site: Site, service: ServiceCaller, owner: FlaskClient
) -> None:
    given = owner.post("/v1/grants", json={"service_id": service.id, "tasks": ["train"], "days": 7})
    assert given.status_code == 201, given.text
    grant = f"/v1/grants/{given.get_json()['id']}"
    registry.disable(site.ctx, audit.OPERATOR, service.id)
    assert owner.get(grant).get_json()["state"] == "active"
    registry.end(site.ctx, audit.OPERATOR, service.id)
    assert owner.get(grant).get_json()["state"] == "ended"
