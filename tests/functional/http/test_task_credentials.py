"""/v1/task_credentials as IBM's clients use it, and ours on top."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from typing import Any

import pytest
from flask.testing import FlaskClient

from taskcred.domain.keytext import USER_KEY_PREFIX, new_key
from tests.support.site import Site

PATH = "/v1/task_credentials"


def _store(site: Site, client: FlaskClient | None = None, **more: Any) -> Any:
    body = {"name": "mine", "description": "d", "type": "iam_api_key", "secret": {"api_key": site.key()}}
    return (client or site.bearer()).post(f"{PATH}?version=2026-10-14", json=body | more)


def test_the_life_that_ibms_sdk_leads(site: Site) -> None:
    program = site.program()
    assert program.get(PATH).get_json() == {"credentials": []}
    stored = _store(site, program)
    assert stored.status_code == 201
    body = stored.get_json()
    assert {"id", "name", "description", "type", "scope", "created_at"} <= body.keys()
    assert (body["name"], body["type"], body["scope"]) == ("mine", "iam_api_key", {})
    listed = program.get(f"{PATH}?project_id=x&version=2").get_json()["credentials"]
    assert [item["id"] for item in listed] == [body["id"]]
    got = program.get(f"{PATH}/{body['id']}", headers={"Content-Type": "application/json"})
    assert (got.status_code, got.get_json()["name"]) == (200, "mine")
    gone = program.delete(f"{PATH}/{body['id']}?version=2", headers={"Content-Type": "application/json"})
    assert (gone.status_code, gone.data) == (204, b"")
    assert program.get(PATH).get_json() == {"credentials": []}


def test_ibms_request_may_hold_what_we_do_not_know(site: Site) -> None:
    answer = _store(
        site, scope={"project_id": "p1"}, unknown={"deep": [1]}, secret={"api_key": site.key(), "x": 1}
    )
    assert answer.status_code == 201
    assert answer.get_json()["scope"] == {"project_id": "p1"}


@pytest.mark.promise("one-per-owner")
def test_a_second_store_is_refused_with_the_id_of_the_first(site: Site) -> None:
    first = _store(site).get_json()["id"]
    second = _store(site)
    assert second.status_code == 409
    (error,) = second.get_json()["errors"]
    assert (error["code"], error["existing_id"]) == ("credential_exists", first)


@pytest.mark.promise("one-per-owner")
def test_racing_stores_give_one_201(site: Site) -> None:
    keys = [site.key() for _ in range(8)]
    clients = [site.bearer() for _ in keys]

    def store(pair: tuple[FlaskClient, str]) -> int:
        client, key = pair
        answer = client.post(PATH, json={"name": "mine", "secret": {"api_key": key}})
        return int(answer.status_code)

    with ThreadPoolExecutor(len(keys)) as pool:
        statuses = sorted(pool.map(store, zip(clients, keys, strict=True)))
    assert statuses == [201] + [409] * (len(keys) - 1)


@pytest.mark.parametrize(
    "source",
    [
        {},
        {"secret": {}},
        {"secret": {"api_key": None}},
        {"secret": {"api_key": ""}},
        {"secret": None, "generate": None},
        {"generate": False},
        {"generate": "true"},
        {"secret": {"api_key": "PLACEHOLDER"}, "generate": True},
    ],
    ids=str,
)
def test_exactly_one_source_is_needed(site: Site, source: dict[str, Any]) -> None:
    if source.get("secret") and source["secret"].get("api_key") == "PLACEHOLDER":
        source = {**source, "secret": {"api_key": site.key()}}
    answer = site.bearer().post(PATH, json={"name": "n", **source})
    assert answer.status_code == 400
    assert site.bearer().get(PATH).get_json() == {"credentials": []}


@pytest.mark.promise("key-stays-home")
def test_a_generated_key_is_shown_once_and_only_on_request(site: Site) -> None:
    me = site.bearer()
    made = me.post(PATH, json={"name": "n", "generate": True, "show_once": True})
    assert made.status_code == 201, made.text
    text = made.get_json()["api_key"]
    assert text.startswith(USER_KEY_PREFIX)
    path = f"{PATH}/{made.get_json()['id']}"
    for again in (me.get(PATH), me.get(path), me.get(f"{path}/keys"), me.get("/v1/audit")):
        assert text not in again.text
    me.delete(path)
    quiet = me.post(PATH, json={"name": "n", "generate": True})
    assert quiet.get_json()["api_key"] is None


def test_the_provided_key_is_in_no_answer(site: Site) -> None:
    key = site.key()
    me = site.bearer()
    made = me.post(PATH, json={"name": "n", "secret": {"api_key": key}})
    path = f"{PATH}/{made.get_json()['id']}"
    for answer in (made, me.get(PATH), me.get(path), me.get(f"{path}/keys"), me.get("/v1/audit")):
        assert answer.status_code < 300
        assert key not in answer.text


def test_updates_are_guarded_by_the_etag(site: Site) -> None:
    me = site.bearer()
    path = f"{PATH}/{_store(site, me).get_json()['id']}"
    tag = me.get(path).headers["ETag"]
    changed = me.patch(path, json={"name": "better"}, headers={"If-Match": tag})
    assert (changed.status_code, changed.get_json()["name"]) == (200, "better")
    for stale in (tag, '"0-0123456789abcdef"', "nonsense", '"*"'):
        answer = me.patch(path, json={"name": "worse"}, headers={"If-Match": stale})
        assert answer.status_code == 412
    assert me.patch(path, json={"name": "free"}, headers={"If-Match": "*"}).status_code == 200
    assert me.get(path).get_json()["name"] == "free"


def test_polling_gets_304_until_something_changes(site: Site) -> None:
    me = site.bearer()
    path = f"{PATH}/{_store(site, me).get_json()['id']}"
    tag = me.get(path).headers["ETag"]
    same = me.get(path, headers={"If-None-Match": tag})
    assert (same.status_code, same.data) == (304, b"")
    me.patch(path, json={"description": "new"})
    assert me.get(path, headers={"If-None-Match": tag}).status_code == 200


def test_rotation_phases_the_old_key_out(site: Site) -> None:
    me = site.bearer()
    path = f"{PATH}/{_store(site, me).get_json()['id']}"
    rotated = me.post(f"{path}/rotate", json={"secret": {"api_key": site.key()}})
    assert rotated.status_code in {200, 202}, rotated.text
    assert rotated.get_json()["stage"]
    states = [key["state"] for key in me.get(f"{path}/keys").get_json()["items"]]
    assert sorted(states) == ["active", "phased_out"]
    old = next(k for k in me.get(f"{path}/keys").get_json()["items"] if k["state"] == "phased_out")
    assert me.delete(f"{path}/keys/{old['id']}").status_code == 204


def test_the_active_key_is_not_ended_alone(site: Site) -> None:
    me = site.bearer()
    made = _store(site, me).get_json()
    answer = me.delete(f"{PATH}/{made['id']}/keys/{made['active_key']['id']}")
    assert answer.status_code == 409
    assert answer.get_json()["errors"][0]["code"] == "key_active"


@pytest.mark.parametrize("drain", ["later", 5, "2026-03-02T09:00:00", True])
def test_a_drain_is_a_word_or_a_time_with_an_offset(site: Site, drain: object) -> None:
    me = site.bearer()
    path = f"{PATH}/{_store(site, me).get_json()['id']}"
    answer = me.post(f"{path}/rotate", json={"secret": {"api_key": site.key()}, "drain": drain})
    assert answer.status_code == 400
    assert len(me.get(f"{path}/keys").get_json()["items"]) == 1


def test_impact_names_what_would_break(site: Site) -> None:
    me = site.bearer()
    path = f"{PATH}/{_store(site, me).get_json()['id']}"
    me.post("/v1/schedules", json={"name": "nightly", "task": "report", "cron": "30 2 * * *"})
    impact = me.get(f"{path}/impact").get_json()
    assert [item["name"] for item in impact["schedules"]] == ["nightly"]


def test_others_are_told_of_nothing(site: Site) -> None:
    made = _store(site).get_json()
    stranger = site.provider.add_person(site.account_id)
    them = site.bearer(iam_id=stranger)
    path = f"{PATH}/{made['id']}"
    for answer in (
        them.get(path),
        them.delete(path),
        them.patch(path, json={"name": "x"}),
        them.post(f"{path}/rotate", json={"secret": {"api_key": new_key(USER_KEY_PREFIX).reveal()}}),
        them.get(f"{path}/keys"),
        them.get(f"{path}/impact"),
    ):
        assert answer.status_code == 404
    assert them.get(PATH).get_json() == {"credentials": []}


def test_an_old_sign_in_changes_no_keys(site: Site) -> None:
    me = site.bearer(auth_time=site.clock.now() - timedelta(minutes=16))
    answer = _store(site, me)
    assert answer.status_code == 403
    (error,) = answer.get_json()["errors"]
    assert error["code"] == "fresh_sign_in_required"
    assert error["more_info"] == "https://taskcred.test/sign-in"


def test_no_key_lives_for_ever_in_silence(site: Site) -> None:
    me = site.bearer()
    made = me.post(PATH, json={"name": "mine", "generate": True}).get_json()
    expires_at = datetime.fromisoformat(made["active_key"]["expires_at"])
    assert expires_at - datetime.fromisoformat(made["active_key"]["created_at"]) == timedelta(days=90)
    rotate = f"{PATH}/{made['id']}/rotate"
    both = {"generate": True, "never_expires": True, "expires_at": expires_at.isoformat()}
    refused = me.post(rotate, json=both)
    assert (refused.status_code, refused.get_json()["errors"][0]["target"]["name"]) == (400, "never_expires")
    never = me.post(rotate, json={"generate": True, "never_expires": True}).get_json()
    assert never["active_key"]["expires_at"] is None


def test_a_key_that_ibms_clients_store_ends_as_the_provider_says(site: Site) -> None:
    assert _store(site).get_json()["active_key"]["expires_at"] is None


def test_a_time_beyond_the_calendar_is_refused(site: Site) -> None:
    me, beyond = site.bearer(), "9999-12-31T23:59:59-23:59"
    refused = me.post(PATH, json={"name": "x", "generate": True, "expires_at": beyond})
    assert (refused.status_code, refused.get_json()["errors"][0]["target"]["name"]) == (400, "expires_at")
    rotate = f"{PATH}/{_store(site, me).get_json()['id']}/rotate"
    refused = me.post(rotate, json={"generate": True, "drain": beyond})
    assert refused.status_code == 400
