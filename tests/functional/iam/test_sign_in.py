"""Signing in on the pages: authorization code with PKCE, sessions, refresh, account switch, sign-out."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import httpx
import pytest
import sqlalchemy as sa
from joserfc import jwt
from joserfc.jwk import KeySet

from taskcred.iam import tables
from taskcred.iam.app import create_app
from taskcred.iam.passwords import MIN_LENGTH
from taskcred.iam.service import LocalIam
from taskcred.iam.throttle import FORGET_AFTER
from taskcred.testing import RecordingRevocations
from tests.functional.iam.conftest import PASSWORD, Room, query_of


def claims_of(room: Room, token: str) -> dict[str, object]:
    keys = KeySet.import_key_set(room.http.get("/identity/keys").json())
    return jwt.decode(token, keys, algorithms=["ES256"]).claims


def link_path(link: str) -> str:
    url = httpx.URL(link)
    return f"{url.path}?{url.query.decode()}"


def test_a_person_signs_in_and_the_client_gets_tokens(room: Room) -> None:
    browser = room.browser()
    answer = browser.sign_in("Ada@Example.com ", nonce="a-nonce")
    returned = query_of(answer)
    assert answer.headers["Location"].startswith(f"{browser.callback}?")
    assert (returned["state"], returned["iss"]) == ("a-state", f"{room.url}/identity")
    body = browser.redeem(answer).json()
    claims = claims_of(room, body["access_token"])
    now = int(room.clock.now().timestamp())
    assert claims["grant_type"] == "authorization_code"
    assert claims["client_id"] == "taskcred"
    assert claims["auth_time"] == now
    assert (claims["iam_id"], claims["account"]["bss"]) == (room.administrator.iam_id, room.account_id)
    identity = claims_of(room, body["id_token"])
    assert (identity["aud"], identity["nonce"], identity["email"]) == (
        "taskcred",
        "a-nonce",
        "ada@example.com",
    )


def test_an_id_token_is_no_access_token(room: Room) -> None:
    browser = room.browser()
    body = browser.redeem(browser.sign_in("ada@example.com")).json()
    answer = room.http.get("/v1/apikeys", headers={"Authorization": f"Bearer {body['id_token']}"})
    assert answer.status_code == 401


def test_the_browser_is_remembered_until_asked_again(room: Room) -> None:
    browser = room.browser()
    browser.sign_in("ada@example.com")
    room.clock.advance(timedelta(minutes=5))
    again = browser.authorize()
    assert "code" in query_of(again)
    auth_time = claims_of(room, browser.redeem(again).json()["access_token"])["auth_time"]
    assert auth_time == int((room.clock.now() - timedelta(minutes=5)).timestamp())

    for fresh in ({"prompt": "login"}, {"max_age": "60"}):
        page = browser.authorize(**fresh)
        assert page.status_code == 200
        assert "ada@example.com" in page.text
    renewed = browser.submit(page, email="ada@example.com", password=PASSWORD)
    auth_time = claims_of(room, browser.redeem(renewed).json()["access_token"])["auth_time"]
    assert auth_time == int(room.clock.now().timestamp())

    room.clock.advance(timedelta(hours=12))
    assert browser.authorize().status_code == 200


def test_prompt_none_never_shows_a_page(room: Room) -> None:
    assert query_of(room.browser().authorize(prompt="none"))["error"] == "login_required"


def test_the_command_line_always_asks_the_person(room: Room) -> None:
    browser = room.browser()
    browser.sign_in("ada@example.com")
    loopback = "http://127.0.0.1:49152/callback"
    page = browser.authorize(client_id="taskcred-cli", redirect_uri=loopback)
    assert page.status_code == 200
    assert "taskcred login" in page.text
    assert (
        f"form-action 'self' {loopback.removesuffix('/callback')}" in page.headers["Content-Security-Policy"]
    )
    answer = browser.submit(page, email="ada@example.com", password=PASSWORD)
    form = {
        "grant_type": "authorization_code",
        "code": query_of(answer)["code"],
        "redirect_uri": loopback,
        "code_verifier": browser.verifier,
        "client_id": "taskcred-cli",
    }
    body = room.http.post("/identity/token", data=form).json()
    assert claims_of(room, body["access_token"])["client_id"] == "taskcred-cli"


@pytest.mark.parametrize(
    "wrong",
    [
        {"client_id": "nobody"},
        {"client_id": ""},
        {"client_id": "bx"},
        {"redirect_uri": "https://evil.example/auth/callback"},
        {"redirect_uri": "http://taskcred.test/auth/callback/../x"},
        {"redirect_uri": ""},
        {"client_id": "taskcred-cli", "redirect_uri": "http://localhost:8000/"},
        {"client_id": "taskcred-cli", "redirect_uri": "http://127.0.0.1:80@evil.example/"},
        {"client_id": "taskcred-cli", "redirect_uri": "http://127.0.0.1:80/\r\nX: y"},
    ],
)
def test_nobody_is_redirected_to_an_unknown_place(room: Room, wrong: dict[str, str]) -> None:
    answer = room.browser().authorize(**wrong)
    assert answer.status_code == 400
    assert "Location" not in answer.headers
    assert answer.headers["Content-Type"].startswith("text/html")


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        ({"response_type": "token"}, "unsupported_response_type"),
        ({"code_challenge": ""}, "invalid_request"),
        ({"code_challenge": "short"}, "invalid_request"),
        ({"code_challenge_method": "plain"}, "invalid_request"),
        ({"code_challenge_method": ""}, "invalid_request"),
        ({"scope": "everything"}, "invalid_scope"),
        ({"max_age": "²"}, "invalid_request"),
        ({"max_age": "9" * 5000}, "invalid_request"),
        ({"nonce": "x" * 300}, "invalid_request"),
        ({"account": "\x00"}, "invalid_request"),
        ({"prompt": "none", "account": "y" * 65}, "invalid_request"),
    ],
)
def test_other_mistakes_are_told_to_the_client(room: Room, wrong: dict[str, str], error: str) -> None:
    returned = query_of(room.browser().authorize(**wrong))
    assert (returned["error"], returned["state"]) == (error, "a-state")


@pytest.mark.parametrize(
    "changed",
    [
        {"code_verifier": "x" * 43},
        {"redirect_uri": "http://taskcred.test/elsewhere"},
        {"code": "not-a-code"},
    ],
)
def test_a_code_is_good_only_for_who_asked_for_it(room: Room, changed: dict[str, str]) -> None:
    browser = room.browser()
    answer = browser.sign_in("ada@example.com")
    assert browser.redeem(answer, **changed).status_code == 400
    if "code" not in changed:  # it was presented, wrongly: it is used up
        assert browser.redeem(answer).status_code == 400


def test_a_code_of_one_client_is_of_no_use_to_another(room: Room) -> None:
    browser = room.browser()
    form = {
        "grant_type": "authorization_code",
        "code": query_of(browser.sign_in("ada@example.com"))["code"],
        "redirect_uri": browser.callback,
        "code_verifier": browser.verifier,
    }
    for client_id in ("taskcred-cli", "bx"):
        assert room.http.post("/identity/token", data={**form, "client_id": client_id}).status_code == 400
    assert room.http.post("/identity/token", data=form).status_code == 401


def test_a_code_lasts_a_minute(room: Room) -> None:
    browser = room.browser()
    answer = browser.sign_in("ada@example.com")
    room.clock.advance(timedelta(seconds=60))
    assert browser.redeem(answer).status_code == 400


def test_a_code_presented_twice_ends_what_it_got(room: Room) -> None:
    browser = room.browser()
    answer = browser.sign_in("ada@example.com")
    refresh_token = browser.redeem(answer).json()["refresh_token"]
    assert refresh(room, refresh_token).status_code == 200
    assert browser.redeem(answer).status_code == 400
    assert refresh(room, refresh_token).json()["errorCode"] == "BXNIM0407E"


def refresh(room: Room, refresh_token: str, **more: str) -> httpx.Response:
    return room.http.post(
        "/identity/token",
        data={"grant_type": "refresh_token", "refresh_token": refresh_token, **more},
        auth=("taskcred", room.client_secret()),
    )


def test_refreshing_keeps_the_proof_and_switches_accounts(room: Room) -> None:
    room.clock.advance(timedelta(seconds=1))
    with room.operator() as operator:
        other = operator.create_account("Other")
        operator.add_member(account="Other", user="ada@example.com")
        foreign = operator.create_account("Foreign")
    browser = room.browser()
    body = browser.redeem(browser.sign_in("ada@example.com")).json()
    signed_in_at = int(room.clock.now().timestamp())
    with httpx.Client(transport=room.http._transport, base_url=room.url) as http:
        http.headers["Authorization"] = f"Bearer {body['access_token']}"
        own = http.get("/v1/accounts").json()["accounts"]
    assert [account["name"] for account in own] == ["Acme", "Other"]

    room.clock.advance(timedelta(minutes=30))
    for _ in range(2):  # the same refresh token again: two callers may race
        renewed = refresh(room, body["refresh_token"]).json()
        claims = claims_of(room, renewed["access_token"])
        assert claims["auth_time"] == signed_in_at
        assert claims["grant_type"] == "authorization_code"
        assert claims["account"]["bss"] == room.account_id
    for name in ("account", "bss_account"):
        switched = refresh(room, body["refresh_token"], **{name: other.id}).json()
        assert claims_of(room, switched["access_token"])["account"]["bss"] == other.id
    refused = refresh(room, body["refresh_token"], account=foreign.id)
    assert (refused.status_code, refused.json()["errorCode"]) == (403, "BXNIM0141E")
    room.clock.advance(timedelta(hours=12))
    assert refresh(room, body["refresh_token"]).status_code == 400


def test_signing_out_ends_the_browser_and_its_refresh_tokens(room: Room) -> None:
    browser = room.browser()
    first = browser.redeem(browser.sign_in("ada@example.com")).json()["refresh_token"]
    # A newer proof in the same browser is the same sign-in.
    page = browser.authorize(prompt="login")
    browser.redeem(browser.submit(page, email="ada@example.com", password=PASSWORD))
    asked = browser.http.get("/identity/sign-out")
    assert refresh(room, first).status_code == 200  # a link from elsewhere only asks
    done = browser.submit(asked)
    assert "signed out" in done.text
    assert refresh(room, first).status_code == 400
    assert browser.authorize().status_code == 200


def test_our_own_pages_lead_straight_to_signed_out(room: Room) -> None:
    browser = room.browser()
    browser.sign_in("ada@example.com")
    done = browser.http.get("/identity/sign-out", headers={"Sec-Fetch-Site": "same-origin"})
    assert "You are signed out" in done.text
    assert browser.authorize().status_code == 200


def test_somebody_elses_sign_in_in_the_same_browser_ends_the_first(room: Room) -> None:
    browser = room.browser()
    first = browser.redeem(browser.sign_in("ada@example.com")).json()["refresh_token"]
    browser.submit(browser.authorize(prompt="login"), email="max@example.com", password=PASSWORD)
    assert refresh(room, first).status_code == 400


def test_who_left_every_account_is_told_so(room: Room) -> None:
    browser = room.browser()
    answer = browser.sign_in("ada@example.com", account="0" * 32)
    assert query_of(answer)["error"] == "access_denied"


def test_a_wrong_password_is_said_without_saying_which(room: Room) -> None:
    texts = set()
    for email in ("ada@example.com", "nobody@example.com"):
        answer = room.browser().sign_in(email, "wrong password")
        assert answer.status_code == 422
        assert 'role="alert"' in answer.text
        assert "wrong password" not in answer.text
        texts.add(answer.text.replace(email, "").split("form_token")[0])
    assert len(texts) == 1


def test_a_wrong_password_writes_the_same_whether_the_address_is_known_or_not(room: Room) -> None:
    written: list[str] = []

    def note(_connection: Any, _cursor: Any, statement: str, *_rest: Any) -> None:
        if not statement.startswith("SELECT"):
            written.append(statement)

    sa.event.listen(sa.Engine, "before_cursor_execute", note)
    try:
        room.browser().sign_in("ada@example.com", "wrong password")
        known = list(written)
        written.clear()
        room.browser().sign_in("nobody@example.com", "wrong password")
    finally:
        sa.event.remove(sa.Engine, "before_cursor_execute", note)
    assert any("INTO history" in statement for statement in known)
    assert written == known


def test_wrong_passwords_of_nobody_are_not_kept_for_long(room: Room) -> None:
    def refused() -> list[str]:
        with room.iam.database.read() as connection:
            rows = sa.select(tables.history.c.target).where(tables.history.c.action == "user:sign_in_refused")
            return list(connection.scalars(rows))

    for email in ("ada@example.com", "nobody@example.com"):
        room.browser().sign_in(email, "wrong password")
    room.iam.tend()
    assert refused() == [room.administrator.iam_id, ""]
    room.clock.advance(FORGET_AFTER)
    room.iam.tend()
    assert refused() == [room.administrator.iam_id]


def test_guessing_is_slowed_down_and_recovers(room: Room) -> None:
    browser = room.browser()
    for _ in range(5):
        assert browser.sign_in("ada@example.com", "wrong password").status_code == 422
    blocked = browser.sign_in("ada@example.com")
    assert blocked.status_code == 429
    assert blocked.headers["Retry-After"] == "15"
    assert "Too many wrong passwords" in blocked.text
    assert room.browser().sign_in("max@example.com").status_code == 303  # others are not concerned
    room.clock.advance(timedelta(seconds=16))
    assert browser.sign_in("ada@example.com", "wrong password").status_code == 422
    assert browser.sign_in("ada@example.com").headers["Retry-After"] == "30"  # the pause doubles
    room.clock.advance(timedelta(seconds=31))
    assert browser.sign_in("ada@example.com").status_code == 303
    assert (
        browser.sign_in("ada@example.com", "wrong password", prompt="login").status_code == 422
    )  # forgotten


@pytest.mark.parametrize(
    ("headers", "token"),
    [
        ({"Origin": "https://evil.example"}, None),
        ({"Origin": "null"}, None),
        ({}, ""),
        ({}, "x" * 43),
        ({}, "\udcff"),
    ],
)
def test_a_form_from_elsewhere_is_refused(room: Room, headers: dict[str, str], token: str | None) -> None:
    browser = room.browser()
    page = browser.authorize()
    good = page.text.split('name="form_token" value="')[1].split('"')[0]
    form = {"email": "ada@example.com", "password": PASSWORD, "form_token": good if token is None else token}
    if token == "\udcff":
        content = b"email=ada%40example.com&form_token=%ff%fe"
        answer = browser.http.post(
            str(page.url), content=content, headers={"Content-Type": "application/x-www-form-urlencoded"}
        )
    else:
        answer = browser.http.post(str(page.url), data=form, headers=headers)
    assert answer.status_code == 403
    assert "taskcred_sign_in" not in answer.headers.get("Set-Cookie", "")


def test_pages_forbid_scripts_frames_and_caches(room: Room) -> None:
    page = room.browser().authorize()
    policy = page.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "script" not in policy
    assert "<script" not in page.text
    assert "no-store" in page.headers["Cache-Control"]
    cookie = page.headers["Set-Cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=Lax" in cookie
    assert room.http.get("/identity/static/iam.css").status_code == 200


def test_over_https_cookies_stay_on_https(room: Room) -> None:
    url = "https://taskcred.test"
    iam = LocalIam(
        replace(room.iam.config, issuer=f"{url}/identity"), room.vault, room.clock, RecordingRevocations()
    )
    https = replace(room, iam=iam, url=url, http=httpx.Client(transport=httpx.WSGITransport(create_app(iam))))
    browser = https.browser()
    answer = browser.sign_in("ada@example.com")
    cookie = answer.headers["Set-Cookie"]
    assert cookie.startswith("__Secure-taskcred_sign_in=")
    assert "Secure;" in cookie
    assert "Path=/identity" in cookie
    assert "code" in query_of(browser.authorize())
    iam.close()


def test_what_a_caller_writes_is_shown_as_text(room: Room) -> None:
    page = room.browser().authorize(login_hint='"><b>bold')
    assert "<b>bold" not in page.text


def test_a_link_lets_a_person_choose_a_password_once(room: Room) -> None:
    with room.operator() as operator:
        operator.create_user(account="Acme", email="new@example.com")
        link = operator.sign_in_link(user="new@example.com", public_url=room.url).reveal()
    assert link.startswith(f"{room.url}/identity/first-sign-in?link=")
    browser = room.browser()
    page = browser.http.get(link_path(link))
    assert "new@example.com" in page.text
    assert str(MIN_LENGTH) in page.text
    assert browser.submit(page, password="too short", repeated="too short").status_code == 422
    assert browser.submit(page, password=PASSWORD, repeated="something else").status_code == 422
    done = browser.submit(page, password=PASSWORD, repeated=PASSWORD)
    assert (done.status_code, done.headers["Location"]) == (303, f"{room.url}/sign-in")
    assert "code" in query_of(browser.authorize())  # the browser is signed in
    assert room.browser().sign_in("new@example.com").status_code == 303
    assert browser.http.get(link_path(link)).status_code == 400
    assert browser.submit(page, password=PASSWORD, repeated=PASSWORD).status_code == 400


def test_a_link_ends_with_its_week_and_with_the_next_link(room: Room) -> None:
    with room.operator() as operator:
        first = operator.sign_in_link(user="ada@example.com", public_url=room.url).reveal()
        second = operator.sign_in_link(user="ada@example.com", public_url=room.url).reveal()
    assert room.http.get(link_path(first)).status_code == 400
    assert room.http.get(link_path(second)).status_code == 200
    room.clock.advance(timedelta(days=7))
    assert room.http.get(link_path(second)).status_code == 400


def test_a_new_password_ends_older_sign_ins(room: Room) -> None:
    browser = room.browser()
    refresh_token = browser.redeem(browser.sign_in("ada@example.com")).json()["refresh_token"]
    with room.operator() as operator:
        operator.set_password(user="ada@example.com", password=room.administrator.api_key)
    assert browser.authorize().status_code == 200
    assert refresh(room, refresh_token).status_code == 400
