"""Replays: the same key and request get the first answer; the thing is done once."""

from __future__ import annotations

import base64
import uuid
from datetime import timedelta

import pytest
import sqlalchemy as sa

from taskcred.services import idempotency
from taskcred.store import tables as t
from taskcred.testing import Failure
from tests.support.site import Site


def _key() -> dict[str, str]:
    return {"Idempotency-Key": str(uuid.uuid4())}


def test_a_repetition_gets_the_first_answer_and_starts_nothing(site: Site) -> None:
    me, key = site.bearer(), _key()
    first = me.post("/v1/runs", json={"task": "report"}, headers=key)
    second = me.post("/v1/runs", json={"task": "report"}, headers=key)
    assert (first.status_code, second.status_code) == (201, 201)
    assert second.get_json() == first.get_json()
    assert second.headers["ETag"] == first.headers["ETag"]
    assert second.headers["Idempotency-Replayed"] == "true"
    assert "Idempotency-Replayed" not in first.headers
    assert len(me.get("/v1/runs").get_json()["items"]) == 1


def test_without_a_key_every_request_counts(site: Site) -> None:
    me = site.bearer()
    for _ in range(2):
        me.post("/v1/runs", json={"task": "report"})
    assert len(me.get("/v1/runs").get_json()["items"]) == 2


def test_a_key_is_for_one_request(site: Site) -> None:
    me, key = site.bearer(), _key()
    me.post("/v1/runs", json={"task": "report"}, headers=key)
    other = me.post("/v1/runs", json={"task": "copy", "parameters": {"source": "a"}}, headers=key)
    assert (other.status_code, other.get_json()["code"]) == (422, "idempotency_key_reused")


def test_the_order_of_members_makes_no_other_request(site: Site) -> None:
    me, key = site.bearer(), _key()
    for text in ('{"task": "report", "parameters": {}}', '{"parameters":{},"task":"report"}'):
        answer = me.post("/v1/runs", data=text, content_type="application/json", headers=key)
        assert answer.status_code == 201


def test_keys_of_other_people_are_other_keys(site: Site) -> None:
    key = _key()
    them = site.bearer(iam_id=site.provider.add_person(site.account_id))
    mine = site.bearer().post("/v1/runs", json={"task": "report"}, headers=key).get_json()
    theirs = them.post("/v1/runs", json={"task": "report"}, headers=key).get_json()
    assert mine["id"] != theirs["id"]


@pytest.mark.promise("key-stays-home")
def test_a_key_shown_once_is_not_kept_for_replays(site: Site) -> None:
    me, key = site.bearer(), _key()
    body = {"name": "n", "generate": True, "show_once": True}
    first = me.post("/v1/task_credentials", json=body, headers=key)
    text = first.get_json()["api_key"]
    second = me.post("/v1/task_credentials", json=body, headers=key)
    assert (first.status_code, second.status_code) == (201, 201)
    assert second.get_json()["id"] == first.get_json()["id"]
    assert "api_key" not in second.get_json()
    with site.ctx.store.read() as connection:
        kept = connection.execute(sa.select(t.idempotency)).all()
    assert text not in repr(kept)


def test_a_refused_request_leaves_its_key_free(site: Site) -> None:
    me, key = site.bearer(), _key()
    body = {"name": "n", "secret": {"api_key": site.key()}}
    site.provider.script("exchange", Failure.UNAVAILABLE)
    assert me.post("/v1/task_credentials", json=body, headers=key).status_code == 503
    assert me.post("/v1/task_credentials", json=body, headers=key).status_code == 201


def test_the_same_request_at_the_same_time_waits_its_turn(site: Site) -> None:
    me, key = site.bearer(), _key()
    body = {"name": "n", "secret": {"api_key": site.key()}}
    meanwhile = []

    def hook(method: str) -> None:
        if method == "exchange" and not meanwhile:
            meanwhile.append(None)
            meanwhile[0] = site.bearer().post("/v1/task_credentials", json=body, headers=key)

    site.provider.hook = hook
    assert me.post("/v1/task_credentials", json=body, headers=key).status_code == 201
    assert meanwhile[0].status_code == 409
    assert meanwhile[0].get_json()["errors"][0]["code"] == "idempotency_in_progress"


def test_keys_are_kept_for_a_day(site: Site) -> None:
    key = _key()
    first = site.bearer().post("/v1/runs", json={"task": "report"}, headers=key).get_json()
    site.clock.advance(idempotency.KEPT_FOR + timedelta(seconds=1))
    second = site.bearer().post("/v1/runs", json={"task": "report"}, headers=key).get_json()
    assert second["id"] != first["id"]
    site.clock.advance(idempotency.KEPT_FOR + timedelta(seconds=1))
    assert idempotency.sweep(site.ctx) == 1


@pytest.mark.parametrize("key", ["", " ", "x" * 256, "ü", "a b"])
def test_a_key_is_printable_and_short(site: Site, key: str) -> None:
    answer = site.bearer().post(
        "/v1/runs", json={"task": "report"}, headers={"Idempotency-Key": key.encode().decode("latin-1")}
    )
    assert answer.status_code == 400
    assert site.bearer().get("/v1/runs").get_json()["items"] == []


@pytest.mark.parametrize("claims", [b"[" * 9000, b"[1]", b'{"iam_id": [1], "account": [2]}', b"\xff", b""])
def test_a_subject_token_that_is_none_is_refused_with_a_key_too(site: Site, claims: bytes) -> None:
    token = f"a.{base64.urlsafe_b64encode(claims).decode()}.b"
    body = {"task": "train", "subject_token": token}
    refused = site.service().client.post("/v1/runs", json=body, headers=_key())
    assert (refused.status_code, refused.get_json()["code"]) == (400, "invalid_subject_token")
