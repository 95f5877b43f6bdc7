"""/v1/runs, /v1/schedules, /v1/prompts, /v1/tasks, /v1/access and /v1/audit."""

from __future__ import annotations

from typing import Any

import pytest
from flask.testing import FlaskClient

from tests.support.site import Site


def _credential(site: Site, me: FlaskClient) -> str:
    made = me.post("/v1/task_credentials", json={"name": "mine", "secret": {"api_key": site.key()}})
    assert made.status_code == 201, made.text
    return str(made.get_json()["id"])


def _start(me: FlaskClient, **more: Any) -> Any:
    return me.post("/v1/runs", json={"task": "report"} | more)


def test_the_catalogue_says_what_a_task_is_and_not_how_it_is_done(site: Site) -> None:
    answer = site.bearer().get("/v1/tasks")
    names = [task["name"] for task in answer.get_json()["items"]]
    assert names == ["copy", "report", "train"]
    assert "argv" not in answer.text
    assert answer.get_json()["items"][0]["parameters"]["required"] == ["source"]


@pytest.mark.promise("parked-not-failed")
def test_a_run_without_a_credential_waits_and_the_answer_queues_it(site: Site) -> None:
    me = site.bearer()
    run = _start(me)
    assert run.status_code == 201
    body = run.get_json()
    assert run.headers["Location"] == f"/v1/runs/{body['id']}"
    assert body["state"] == "waiting_for_credential"
    (prompt,) = me.get("/v1/prompts?state=open").get_json()["items"]
    assert body["prompt_id"] == prompt["id"]
    assert prompt["waiting_runs"] == 1
    answered = me.post(f"/v1/prompts/{prompt['id']}/answer", json={"secret": {"api_key": site.key()}})
    assert answered.status_code == 200, answered.text
    assert me.get(f"/v1/runs/{body['id']}").get_json()["state"] == "queued"
    assert me.get(f"/v1/prompts/{prompt['id']}").get_json()["state"] == "answered"


def test_runs_are_listed_page_by_page(site: Site) -> None:
    me = site.bearer()
    made = [_start(me).get_json()["id"] for _ in range(5)]
    seen: list[str] = []
    cursor = None
    while True:
        page = me.get(
            "/v1/runs", query_string={"limit": 2} | ({"after": cursor} if cursor else {})
        ).get_json()
        seen += [run["id"] for run in page["items"]]
        cursor = page["next"]
        if cursor is None:
            break
    assert sorted(seen) == sorted(made)
    assert len(me.get("/v1/runs?state=cancelled").get_json()["items"]) == 0


def test_a_run_is_polled_with_its_etag_and_cancelled(site: Site) -> None:
    me = site.bearer()
    path = f"/v1/runs/{_start(me).get_json()['id']}"
    tag = me.get(path).headers["ETag"]
    assert me.get(path, headers={"If-None-Match": tag}).status_code == 304
    assert me.post(f"{path}/cancel").get_json()["state"] == "cancelled"
    assert me.get(path, headers={"If-None-Match": tag}).get_json()["state"] == "cancelled"


def test_a_worker_begins_an_attempt_and_gets_its_key_once(site: Site) -> None:
    me = site.bearer()
    _credential(site, me)
    run = _start(me).get_json()
    begun = site.executor().post(f"/v1/runs/{run['id']}/attempts", json={"dispatch_no": 1})
    assert begun.status_code == 201, begun.text
    body = begun.get_json()
    assert body["stand_in_key"].startswith("tcs_")
    assert body["token_url"] == "https://taskcred.test/identity/token"
    assert (body["task"], body["parameters"], body["iam_id"]) == ("report", {}, site.iam_id)
    for path in ("", "/attempts", "/access", "/output"):
        answer = me.get(f"/v1/runs/{run['id']}{path}")
        assert answer.status_code == 200
        assert body["stand_in_key"] not in answer.text
    (attempt,) = me.get(f"/v1/runs/{run['id']}/attempts").get_json()["items"]
    assert (attempt["id"], attempt["outcome"]) == (body["attempt_id"], None)


def test_own_live_access_is_listed_and_ended(site: Site) -> None:
    me = site.bearer()
    _credential(site, me)
    run = _start(me).get_json()
    begun = site.executor().post(f"/v1/runs/{run['id']}/attempts", json={"dispatch_no": 1}).get_json()
    (live,) = me.get("/v1/access").get_json()["items"]
    assert live["attempt_id"] == begun["attempt_id"]
    assert me.delete(f"/v1/access/{live['attempt_id']}").status_code == 204
    assert me.get("/v1/access").get_json()["items"] == []


@pytest.mark.parametrize(("change", "code"), [("cancel", "cancelled"), ("none", "superseded")])
def test_a_worker_is_told_why_there_is_nothing_to_do(site: Site, change: str, code: str) -> None:
    me = site.bearer()
    _credential(site, me)
    path = f"/v1/runs/{_start(me).get_json()['id']}"
    if change == "cancel":
        me.post(f"{path}/cancel")
    answer = site.executor().post(f"{path}/attempts", json={"dispatch_no": 7 if change == "none" else 1})
    assert (answer.status_code, answer.get_json()["code"]) == (409, code)


def test_an_ended_worker_credential_is_refused(site: Site) -> None:
    from taskcred.store import tables as t

    with site.ctx.store.write() as connection:
        connection.execute(t.workers.update().values(ended_at=site.clock.now()))
    answer = site.executor().post(f"/v1/runs/{site.no_id}/attempts", json={"dispatch_no": 1})
    assert answer.status_code == 401


def test_schedules_live_their_life(site: Site) -> None:
    me = site.bearer()
    made = me.post(
        "/v1/schedules",
        json={
            "name": "nightly",
            "task": "report",
            "cron": "30 2 * * *",
            "timezone": "Europe/Berlin",
            "misfire": "skip",
        },
    )
    assert made.status_code == 201, made.text
    path = f"/v1/schedules/{made.get_json()['id']}"
    assert len(made.get_json()["next_times"]) == 5
    tag = me.get(path).headers["ETag"]
    assert (
        me.patch(path, json={"cron": "0 3 * * *"}, headers={"If-Match": tag}).get_json()["cron"]
        == "0 3 * * *"
    )
    assert me.patch(path, json={"cron": "0 4 * * *"}, headers={"If-Match": tag}).status_code == 412
    assert me.post(f"{path}/pause").get_json()["paused"] is True
    assert me.post(f"{path}/resume").get_json()["paused"] is False
    assert [item["id"] for item in me.get("/v1/schedules").get_json()["items"]] == [made.get_json()["id"]]
    assert me.delete(path).status_code == 204
    assert me.get(path).status_code == 404


def test_audit_is_ones_own_and_comes_page_by_page(site: Site) -> None:
    me = site.bearer()
    for _ in range(3):
        _start(me)
    first = me.get("/v1/audit?limit=2").get_json()
    rest = me.get("/v1/audit", query_string={"after": first["next"]}).get_json()
    ids = [event["id"] for event in first["items"] + rest["items"]]
    assert ids == sorted(ids, reverse=True)
    assert {"run:start", "prompt:open"} <= {event["action"] for event in first["items"] + rest["items"]}
    stranger = site.bearer(iam_id=site.provider.add_person(site.account_id))
    assert stranger.get("/v1/audit").get_json()["items"] == []


def test_others_runs_schedules_and_prompts_are_unknown(site: Site) -> None:
    me = site.bearer()
    run = _start(me).get_json()
    schedule = me.post("/v1/schedules", json={"name": "n", "task": "report", "cron": "* * * * *"}).get_json()
    them = site.bearer(iam_id=site.provider.add_person(site.account_id))
    for path in (
        f"/v1/runs/{run['id']}",
        f"/v1/runs/{run['id']}/output",
        f"/v1/runs/{run['id']}/access",
        f"/v1/runs/{run['id']}/attempts",
        f"/v1/schedules/{schedule['id']}",
        f"/v1/prompts/{run['prompt_id']}",
    ):
        assert them.get(path).status_code == 404, path
    assert them.post(f"/v1/runs/{run['id']}/cancel").status_code == 404
    assert them.delete(f"/v1/schedules/{schedule['id']}").status_code == 404
