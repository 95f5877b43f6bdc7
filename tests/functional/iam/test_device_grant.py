"""The device authorization grant (RFC 8628): asking, the person's pages, polling, and every error."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any

import httpx
import pytest
import sqlalchemy as sa

from taskcred.iam import tables
from taskcred.iam.devices import normal_user_code
from taskcred.identity.claims import is_interactive
from tests.functional.iam.conftest import PASSWORD, Browser, Room
from tests.functional.iam.test_sign_in import claims_of

GRANT = "urn:ietf:params:oauth:grant-type:device_code"


def ask(room: Room, **changed: str) -> httpx.Response:
    return room.http.post("/identity/device_authorization", data={"client_id": "taskcred-cli", **changed})


def poll(room: Room, asked: dict[str, Any], **changed: str) -> httpx.Response:
    form = {"grant_type": GRANT, "client_id": "taskcred-cli", "device_code": asked["device_code"], **changed}
    return room.http.post("/identity/token", data={name: value for name, value in form.items() if value})


def error_of(answer: httpx.Response) -> tuple[int, str]:
    assert answer.json()["error_description"]
    return answer.status_code, answer.json()["error"]


def enter(browser: Browser, user_code: str) -> httpx.Response:
    return browser.submit(browser.http.get("/identity/device"), user_code=user_code)


def answer(browser: Browser, asked: dict[str, Any], what: str = "allow", **fields: str) -> httpx.Response:
    person = {"email": "ada@example.com", "password": PASSWORD}
    page = enter(browser, asked["user_code"])
    return browser.submit(page, user_code=asked["user_code"], answer=what, **person | fields)


def test_a_program_asks_and_is_told_where_a_person_answers(room: Room) -> None:
    asked = ask(room).json()
    assert re.fullmatch("[BCDFGHJKLMNPQRSTVWXZ]{4}-[BCDFGHJKLMNPQRSTVWXZ]{4}", asked["user_code"])
    assert asked["verification_uri"] == f"{room.url}/identity/device"
    assert asked["verification_uri_complete"] == f"{room.url}/identity/device?user_code={asked['user_code']}"
    assert (asked["expires_in"], asked["interval"]) == (600, 5)
    discovery = room.http.get("/identity/.well-known/openid-configuration").json()
    assert discovery["device_authorization_endpoint"] == f"{room.url}/identity/device_authorization"
    assert GRANT in discovery["grant_types_supported"]


def test_the_person_allows_it_and_the_program_gets_an_interactive_token(room: Room) -> None:
    asked = ask(room).json()
    assert error_of(poll(room, asked)) == (400, "authorization_pending")
    room.clock.advance(timedelta(seconds=90))
    done = answer(room.browser(), asked)
    assert "The program is signed in" in done.text
    signed_in_at = int(room.clock.now().timestamp())
    room.clock.advance(timedelta(seconds=5))
    body = poll(room, asked).json()
    claims = claims_of(room, body["access_token"])
    assert is_interactive(claims)
    assert (claims["grant_type"], claims["client_id"]) == (GRANT, "taskcred-cli")
    assert claims["auth_time"] == signed_in_at
    assert (claims["iam_id"], claims["account"]["bss"]) == (room.administrator.iam_id, room.account_id)
    assert claims_of(room, body["id_token"])["auth_time"] == signed_in_at

    room.clock.advance(timedelta(minutes=30))
    form = {
        "grant_type": "refresh_token",
        "refresh_token": body["refresh_token"],
        "client_id": "taskcred-cli",
    }
    refreshed = claims_of(room, room.http.post("/identity/token", data=form).json()["access_token"])
    assert (refreshed["grant_type"], refreshed["auth_time"]) == (GRANT, signed_in_at)


@pytest.mark.parametrize("typed", ["{}", " {} ", "{}x"])
def test_case_spaces_and_dashes_of_a_code_do_not_matter(room: Room, typed: str) -> None:
    code = ask(room).json()["user_code"]
    page = enter(room.browser(), typed.format(code.lower().replace("-", " ")))
    assert ("Let this program act as you?" in page.text) is (typed != "{}x")


@pytest.mark.parametrize("typed", ["", "BCDF", "BCDF-GHJ0", "AEIO-UUUU", "\x00", "BCDFGHJKL", "х" * 8])
def test_what_is_no_code_is_said_to_be_none(room: Room, typed: str) -> None:
    assert normal_user_code(typed) is None
    page = enter(room.browser(), typed)
    assert (page.status_code, "eight letters, as in" in page.text) == (422, True)


def test_a_link_with_the_code_in_it_looks_nothing_up_and_still_asks(room: Room) -> None:
    asked = ask(room).json()
    browser = room.browser()
    browser.sign_in("ada@example.com")  # a remembered browser does not answer by itself either
    page = browser.http.get(f"/identity/device?user_code={asked['user_code']}")
    assert f'value="{asked["user_code"]}"' in page.text
    assert "Let this program act as you?" not in page.text
    question = browser.submit(page, user_code=asked["user_code"])
    assert 'type="password"' in question.text
    without = browser.submit(question, user_code=asked["user_code"], answer="allow", email="ada@example.com")
    assert without.status_code == 422
    assert error_of(poll(room, asked)) == (400, "authorization_pending")


def test_the_question_says_what_asks_from_where_and_for_which_account(room: Room) -> None:
    room.http._transport = httpx.WSGITransport(
        room.http._transport.app,
        remote_addr="203.0.113.7",
    )
    asked = ask(room, account=room.account_id).json()
    room.clock.advance(timedelta(minutes=2))
    room.http._transport.remote_addr = "198.51.100.2"
    text = enter(room.browser(), asked["user_code"]).text
    for said in (
        "taskcred login",
        "2 minutes ago",
        "203.0.113.7",
        "198.51.100.2",
        "Acme",
        asked["user_code"],
    ):
        assert said in text
    assert "If somebody sent you the link or the code, deny" in text


def test_a_denial_needs_no_password_and_ends_the_code(room: Room) -> None:
    asked = ask(room).json()
    denied = answer(room.browser(), asked, "deny", email="", password="")
    assert "Denied" in denied.text
    assert error_of(poll(room, asked)) == (400, "access_denied")
    assert "No program waits" in answer_page(room, asked["user_code"])
    with room.iam.database.read() as connection:
        assert connection.scalar(sa.select(sa.func.count()).select_from(tables.sign_ins)) == 0


def answer_page(room: Room, user_code: str) -> str:
    return enter(room.browser(), user_code).text


def test_a_wrong_password_allows_nothing_and_the_person_may_try_again(room: Room) -> None:
    asked = ask(room).json()
    browser = room.browser()
    page = answer(browser, asked, password="wrong password")
    assert (page.status_code, "wrong password" in page.text) == (422, False)
    assert error_of(poll(room, asked)) == (400, "authorization_pending")
    browser.submit(
        page, user_code=asked["user_code"], answer="allow", email="ada@example.com", password=PASSWORD
    )
    assert poll(room, asked).status_code == 200


def test_the_account_asked_for_is_the_tokens_and_only_its_members_may_allow_it(room: Room) -> None:
    with room.operator() as operator:
        lab = operator.create_account("Lab")
        operator.add_member(account="Lab", user="ada@example.com")
    asked = ask(room, account=lab.id).json()
    refused = answer(room.browser(), asked, email="max@example.com")
    assert (refused.status_code, "not a member of the account" in refused.text) == (422, True)
    answer(room.browser(), asked)
    assert claims_of(room, poll(room, asked).json()["access_token"])["account"]["bss"] == lab.id


def test_asking_too_often_slows_the_program_down_for_good(room: Room) -> None:
    asked = ask(room).json()
    assert error_of(poll(room, asked)) == (400, "authorization_pending")
    room.clock.advance(timedelta(seconds=4))
    assert error_of(poll(room, asked)) == (400, "slow_down")
    room.clock.advance(timedelta(seconds=9))  # the interval is 10 s now
    assert error_of(poll(room, asked)) == (400, "slow_down")
    room.clock.advance(timedelta(seconds=15))
    assert error_of(poll(room, asked)) == (400, "authorization_pending")


def test_a_code_ends_after_ten_minutes_answered_or_not(room: Room) -> None:
    asked, allowed = ask(room).json(), ask(room).json()
    answer(room.browser(), allowed)
    room.clock.advance(timedelta(minutes=10))
    assert error_of(poll(room, asked)) == (400, "expired_token")
    assert error_of(poll(room, allowed)) == (400, "expired_token")
    assert "No program waits" in answer_page(room, asked["user_code"])
    room.clock.advance(timedelta(days=1))
    room.iam.tend()
    assert error_of(poll(room, asked)) == (400, "invalid_grant")


def test_a_code_that_is_presented_again_ends_what_it_got(room: Room) -> None:
    asked = ask(room).json()
    answer(room.browser(), asked)
    body = poll(room, asked).json()
    assert error_of(poll(room, asked)) == (400, "invalid_grant")
    form = {
        "grant_type": "refresh_token",
        "refresh_token": body["refresh_token"],
        "client_id": "taskcred-cli",
    }
    assert room.http.post("/identity/token", data=form).status_code == 400


def test_an_allowed_sign_in_ends_with_the_persons_password(room: Room) -> None:
    asked = ask(room).json()
    answer(room.browser(), asked)
    with room.operator() as operator:
        operator.set_password(user="ada@example.com", password=room.administrator.api_key)
    assert error_of(poll(room, asked)) == (400, "invalid_grant")


def test_the_page_leaves_the_browser_as_it_was(room: Room) -> None:
    browser = room.browser()
    answer(browser, ask(room).json())
    assert browser.authorize().status_code == 200  # asks for the password: nobody is signed in


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"client_id": "nobody"}, (401, "invalid_client")),
        ({"client_id": ""}, (401, "invalid_client")),
        ({"client_id": "bx"}, (400, "unauthorized_client")),
        ({"scope": "everything"}, (400, "invalid_scope")),
        ({"account": "x" * 65}, (400, "invalid_request")),
        ({"account": "a\x00b"}, (400, "invalid_request")),
    ],
)
def test_a_bad_question_is_refused_in_oauths_words(
    room: Room, changed: dict[str, str], expected: tuple[int, str]
) -> None:
    assert error_of(ask(room, **changed)) == expected


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"client_id": "nobody"}, (401, "invalid_client")),
        ({"client_id": ""}, (401, "invalid_client")),
        ({"client_id": "bx"}, (400, "invalid_grant")),
        ({"device_code": ""}, (400, "invalid_request")),
        ({"device_code": "x" * 43}, (400, "invalid_grant")),
        ({"device_code": "\x00\ud7ff"}, (400, "invalid_grant")),
    ],
)
def test_a_bad_poll_is_refused_in_oauths_words(
    room: Room, changed: dict[str, str], expected: tuple[int, str]
) -> None:
    refused = poll(room, ask(room).json(), **changed)
    assert error_of(refused) == expected
    assert ("WWW-Authenticate" in refused.headers) is (expected[0] == 401)


def test_a_form_from_elsewhere_is_refused(room: Room) -> None:
    asked = ask(room).json()
    browser = room.browser()
    page = enter(browser, asked["user_code"])
    form = {
        "user_code": asked["user_code"],
        "answer": "allow",
        "email": "ada@example.com",
        "password": PASSWORD,
    }
    assert browser.http.post("/identity/device", data={**form, "form_token": "x" * 43}).status_code == 403
    browser.http.headers["Origin"] = "https://evil.example"
    token = page.text.split('name="form_token" value="')[1].split('"')[0]
    assert browser.http.post("/identity/device", data={**form, "form_token": token}).status_code == 403
    assert error_of(poll(room, asked)) == (400, "authorization_pending")


def test_the_pages_need_no_script_and_allow_none(room: Room) -> None:
    for page in (room.http.get("/identity/device"), enter(room.browser(), ask(room).json()["user_code"])):
        assert "<script" not in page.text
        assert "default-src 'none'" in page.headers["Content-Security-Policy"]
        assert "form-action 'self'" in page.headers["Content-Security-Policy"]
        assert "no-store" in page.headers["Cache-Control"]


def test_neither_code_lies_in_the_history(room: Room) -> None:
    asked = ask(room).json()
    answer(room.browser(), asked)
    poll(room, asked)
    with room.iam.database.read() as connection:
        kept = repr(connection.execute(sa.select(tables.history)).all())
    assert "'how': 'device'" in kept
    assert asked["user_code"] not in kept
