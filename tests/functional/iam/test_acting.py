"""`serviceid:act`: who may act for a service id, and what the local IAM lets them do then."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from taskcred.errors import ConflictError, NotFoundError
from taskcred.iam.operator import Made
from tests.functional.iam.conftest import Room
from tests.functional.iam.test_device_grant import answer, ask, poll


@pytest.fixture
def robot(room: Room) -> Made:
    with room.operator() as operator:
        return operator.create_service_id(account="Acme", name="nightly", with_api_key=True)


def allow(room: Room, robot: Made, email: str = "max@example.com") -> None:
    with room.operator() as operator:
        operator.allow_act(service_id=robot.iam_id, user=email)


def person(room: Room, email: str = "max@example.com", **changed: str) -> httpx.Client:
    """A client that bears the token of a person who signed in; Max administers nothing."""
    browser = room.browser()
    body = browser.redeem(browser.sign_in(email, **changed)).json()
    return bearing(room, body["access_token"])


def bearing(room: Room, token: str) -> httpx.Client:
    return httpx.Client(
        transport=room.http._transport, base_url=room.url, headers={"Authorization": f"Bearer {token}"}
    )


def create_key(http: httpx.Client, iam_id: str) -> httpx.Response:
    return http.post("/v1/apikeys", json={"name": "made for it", "iam_id": iam_id})


def test_a_person_is_told_whom_they_may_act_for(room: Room, robot: Made) -> None:
    with person(room) as http:
        assert http.get("/identity/act-for").json() == {"service_ids": []}
        assert http.get(f"/identity/act-for/{robot.iam_id}").status_code == 404
        allow(room, robot)
        (told,) = http.get("/identity/act-for").json()["service_ids"]
        assert http.get(f"/identity/act-for/{robot.iam_id}").json() == told
    assert (told["iam_id"], told["account_id"], told["name"]) == (robot.iam_id, room.account_id, "nightly")


def test_a_device_sign_in_is_a_persons_too(room: Room, robot: Made) -> None:
    allow(room, robot, "ada@example.com")
    asked = ask(room).json()
    answer(room.browser(), asked)
    with bearing(room, poll(room, asked).json()["access_token"]) as http:
        assert len(http.get("/identity/act-for").json()["service_ids"]) == 1


def test_the_answer_is_about_the_tokens_own_person_and_account_only(room: Room, robot: Made) -> None:
    allow(room, robot)
    with room.operator() as operator:
        lab = operator.create_account("Lab")
        operator.add_member(account="Lab", user="max@example.com")
    with person(room, "ada@example.com") as ada, person(room, account=lab.id) as elsewhere:
        for http in (ada, elsewhere):
            assert http.get("/identity/act-for").json() == {"service_ids": []}
            assert http.get(f"/identity/act-for/{robot.iam_id}").status_code == 404


@pytest.mark.promise("only-what-the-user-started")
def test_no_program_acts_for_a_service_id(room: Room, robot: Made) -> None:
    allow(room, robot)
    for token in (
        room.token(room.member),
        room.token(room.member, client_id="taskcred", client_secret=room.client_secret()),
        room.token(robot),
    ):
        with bearing(room, token) as http:
            assert http.get("/identity/act-for").status_code == 403
            assert http.get(f"/identity/act-for/{robot.iam_id}").status_code == 403
    with room.as_(room.member) as http:
        assert create_key(http, robot.iam_id).status_code == 403
    assert room.http.get("/identity/act-for").status_code == 401


def test_who_acts_manages_the_service_ids_keys_and_they_are_its_own(room: Room, robot: Made) -> None:
    allow(room, robot)
    with person(room) as http:
        made = create_key(http, robot.iam_id).json()
        assert (made["iam_id"], made["created_by"]) == (robot.iam_id, room.member.iam_id)
        claims: Any = room.exchange(made["apikey"]).json()
        assert claims["access_token"]
        assert http.get("/v1/apikeys/details", headers={"IAM-ApiKey": made["apikey"]}).status_code == 200
        assert http.post(f"/v1/apikeys/{made['id']}/disable").status_code == 204
        assert room.exchange(made["apikey"]).status_code == 400
        assert http.delete(f"/v1/apikeys/{made['id']}").status_code == 204
        # The keys, not the service id itself, and nobody else's keys.
        assert http.delete(f"/v1/serviceids/{robot.iam_id.removeprefix('iam-')}").status_code == 403
        assert create_key(http, room.administrator.iam_id).status_code == 403


@pytest.mark.promise("at-once")
def test_a_permission_that_is_taken_away_ends_with_the_next_request(room: Room, robot: Made) -> None:
    allow(room, robot)
    with person(room) as http:
        made = create_key(http, robot.iam_id).json()
        with room.operator() as operator:
            assert operator.disallow_act(service_id=robot.iam_id, user="max@example.com")
            assert not operator.disallow_act(service_id=robot.iam_id, user="max@example.com")
        assert http.get(f"/identity/act-for/{robot.iam_id}").status_code == 404
        assert create_key(http, robot.iam_id).status_code == 403
        assert http.delete(f"/v1/apikeys/{made['id']}").status_code == 404


def test_the_permissions_end_with_the_service_id(room: Room, robot: Made) -> None:
    allow(room, robot)
    with room.as_(room.administrator) as http:
        assert http.delete(f"/v1/serviceids/{robot.iam_id.removeprefix('iam-')}").status_code == 204
    with person(room) as http, room.operator() as operator:
        assert http.get("/identity/act-for").json() == {"service_ids": []}
        assert operator.list_act() == []


def test_the_operator_names_a_service_id_by_id_iam_id_or_an_unambiguous_name(room: Room, robot: Made) -> None:
    with room.operator() as operator:
        for given in (robot.iam_id, robot.iam_id.removeprefix("iam-"), "nightly"):
            permitted = operator.allow_act(service_id=given, user="max@example.com")
            assert (permitted.service_id.iam_id, permitted.email) == (robot.iam_id, "max@example.com")
        assert len(operator.list_act()) == len(operator.list_act(service_id="nightly")) == 1
        for given in ("no such", "\x00", "\ud800"):
            with pytest.raises(NotFoundError) as refused:
                operator.allow_act(service_id=given, user="max@example.com")
            assert refused.value.error_code == "service_id_not_found"
        operator.create_service_id(account="Acme", name="nightly")
        with pytest.raises(ConflictError) as ambiguous:
            operator.list_act(service_id="nightly")
        assert robot.iam_id in ambiguous.value.hint


def test_only_members_of_its_account_act_for_a_service_id(room: Room, robot: Made) -> None:
    with room.operator() as operator:
        stranger = operator.create_user(account="Elsewhere", email="eve@example.com")
        with pytest.raises(ConflictError) as refused:
            operator.allow_act(service_id=robot.iam_id, user=stranger.iam_id)
    assert refused.value.error_code == "not_a_member"


def test_giving_and_taking_is_in_the_service_ids_history(room: Room, robot: Made) -> None:
    allow(room, robot)
    allow(room, robot)  # a second time changes nothing
    with room.operator() as operator:
        operator.disallow_act(service_id=robot.iam_id, user="max@example.com")
    with person(room, "ada@example.com") as http:
        path = f"/v1/serviceids/{robot.iam_id.removeprefix('iam-')}?include_history=true"
        history = http.get(path).json()["history"]
    assert [(entry["action"], entry["iam_id"]) for entry in history[1:]] == [
        ("serviceid:allow_act", "operator"),
        ("serviceid:disallow_act", "operator"),
    ]
    assert history[1]["params"] == [f"iam_id={room.member.iam_id}"]


@pytest.mark.parametrize("iam_id", ["x" * 5000, "%00", "a/b", "'; DROP TABLE actors; --"])
def test_odd_names_are_nobodys(room: Room, robot: Made, iam_id: str) -> None:
    allow(room, robot)
    with person(room) as http:
        assert http.get(f"/identity/act-for/{iam_id}").status_code == 404
