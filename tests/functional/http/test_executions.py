"""Services start runs for owners and carry them out in engines of their own."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from flask.testing import FlaskClient

from taskcred.errors import KeyRefusedError
from taskcred.store.tables import metadata
from tests.support.site import ServiceCaller, Site


@pytest.fixture
def service(site: Site) -> ServiceCaller:
    return site.service()


@pytest.fixture
def credential(site: Site) -> str:
    """The owner has a task credential."""
    made = site.bearer().post(
        "/v1/task_credentials", json={"name": "mine", "secret": {"api_key": site.key()}}
    )
    assert made.status_code == 201, made.text
    return str(made.get_json()["id"])


def start(site: Site, service: ServiceCaller, task: str = "train", **more: Any) -> Any:
    """The service shows the owner's access token."""
    body = {"task": task, "subject_token": site.subject()} | more
    return service.client.post("/v1/runs", json=body)


def begin(client: FlaskClient, run_id: str, **more: Any) -> dict[str, Any]:
    begun = client.post(f"/v1/runs/{run_id}/attempts", json=more)
    assert begun.status_code == 201, begun.text
    return dict(begun.get_json())


@pytest.mark.promise("dead-with-the-run")
@pytest.mark.usefixtures("credential")
def test_a_service_starts_a_run_and_carries_it_out(site: Site, service: ServiceCaller) -> None:
    started = start(site, service, reference="notebook 7")
    assert started.status_code == 201, started.text
    run = started.get_json()
    assert (run["state"], run["executor"], run["service_id"]) == ("queued", "service", service.id)
    assert (run["iam_id"], run["reference"], run["prompt_url"]) == (site.iam_id, "notebook 7", None)
    assert site.ctx.queue.enqueued == []  # nothing for our workers to do

    begun = begin(service.client, run["id"])
    assert begun["sdk"] == {
        "auth_type": "iam",
        "auth_url": "https://taskcred.test",
        "services": ["iam_identity"],
    }
    assert (begun["heartbeat_seconds"], begun["silence_seconds"]) == (10, 60)
    assert site.is_alive(begun["stand_in_key"])

    path = f"/v1/runs/{run['id']}/attempts/{begun['attempt_id']}"
    beat = {"progress": {"done": 1, "total": 2, "text": "half"}, "output": "hello\n"}
    heard = service.client.post(f"{path}/heartbeat", json=beat)
    assert heard.get_json() == {"cancel_requested": False}
    seen = site.bearer().get(f"/v1/runs/{run['id']}").get_json()
    assert (seen["state"], seen["progress_done"], seen["progress_text"]) == ("running", 1, "half")
    assert site.bearer().get(f"/v1/runs/{run['id']}/output").get_json()["text"] == "hello\n"

    ended = service.client.post(f"{path}/end", json={"outcome": "succeeded", "exit_code": 0})
    assert (ended.status_code, ended.get_json()["state"]) == (200, "succeeded")
    assert not site.is_alive(begun["stand_in_key"])
    told = service.client.get("/v1/events").get_json()["items"]
    assert [(event["type"], event["data"]["state"]) for event in told] == [("run.ended", "succeeded")]


def test_the_answer_to_a_start_says_where_the_owner_is_asked(site: Site, service: ServiceCaller) -> None:
    run = start(site, service).get_json()
    assert run["state"] == "waiting_for_credential"
    assert run["prompt_url"] == f"https://taskcred.test/prompts/{run['prompt_id']}"
    assert site.signed_in().get(f"/v1/prompts/{run['prompt_id']}").status_code == 200
    refused = service.client.post(f"/v1/runs/{run['id']}/attempts", json={})
    assert (refused.status_code, refused.get_json()["code"]) == (409, "parked")
    assert refused.get_json()["action_url"] == run["prompt_url"]


def test_a_run_may_know_where_its_owner_is_led_after_the_prompt(site: Site) -> None:
    back = "https://notebooks.example.test/back?x=1"
    service = site.service(callback_urls=(back,))
    run = start(site, service, return_to=back).get_json()
    assert run["return_to"] == back
    assert run["prompt_url"] == f"https://taskcred.test/prompts/{run['prompt_id']}?run={run['id']}"
    again = service.client.get(f"/v1/runs/{run['id']}").get_json()
    refused = service.client.post(f"/v1/runs/{run['id']}/attempts", json={})
    assert again["prompt_url"] == refused.get_json()["action_url"] == run["prompt_url"]


def test_what_an_owner_starts_leads_nowhere(site: Site) -> None:
    body = {"task": "report", "return_to": "https://notebooks.example.test/back"}
    refused = site.bearer().post("/v1/runs", json=body)
    assert (refused.status_code, refused.get_json()["field"]) == (400, "return_to")


@pytest.mark.promise("only-what-the-user-started")
def test_the_owners_token_is_not_kept(site: Site, service: ServiceCaller) -> None:
    token = site.subject()
    body = {"task": "train", "subject_token": token}
    answer = service.client.post("/v1/runs", json=body, headers={"Idempotency-Key": "one"})
    assert answer.status_code == 201
    assert token not in answer.text
    signature = token.rpartition(".")[2]
    with site.ctx.store.read() as connection:
        for table in metadata.sorted_tables:
            for row in connection.execute(sa.select(table)):
                assert signature not in str(row), table.name


def test_a_repeated_start_is_one_run_also_where_the_token_was_renewed(
    site: Site, service: ServiceCaller
) -> None:
    key = {"Idempotency-Key": "job-7"}
    first = service.client.post(
        "/v1/runs", json={"task": "train", "subject_token": site.subject()}, headers=key
    )
    site.clock.advance(timedelta(seconds=5))
    again = {"task": "train", "subject_token": site.subject()}
    second = service.client.post("/v1/runs", json=again, headers=key)
    assert second.status_code == 201, second.text
    assert second.get_json()["id"] == first.get_json()["id"]
    assert second.headers["Idempotency-Replayed"] == "true"
    # The same key of another service is another key, and for another owner another request.
    other = site.service()
    assert other.client.post("/v1/runs", json=again, headers=key).get_json()["id"] != first.get_json()["id"]
    stranger = site.subject(site.provider.add_person(site.account_id))
    mixed = service.client.post("/v1/runs", json=again | {"subject_token": stranger}, headers=key)
    assert (mixed.status_code, mixed.get_json()["code"]) == (422, "idempotency_key_reused")


@pytest.mark.usefixtures("credential")
def test_an_owner_carries_a_run_of_exec_out(site: Site) -> None:
    me = site.bearer()
    run = me.post("/v1/runs", json={"task": "train", "reference": "laptop"}).get_json()
    assert (run["executor"], run["service_id"], run["reference"]) == ("owner", None, "laptop")
    begun = begin(me, run["id"])
    assert site.is_alive(begun["stand_in_key"])
    path = f"/v1/runs/{run['id']}/attempts/{begun['attempt_id']}"
    assert me.post(f"{path}/heartbeat", json={}).get_json() == {"cancel_requested": False}
    me.post(f"/v1/runs/{run['id']}/cancel")
    assert me.post(f"{path}/heartbeat", json={}).get_json() == {"cancel_requested": True}
    assert me.post(f"{path}/end", json={"outcome": "cancelled"}).get_json()["state"] == "cancelled"


@pytest.mark.usefixtures("credential")
def test_keys_are_bound_and_shown_to_be(site: Site, service: ServiceCaller) -> None:
    run = start(site, service).get_json()
    begun = begin(service.client, run["id"], addresses=["10.0.0.0/8"])
    (attempt,) = service.client.get(f"/v1/runs/{run['id']}/attempts").get_json()["items"]
    assert attempt["addresses"] == ["10.0.0.0/8"]
    key = begun["stand_in_key"].encode()
    assert site.broker.issue(key, "10.9.9.9")
    with pytest.raises(KeyRefusedError):
        site.broker.issue(key, "192.0.2.1")


def test_a_service_lists_its_runs_and_no_tokens_of_theirs(site: Site, service: ServiceCaller) -> None:
    mine = start(site, service).get_json()["id"]
    site.bearer().post("/v1/runs", json={"task": "report"})
    assert [run["id"] for run in service.client.get("/v1/runs").get_json()["items"]] == [mine]
    assert service.client.get(f"/v1/runs/{mine}/access").status_code == 403
    assert service.client.post(f"/v1/runs/{mine}/cancel").get_json()["state"] == "cancelled"
