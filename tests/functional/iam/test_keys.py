"""API keys and service ids: who may do what, and what is kept."""

from __future__ import annotations

import json
import threading
from collections import Counter
from datetime import timedelta
from typing import NoReturn

import httpx
import pytest

from taskcred.domain.keytext import STANDIN_KEY_PREFIX, has_form, new_key
from taskcred.errors import StoreBusyError, UnavailableError
from taskcred.iam.operator import Made
from taskcred.testing import Failure, Revoked
from tests.functional.iam.conftest import Room


@pytest.fixture
def service_id(room: Room) -> Made:
    with room.operator() as operator:
        return operator.create_service_id(account="Acme", name="nightly", with_api_key=True)


@pytest.fixture
def stranger(room: Room) -> Made:
    """The administrator of another account."""
    with room.operator() as operator:
        return operator.create_user(account="Elsewhere", email="eve@example.com", with_api_key=True)


def new(http: httpx.Client, iam_id: str, **more: object) -> httpx.Response:
    return http.post("/v1/apikeys", json={"name": "a key", "iam_id": iam_id, **more})


def test_members_manage_their_own_keys_only(room: Room, service_id: Made) -> None:
    with room.as_(room.member) as member, room.as_(room.administrator) as administrator:
        assert new(member, room.member.iam_id).status_code == 201
        assert new(member, room.administrator.iam_id).status_code == 403
        assert new(member, service_id.iam_id).status_code == 403
        theirs = new(administrator, room.administrator.iam_id).json()["id"]
        for method, path in (
            ("GET", ""),
            ("PUT", ""),
            ("DELETE", ""),
            ("POST", "/lock"),
            ("DELETE", "/lock"),
            ("POST", "/disable"),
            ("DELETE", "/disable"),
        ):
            answer = member.request(
                method,
                f"/v1/apikeys/{theirs}{path}",
                **({"json": {}, "headers": {"If-Match": "*"}} if method == "PUT" else {}),
            )
            assert answer.status_code == 404, (method, path)
        assert member.get("/v1/apikeys", params={"iam_id": room.administrator.iam_id}).status_code == 403
        seen = member.get("/v1/apikeys", params={"scope": "account"}).json()["apikeys"]
        assert {key["iam_id"] for key in seen} == {room.member.iam_id}


def test_administrators_manage_everybodys_keys_of_their_account(
    room: Room, service_id: Made, stranger: Made
) -> None:
    with room.as_(room.administrator) as administrator:
        made = new(administrator, room.member.iam_id)
        assert made.status_code == 201
        assert new(administrator, service_id.iam_id).status_code == 201
        seen = administrator.get("/v1/apikeys", params={"scope": "account"}).json()["apikeys"]
        assert {key["iam_id"] for key in seen} == {
            room.administrator.iam_id,
            room.member.iam_id,
            service_id.iam_id,
        }
        programs = administrator.get("/v1/apikeys", params={"scope": "account", "type": "serviceid"}).json()
        assert {key["iam_id"] for key in programs["apikeys"]} == {service_id.iam_id}
        assert new(administrator, stranger.iam_id).status_code == 403
        assert new(administrator, stranger.iam_id, account_id=stranger.account_id).status_code == 403
    with room.as_(stranger) as other:
        assert other.get(f"/v1/apikeys/{made.json()['id']}").status_code == 404
        assert other.get("/v1/apikeys", params={"account_id": room.account_id}).status_code == 403
        details = other.get("/v1/apikeys/details", headers={"IAM-ApiKey": made.json()["apikey"]})
        assert details.status_code == 404


def test_service_ids_are_their_administrators_business(room: Room, service_id: Made) -> None:
    own = f"/v1/serviceids/{service_id.iam_id.removeprefix('iam-')}"
    with room.as_(room.member) as member:
        body = {"account_id": room.account_id, "name": "x"}
        assert member.post("/v1/serviceids", json=body).status_code == 403
        assert member.get("/v1/serviceids").status_code == 403
        assert member.get(own).status_code == 403
        assert member.delete(own).status_code == 403
    with room.as_(service_id) as program:
        assert program.get(own).status_code == 200
        assert program.delete(own).status_code == 403
        assert new(program, service_id.iam_id).status_code == 201  # its own keys it manages
        assert program.get("/v1/accounts").json()["accounts"][0]["id"] == room.account_id


@pytest.mark.parametrize("path", ["/v1/serviceids", "/v1/serviceids/"])
def test_service_ids_are_served_with_and_without_the_slash(room: Room, path: str) -> None:
    with room.as_(room.administrator) as http:
        made = http.post(path, json={"account_id": room.account_id, "name": "x", "group_id": "g"})
        assert made.status_code == 201
        assert "group_id" not in made.json()
        listed = http.get(path, params={"show_group_id": "true", "group_id": "g"}).json()["serviceids"]
        assert [item["group_id"] for item in listed] == ["g"]


@pytest.mark.promise("dead-with-the-run")
def test_a_token_exchanged_for_a_run_changes_nothing(room: Room, service_id: Made) -> None:
    run_token = room.token(room.administrator, auth=("taskcred", room.client_secret()))
    own = room.as_(room.administrator)
    with own, httpx.Client(transport=room.http._transport, base_url=room.url) as run:
        key = new(own, room.administrator.iam_id).json()
        stored = new(own, service_id.iam_id, store_value=True).json()
        run.headers["Authorization"] = f"Bearer {run_token}"
        service = f"/v1/serviceids/{service_id.iam_id.removeprefix('iam-')}"
        writes = [
            ("POST", "/v1/apikeys"),
            *((method, f"/v1/apikeys/{key['id']}{path}") for method, path in (
                ("PUT", ""), ("DELETE", ""), ("POST", "/lock"), ("DELETE", "/lock"),
                ("POST", "/disable"), ("DELETE", "/disable"),
            )),
            ("POST", "/v1/serviceids/"),
            *((method, service + path) for method, path in (
                ("PUT", ""), ("DELETE", ""), ("POST", "/lock"), ("DELETE", "/lock"),
            )),
        ]  # fmt: skip
        for method, path in writes:
            answer = run.request(
                method,
                path,
                json={"name": "x", "iam_id": room.administrator.iam_id, "account_id": room.account_id},
                headers={"If-Match": "*"},
            )
            assert (answer.status_code, answer.json()["errors"][0]["code"]) == (403, "run_token"), path
        assert run.get(f"/v1/apikeys/{key['id']}").json()["entity_tag"] == key["entity_tag"]
        # A kept value is shown to its administrator, and not to a run.
        assert own.get(f"/v1/apikeys/{stored['id']}").json()["apikey"] == stored["apikey"]
        assert run.get(f"/v1/apikeys/{stored['id']}").json()["apikey"] == ""


def test_who_left_the_account_can_do_nothing_there(room: Room) -> None:
    with room.as_(room.member) as http:
        with room.iam.database.write() as connection:
            connection.exec_driver_sql("DELETE FROM memberships WHERE iam_id = ?", (room.member.iam_id,))
        answer = http.get("/v1/apikeys")
        assert (answer.status_code, answer.json()["errors"][0]["message_code"]) == (403, "BXNIM0141E")
    assert room.exchange(room.member.api_key.reveal()).json()["errorCode"] == "BXNIM0415E"


def test_the_value_of_a_users_key_is_never_kept(room: Room) -> None:
    with room.as_(room.member) as http:
        refused = new(http, room.member.iam_id, store_value=True)
        assert refused.status_code == 400
        assert new(http, room.member.iam_id, store_value=False).status_code == 201
    assert not room.vault.paths("iam/apikeys/")


def test_a_kept_value_goes_with_its_key(room: Room, service_id: Made) -> None:
    service = f"/v1/serviceids/{service_id.iam_id.removeprefix('iam-')}"
    with room.as_(room.administrator) as http:
        first = new(http, service_id.iam_id, store_value=True).json()
        second = new(http, service_id.iam_id, store_value=True).json()
        assert room.vault.paths("iam/apikeys/") == sorted(
            f"iam/apikeys/{key['id']}" for key in (first, second)
        )
        assert http.delete(f"/v1/apikeys/{first['id']}").status_code == 204
        assert room.vault.paths("iam/apikeys/") == [f"iam/apikeys/{second['id']}"]
        assert http.delete(service).status_code == 204
    assert not room.vault.paths("iam/apikeys/")


def test_a_value_kept_before_a_crash_is_found_and_destroyed(room: Room, service_id: Made) -> None:
    with room.as_(room.administrator) as http:
        room.vault.script("store", Failure.COMMIT_THEN_DROP)
        assert new(http, service_id.iam_id, store_value=True).status_code == 503
        assert len(room.vault.paths("iam/apikeys/")) == 1
        kept = new(http, service_id.iam_id, store_value=True).json()
    room.iam.tend()
    assert len(room.vault.paths("iam/apikeys/")) == 2  # it might still be under way
    room.clock.advance(timedelta(minutes=11))
    room.iam.tend()
    assert room.vault.paths("iam/apikeys/") == [f"iam/apikeys/{kept['id']}"]


def test_deleting_goes_through_while_the_vault_is_away(room: Room, service_id: Made) -> None:
    with room.as_(room.administrator) as http:
        key = new(http, service_id.iam_id, store_value=True).json()
        room.vault.script("destroy", Failure.UNAVAILABLE)
        assert http.delete(f"/v1/apikeys/{key['id']}").status_code == 503
        assert room.exchange(key["apikey"]).status_code == 400  # it ended all the same
        assert http.delete(f"/v1/apikeys/{key['id']}").status_code == 404
    room.clock.advance(timedelta(minutes=11))
    room.iam.tend()
    assert not room.vault.paths("iam/apikeys/")


def test_a_key_has_the_local_form_unless_its_owner_chose_it(room: Room) -> None:
    with room.as_(room.member) as http:
        assert has_form(new(http, room.member.iam_id).json()["apikey"], "tcu_")
        assert new(http, room.member.iam_id, apikey="x" * 32).status_code == 201
        for refused in ("x" * 31, "y" * 513, "z" * 40 + "\n", "\ud800" * 40, 12345, ["x" * 40]):
            assert new_raw(http, room.member.iam_id, refused).status_code == 400, refused
        standin = new_key(STANDIN_KEY_PREFIX).reveal()
        assert new(http, room.member.iam_id, apikey=standin).status_code == 400


def new_raw(http: httpx.Client, iam_id: str, value: object) -> httpx.Response:
    """With a body that JSON allows and httpx would not write (lone surrogates)."""
    return http.post(
        "/v1/apikeys",
        content=json.dumps({"name": "n", "iam_id": iam_id, "apikey": value}),
        headers={"Content-Type": "application/json"},
    )


def test_twenty_keys_and_no_more_however_they_race(room: Room) -> None:
    statuses: Counter[int] = Counter()
    with room.as_(room.member) as http:

        def create() -> None:
            statuses[new(http, room.member.iam_id).status_code] += 1

        threads = [threading.Thread(target=create) for _ in range(30)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        total = http.get("/v1/apikeys", params={"pagesize": 100}).json()["apikeys"]
    assert statuses == {201: 19, 409: 11}
    assert len(total) == 20


def test_one_value_makes_one_key_however_they_race(room: Room) -> None:
    answers: list[httpx.Response] = []
    value = "the same words, thirty-two characters or more"
    with room.as_(room.member) as http, room.as_(room.administrator) as other:

        def create(client: httpx.Client, iam_id: str) -> None:
            answers.append(new(client, iam_id, apikey=value))

        threads = [
            threading.Thread(target=create, args=pair)
            for pair in [(http, room.member.iam_id), (other, room.administrator.iam_id)] * 8
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    statuses = Counter(answer.status_code for answer in answers)
    assert statuses == {201: 1, 409: 15}
    assert not any(value in answer.text for answer in answers if answer.status_code == 409)


def test_a_lock_stops_changes_and_nothing_else(room: Room) -> None:
    with room.as_(room.member) as http:
        made = http.post(
            "/v1/apikeys",
            json={"name": "n", "iam_id": room.member.iam_id},
            headers={"Entity-Lock": "true"},
        ).json()
        path = f"/v1/apikeys/{made['id']}"
        assert made["locked"] is True
        locked = http.put(path, json={"name": "m"}, headers={"If-Match": made["entity_tag"]})
        assert (locked.status_code, locked.json()["errors"][0]["code"]) == (409, "locked")
        assert room.exchange(made["apikey"]).status_code == 200
        assert http.post(f"{path}/disable").status_code == 204
        assert room.exchange(made["apikey"]).status_code == 400


def test_a_key_can_be_born_disabled(room: Room) -> None:
    with room.as_(room.member) as http:
        body = {"name": "n", "iam_id": room.member.iam_id}
        made = http.post("/v1/apikeys", json=body, headers={"Entity-Disable": "true"}).json()
        assert made["disabled"] is True
        assert room.exchange(made["apikey"]).status_code == 400
        assert http.delete(f"/v1/apikeys/{made['id']}/disable").status_code == 204
    assert room.exchange(made["apikey"]).status_code == 200


def test_updates_need_the_present_revision(room: Room) -> None:
    with room.as_(room.member) as http:
        made = new(http, room.member.iam_id).json()
        path = f"/v1/apikeys/{made['id']}"
        absent = http.put(path, json={"name": "m"})
        assert (absent.status_code, absent.json()["errors"][0]["message_code"]) == (400, "BXNIM0109E")
        tag = made["entity_tag"]
        for revision, form in ((2, "{}"), (3, '"{}"'), (4, 'W/"{}"')):
            answer = http.put(path, json={"name": "m"}, headers={"If-Match": form.format(tag)})
            tag = answer.json()["entity_tag"]
            assert tag.startswith(f"{revision}-")
        assert http.put(path, json={"name": "m"}, headers={"If-Match": "1-stale"}).status_code == 409
        assert http.put(path, json={"name": "m"}, headers={"If-Match": "*"}).status_code == 200


def test_expiry_can_be_set_and_taken_away(room: Room) -> None:
    with room.as_(room.member) as http:
        made = new(http, room.member.iam_id).json()
        path, any_tag = f"/v1/apikeys/{made['id']}", {"If-Match": "*"}
        set_to = http.put(path, json={"expires_at": "2049-01-02T18:30+0000"}, headers=any_tag).json()
        assert set_to["expires_at"] == "2049-01-02T18:30+0000"
        assert "expires_at" not in http.put(path, json={"expires_at": ""}, headers=any_tag).json()
        for wrong in ("yesterday", "2020-01-01T00:00", 7, "9999999-01-01T00:00Z"):
            assert http.put(path, json={"expires_at": wrong}, headers=any_tag).status_code == 400
        assert new(http, room.member.iam_id, expires_at="2020-01-01T00:00+0000").status_code == 400


def test_expired_keys_vanish_after_ninety_days(room: Room) -> None:
    with room.as_(room.member) as http:
        until = (room.clock.now() + timedelta(days=1)).isoformat()
        path = f"/v1/apikeys/{new(http, room.member.iam_id, expires_at=until).json()['id']}"
    room.clock.advance(timedelta(days=90))
    room.iam.tend()
    with room.as_(room.member) as http:
        assert http.get(path).status_code == 200
    room.clock.advance(timedelta(days=2))
    room.iam.tend()
    with room.as_(room.member) as http:
        assert http.get(path).status_code == 404


def test_a_key_is_described_by_its_value(room: Room) -> None:
    with room.as_(room.member) as http:
        made = new(http, room.member.iam_id).json()
        found = http.get("/v1/apikeys/details", headers={"IAM-ApiKey": made["apikey"]})
        assert found.json() == {**made, "apikey": ""}
        assert found.headers["ETag"] == made["entity_tag"]
        assert http.get("/v1/apikeys/details").status_code == 400
        assert http.get("/v1/apikeys/details", headers={"IAM-ApiKey": "no such"}).status_code == 404


def test_history_tells_who_did_what(room: Room) -> None:
    with room.as_(room.member) as http, room.as_(room.administrator) as administrator:
        path = f"/v1/apikeys/{new(http, room.member.iam_id).json()['id']}"
        administrator.post(f"{path}/disable")
        shown = http.get(path, params={"include_history": "true"}).json()["history"]
    assert [(entry["action"], entry["iam_id"]) for entry in shown] == [
        ("apikey:create", room.member.iam_id),
        ("apikey:disable", room.administrator.iam_id),
    ]


def test_no_secret_is_kept_in_the_clear(room: Room, service_id: Made) -> None:
    with room.as_(room.administrator) as http:
        kept = new(http, service_id.iam_id, store_value=True).json()["apikey"]
    browser = room.browser()
    answer = browser.redeem(browser.sign_in("ada@example.com")).json()
    with room.operator() as operator:
        link = operator.sign_in_link(user="max@example.com", public_url=room.url).reveal()
    room.iam.close()
    secrets = [
        kept,
        room.member.api_key.reveal(),
        answer["refresh_token"],
        answer["access_token"],
        link.partition("=")[2],
        browser.http.cookies["taskcred_sign_in"],
        "correct horse battery staple",
        room.vault.records["iam/clients/taskcred"].reveal(),
    ]
    database = room.iam.config.database
    content = b"".join(file.read_bytes() for file in database.parent.glob("iam.db*"))
    for secret in secrets:
        assert secret.encode() not in content


def test_no_vault_call_is_made_inside_a_transaction(room: Room, service_id: Made) -> None:
    def check(method: str) -> None:
        # A second writer gets through at once unless somebody holds the lock.
        with room.iam.database.write():
            seen.append(method)

    seen: list[str] = []
    room.vault.hook = check
    with room.as_(room.administrator) as http:
        key = new(http, service_id.iam_id, store_value=True).json()
        http.get(f"/v1/apikeys/{key['id']}")
        http.delete(f"/v1/apikeys/{key['id']}")
    room.iam.signing_keys.rotate()
    assert {"store", "open", "destroy"} <= set(seen)


def test_a_busy_database_is_503(room: Room) -> None:
    def busy() -> object:
        raise UnavailableError("scripted: busy")

    with room.as_(room.member) as http:
        room.iam.database.read = busy  # type: ignore[method-assign,assignment]  # a database that is away
        assert http.get("/v1/apikeys").status_code == 503


def test_what_is_taken_away_is_in_the_log_outside_every_backup(room: Room, service_id: Made) -> None:
    room.revocations.entries.clear()
    with room.as_(room.administrator) as http:
        key_id = new(http, room.member.iam_id).json()["id"]
        assert room.revocations.entries == []  # made, locked and renamed is not taken away
        http.post(f"/v1/apikeys/{key_id}/lock")
        http.delete(f"/v1/apikeys/{key_id}/lock")
        for _ in range(2):  # a second time changes nothing, and says nothing
            http.post(f"/v1/apikeys/{key_id}/disable")
        http.delete(f"/v1/apikeys/{key_id}/disable")
        http.delete(f"/v1/apikeys/{key_id}")
        gone = http.get("/v1/serviceids/").json()["serviceids"][0]["id"]
        assert http.delete(f"/v1/serviceids/{gone}").status_code == 204
    key = {"account_id": room.account_id, "iam_id": room.member.iam_id}
    assert room.revocations.entries == [
        Revoked("iam_key_disabled", key_id, **key),
        Revoked("iam_key_enabled", key_id, **key),
        Revoked("iam_key", key_id, **key),
        Revoked("iam_service_id", gone, room.account_id, service_id.iam_id),
    ]


class FullDisk:
    def append(self, kind: str, ref: str, account_id: str, iam_id: str) -> None:
        raise StoreBusyError("The revocation log cannot be written.", hint="Look at the disk.")


def test_what_cannot_be_logged_is_not_taken_away(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    with room.as_(room.administrator) as http:
        key_id = new(http, room.member.iam_id).json()["id"]
        monkeypatch.setattr(room.iam, "revocations", FullDisk())
        for method, path in (("DELETE", ""), ("POST", "/disable")):
            assert http.request(method, f"/v1/apikeys/{key_id}{path}").status_code == 503
        assert http.get(f"/v1/apikeys/{key_id}").json()["disabled"] is False


def test_counts_of_uses_survive_a_busy_database(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    room.token(room.member)
    with room.as_(room.member) as http:
        key_id = http.get("/v1/apikeys").json()["apikeys"][0]["id"]

        def busy() -> NoReturn:
            raise StoreBusyError("The identity database is busy or away.", hint="Try again.")

        with monkeypatch.context() as outage:
            outage.setattr(room.iam.database, "write", busy)
            with pytest.raises(StoreBusyError):
                room.iam.exchange.flush()
        room.token(room.member)
        shown = http.get(f"/v1/apikeys/{key_id}", params={"include_activity": "true"}).json()
    assert int(shown["activity"]["authn_count"]) == 3  # two here, one for the client
