"""Services start runs for owners and carry them out in engines of their own."""

from __future__ import annotations

from typing import Any

import pytest
from flask.testing import FlaskClient

from taskcred.errors import KeyRefusedError
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


def is_alive(site: Site, key: str) -> bool:
    try:
        site.broker.issue(key.encode())
    except KeyRefusedError:
        return False
    return True


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
    assert is_alive(site, begun["stand_in_key"])

    path = f"/v1/runs/{run['id']}/attempts/{begun['attempt_id']}"
    beat = {"progress": {"done": 1, "total": 2, "text": "half"}, "output": "hello\n"}
    heard = service.client.post(f"{path}/heartbeat", json=beat)
    assert heard.get_json() == {"cancel_requested": False}
    seen = site.bearer().get(f"/v1/runs/{run['id']}").get_json()
    assert (seen["state"], seen["progress_done"], seen["progress_text"]) == ("running", 1, "half")
    assert site.bearer().get(f"/v1/runs/{run['id']}/output").get_json()["text"] == "hello\n"

    ended = service.client.post(f"{path}/end", json={"outcome": "succeeded", "exit_code": 0})
    assert (ended.status_code, ended.get_json()["state"]) == (200, "succeeded")
    assert not is_alive(site, begun["stand_in_key"])
    told = service.client.get("/v1/events").get_json()["items"]
    assert [(event["type"], event["data"]["state"]) for event in told] == [("run.ended", "succeeded")]
