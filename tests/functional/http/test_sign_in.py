"""Signing in to the pages: PKCE, state bound to the browser, sessions that end, no way to be led elsewhere."""

from __future__ import annotations

from datetime import timedelta
from urllib.parse import parse_qs, urlsplit

import pytest
import sqlalchemy as sa
from flask.testing import FlaskClient

from taskcred.domain.keytext import new_key
from taskcred.domain.secret import Secret
from taskcred.http.app import create_app
from taskcred.http.authentication import SESSION_ID, current_principal
from taskcred.http.safe_return import safe_return
from taskcred.services import sessions
from taskcred.store import leases
from taskcred.store import sessions as rows
from taskcred.store import tables as t
from taskcred.testing import Failure
from tests.support.site import BASE, Site


def _csrf(browser: FlaskClient) -> dict[str, str]:
    """The header that our own pages' scripts send."""
    return {"X-CSRF-Token": browser.get("/token-of-a-page").text}


def test_a_sign_in_is_a_code_with_pkce_and_comes_back(site: Site) -> None:
    browser = site.client()
    leave = browser.get("/sign-in?return_to=/runs?state=failed")
    query = {name: values[0] for name, values in parse_qs(urlsplit(leave.headers["Location"]).query).items()}
    assert leave.status_code == 303
    assert query["code_challenge_method"] == "S256"
    assert query["redirect_uri"] == f"{BASE}/auth/callback"
    assert "prompt" not in query
    code, state = site.provider.approve(leave.headers["Location"], site.iam_id, site.account_id)
    back = browser.get("/auth/callback", query_string={"code": code, "state": state})
    assert (back.status_code, back.headers["Location"]) == (303, "/runs?state=failed")
    assert browser.get("/v1/runs").status_code == 200


def test_the_session_cookie_is_for_this_host_and_https_only(site: Site) -> None:
    set_cookie = site.client().get("/sign-in").headers["Set-Cookie"]
    assert set_cookie.startswith("__Host-taskcred=")
    for attribute in ("Secure", "HttpOnly", "Path=/", "SameSite=Lax"):
        assert attribute in set_cookie
    assert "Domain" not in set_cookie


def test_over_plain_http_the_cookie_has_no_prefix_it_could_not_keep(site: Site) -> None:
    app = create_app(site.ctx, site.broker, secret_key=new_key("tck_"), cookie_secure=False)
    set_cookie = app.test_client().get("/sign-in", base_url=BASE).headers["Set-Cookie"]
    assert set_cookie.startswith("taskcred=")
    assert "Secure" not in set_cookie


def test_a_code_that_arrives_in_another_browser_is_refused(site: Site) -> None:
    leave = site.client().get("/sign-in")
    code, state = site.provider.approve(leave.headers["Location"], site.iam_id, site.account_id)
    other = site.client()
    other.get("/sign-in")
    answer = other.get("/auth/callback", query_string={"code": code, "state": state})
    assert (answer.status_code, answer.get_json()["code"]) == (400, "sign_in_failed")
    assert other.get("/v1/runs").status_code == 401


def test_a_state_is_good_once_and_for_ten_minutes(site: Site) -> None:
    browser = site.client()
    leave = browser.get("/sign-in")
    code, state = site.provider.approve(leave.headers["Location"], site.iam_id, site.account_id)
    assert browser.get("/auth/callback", query_string={"code": code, "state": state}).status_code == 303
    assert browser.get("/auth/callback", query_string={"code": code, "state": state}).status_code == 400
    late = site.client()
    leave = late.get("/sign-in")
    code, state = site.provider.approve(leave.headers["Location"], site.iam_id, site.account_id)
    site.clock.advance(timedelta(minutes=11))
    assert late.get("/auth/callback", query_string={"code": code, "state": state}).status_code == 400


def test_several_tabs_may_sign_in_at_once(site: Site) -> None:
    browser = site.client()
    first, second = browser.get("/sign-in?return_to=/a"), browser.get("/sign-in?return_to=/b")
    for leave, path in ((first, "/a"), (second, "/b")):
        code, state = site.provider.approve(leave.headers["Location"], site.iam_id, site.account_id)
        back = browser.get("/auth/callback", query_string={"code": code, "state": state})
        if path == "/a":
            assert back.headers["Location"] == "/a"
        else:
            # The first sign-in replaced everything the browser held; this tab begins again.
            assert back.status_code == 400


@pytest.mark.parametrize(
    "query", [{}, {"state": "x"}, {"error": "access_denied"}, {"code": "c", "state": "\x00"}]
)
def test_a_callback_without_a_sign_in_is_refused_politely(site: Site, query: dict[str, str]) -> None:
    answer = site.client().get("/auth/callback", query_string=query)
    assert answer.status_code == 400
    assert answer.get_json()["action_url"] == f"{BASE}/sign-in"


def test_a_provider_that_refuses_or_is_away_signs_nobody_in(site: Site) -> None:
    for failure, status in ((Failure.REFUSE, 400), (Failure.UNAVAILABLE, 503)):
        browser = site.client()
        leave = browser.get("/sign-in")
        code, state = site.provider.approve(leave.headers["Location"], site.iam_id, site.account_id)
        site.provider.script("finish_sign_in", failure)
        assert (
            browser.get("/auth/callback", query_string={"code": code, "state": state}).status_code == status
        )
        assert browser.get("/v1/runs").status_code == 401


def test_an_id_planted_before_the_sign_in_is_worth_nothing_after_it(site: Site) -> None:
    browser = site.signed_in()
    with browser.session_transaction(base_url=BASE) as cookie:
        before = cookie[SESSION_ID]
    leave = browser.get("/sign-in?fresh=1")
    code, state = site.provider.approve(leave.headers["Location"], site.iam_id, site.account_id)
    browser.get("/auth/callback", query_string={"code": code, "state": state})
    with browser.session_transaction(base_url=BASE) as cookie:
        assert cookie[SESSION_ID] != before
    attacker = site.client()
    with attacker.session_transaction(base_url=BASE) as cookie:
        cookie[SESSION_ID] = before
    assert attacker.get("/v1/runs").status_code == 401


def test_the_records_hold_no_id_and_no_token_in_the_clear(site: Site) -> None:
    browser = site.signed_in()
    with browser.session_transaction(base_url=BASE) as cookie:
        held = cookie[SESSION_ID]
    with site.ctx.store.read() as connection:
        row = connection.execute(sa.select(t.sessions)).one()
    assert held not in repr(row)
    assert "eyJ" not in repr(row)


def test_a_session_ends_after_half_an_hour_of_rest_or_twelve_hours(site: Site) -> None:
    browser = site.signed_in()
    for _ in range(23):
        site.clock.advance(timedelta(minutes=29))
        assert browser.get("/v1/runs").status_code == 200
    site.clock.advance(timedelta(minutes=29))
    site.clock.advance(timedelta(minutes=29))
    assert browser.get("/v1/runs").status_code == 401
    idle = site.signed_in()
    site.clock.advance(timedelta(minutes=31))
    assert idle.get("/v1/runs").status_code == 401


def test_a_busy_session_ends_after_twelve_hours(site: Site) -> None:
    browser = site.signed_in()
    for _ in range(36):
        site.clock.advance(timedelta(minutes=20))
        status = browser.get("/v1/runs").status_code
    assert status == 200
    site.clock.advance(timedelta(minutes=20))
    assert browser.get("/v1/runs").status_code == 401


def test_old_sessions_are_swept(site: Site) -> None:
    site.signed_in()
    with site.ctx.store.write() as connection:
        leases.take(connection, rows.refresh_lease(b"x"), "dead", site.clock.now(), timedelta(seconds=15))
        leases.take(connection, "keeper", "alive", site.clock.now(), timedelta(seconds=15))
    site.clock.advance(timedelta(minutes=31))
    assert sessions.sweep(site.ctx) == 1
    assert sessions.sweep(site.ctx) == 0
    with site.ctx.store.read() as connection:
        assert connection.execute(sa.select(t.leases.c.name)).scalars().all() == ["keeper"]


def test_one_request_at_a_time_replaces_a_token_and_the_others_go_on(site: Site) -> None:
    browser = site.signed_in()
    site.clock.advance(timedelta(minutes=29))
    browser.get("/v1/runs")
    site.clock.advance(timedelta(minutes=29))
    with browser.session_transaction(base_url=BASE) as cookie:
        held = Secret(cookie[SESSION_ID])
    meanwhile = []

    def hook(method: str) -> None:
        if method == "refresh_sign_in":
            # Another request of the same browser arrives while the provider works.
            meanwhile.append(sessions.find(site.ctx, held, sessions.Visit()))

    site.provider.hook = hook
    assert browser.get("/v1/runs").status_code == 200
    assert len(meanwhile) == 1
    assert meanwhile[0] is not None
    assert meanwhile[0].iam_id == site.iam_id


def test_a_lease_of_a_dead_process_does_not_end_the_session(site: Site) -> None:
    browser = site.signed_in()
    site.clock.advance(timedelta(minutes=29))
    browser.get("/v1/runs")
    site.clock.advance(timedelta(minutes=29))
    with browser.session_transaction(base_url=BASE) as cookie:
        lease = rows.refresh_lease(Secret(cookie[SESSION_ID]).digest())
    with site.ctx.store.write() as connection:
        assert leases.take(connection, lease, "dead", site.clock.now(), timedelta(seconds=15))
    assert browser.get("/v1/runs").status_code == 200
    assert site.provider.calls["refresh_sign_in"] == 0
    site.clock.advance(timedelta(minutes=2))
    assert browser.get("/v1/runs").status_code == 200
    assert site.provider.calls["refresh_sign_in"] == 1
    with site.ctx.store.read() as connection:
        assert connection.execute(sa.select(sa.func.count()).select_from(t.leases)).scalar_one() == 0


def test_an_access_token_is_replaced_before_it_ends(site: Site) -> None:
    browser = site.signed_in()
    for _ in range(5):
        site.clock.advance(timedelta(minutes=14))
        assert browser.get("/v1/runs").status_code == 200
    assert site.provider.calls["refresh_sign_in"] == 1
    with site.ctx.store.read() as connection:
        assert connection.execute(sa.select(t.sessions.c.token_expires_at)).scalar_one() > site.clock.now()


def test_a_session_outlives_a_provider_that_is_away(site: Site) -> None:
    browser = site.signed_in()
    site.clock.advance(timedelta(minutes=29))
    browser.get("/v1/runs")
    site.clock.advance(timedelta(minutes=29))
    site.provider.script("refresh_sign_in", Failure.UNAVAILABLE)
    assert browser.get("/v1/runs").status_code == 200
    site.clock.advance(timedelta(minutes=2))
    assert browser.get("/v1/runs").status_code == 200
    assert site.provider.calls["refresh_sign_in"] == 2


def test_a_session_ends_when_the_provider_no_longer_knows_the_sign_in(site: Site) -> None:
    browser = site.signed_in()
    site.clock.advance(timedelta(minutes=29))
    browser.get("/v1/runs")
    site.clock.advance(timedelta(minutes=29))
    site.provider.script("refresh_sign_in", Failure.REFUSE)
    assert browser.get("/v1/runs").status_code == 401
    with site.ctx.store.read() as connection:
        assert connection.execute(sa.select(sa.func.count()).select_from(t.sessions)).scalar_one() == 0


def test_signing_out_needs_our_own_page_and_ends_the_session(site: Site) -> None:
    browser = site.signed_in()
    assert browser.post("/sign-out").status_code == 403
    assert browser.get("/v1/runs").status_code == 200
    with browser.session_transaction(base_url=BASE) as cookie:
        held = cookie[SESSION_ID]
    answer = browser.post("/sign-out", headers=_csrf(browser))
    # Where the provider forgets this browser: else its next user would be let in without a password.
    assert (answer.status_code, answer.headers["Location"]) == (303, f"{BASE}/identity/sign-out")
    assert browser.get("/v1/runs").status_code == 401
    thief = site.client()
    with thief.session_transaction(base_url=BASE) as cookie:
        cookie[SESSION_ID] = held
    assert thief.get("/v1/runs").status_code == 401


def test_an_account_switch_goes_on_there_with_a_new_id(site: Site) -> None:
    second = site.provider.add_account("second")
    person = site.provider.add_person(site.account_id, second)
    browser = site.signed_in(iam_id=person)
    headers = _csrf(browser)
    assert browser.post("/account", data={"account_id": second}).status_code == 403
    answer = browser.post("/account", data={"account_id": second, "return_to": "/runs"}, headers=headers)
    assert (answer.status_code, answer.headers["Location"]) == (303, "/runs")
    with site.ctx.store.read() as connection:
        row = connection.execute(sa.select(t.sessions)).one()
    assert (row.account_id, row.iam_id) == (second, person)
    assert browser.get("/v1/runs").status_code == 200


def test_an_account_switch_under_way_does_not_outlive_signing_out(site: Site) -> None:
    second = site.provider.add_account("second")
    browser = site.signed_in(iam_id=site.provider.add_person(site.account_id, second))
    headers = _csrf(browser)

    def sign_out_elsewhere(_method: str) -> None:
        site.provider.hook = None
        with site.ctx.store.write() as connection:
            connection.execute(t.sessions.delete())

    site.provider.hook = sign_out_elsewhere
    answer = browser.post("/account", data={"account_id": second}, headers=headers)
    assert answer.status_code == 401
    assert browser.get("/v1/runs").status_code == 401


@pytest.mark.parametrize("account_id", ["", "x" * 65, "not-mine"])
def test_an_account_one_is_no_member_of_is_refused(site: Site, account_id: str) -> None:
    browser = site.signed_in()
    headers = _csrf(browser)
    answer = browser.post("/account", data={"account_id": account_id}, headers=headers)
    assert 400 <= answer.status_code < 500


def test_a_cookie_alone_changes_nothing(site: Site) -> None:
    browser = site.signed_in()
    refused = browser.post("/v1/runs", json={"task": "report"})
    assert (refused.status_code, refused.get_json()["code"]) == (403, "csrf_token_required")
    foreign = browser.post("/v1/runs", json={"task": "report"}, headers={"X-CSRF-Token": "made-up"})
    assert foreign.status_code == 403
    other = site.signed_in(iam_id=site.provider.add_person(site.account_id))
    stolen = browser.post("/v1/runs", json={"task": "report"}, headers=_csrf(other))
    assert stolen.status_code == 403
    assert browser.get("/v1/runs").get_json()["items"] == []
    ours = browser.post("/v1/runs", json={"task": "report"}, headers=_csrf(browser))
    assert ours.status_code == 201


def test_a_bearer_token_counts_before_a_cookie(site: Site) -> None:
    browser = site.signed_in()
    assert browser.get("/v1/runs", headers={"Authorization": "Bearer nonsense"}).status_code == 401


@pytest.mark.parametrize(
    "raw",
    [
        "https://evil.test/",
        "//evil.test",
        "/\\evil.test",
        "/\t/evil.test",
        "\\\\evil.test",
        "javascript:alert(1)",
        "/a\r\nSet-Cookie: x=y",
        "/sign-in?return_to=/sign-in",
        "/auth/callback?code=x",
        "/sign-out",
        "evil.test",
        "/" + "a" * 3000,
        "/ü",
        "",
        None,
    ],
)
def test_nobody_is_led_elsewhere(site: Site, raw: str | None) -> None:
    assert safe_return(raw) == "/"
    browser = site.signed_in()
    answer = browser.get("/sign-in", query_string={} if raw is None else {"return_to": raw})
    assert answer.headers["Location"] == "/"


@pytest.mark.parametrize("raw", ["/", "/runs?state=failed&limit=5", "/prompts/1#answer", "/profile"])
def test_our_own_paths_are_returned_to(raw: str) -> None:
    assert safe_return(raw) == raw


def test_a_sign_in_under_another_name_of_this_host_moves_to_the_public_one(site: Site) -> None:
    answer = site.client().get("/sign-in?return_to=/runs", base_url="https://localhost:8300")
    assert answer.headers["Location"] == f"{BASE}/sign-in?return_to=%2Fruns&moved=1"
    assert "Set-Cookie" not in answer.headers


def test_a_proxy_that_renames_the_host_is_no_endless_way(site: Site) -> None:
    answer = site.client().get("/sign-in?moved=1", base_url="http://10.0.0.7:8300")
    assert urlsplit(answer.headers["Location"]).path == "/identity/authorize"


def test_a_fresh_sign_in_asks_the_provider_to_ask_again(site: Site) -> None:
    browser = site.signed_in()
    leave = browser.get("/sign-in?fresh=1&return_to=/profile")
    assert "prompt=login" in leave.headers["Location"]


def test_a_provider_that_did_not_ask_again_is_not_taken_at_its_word(site: Site) -> None:
    browser = site.signed_in()
    leave = browser.get("/sign-in?fresh=1")
    code, state = site.provider.approve(leave.headers["Location"], site.iam_id, site.account_id)
    old = site.clock.now() - timedelta(hours=1)
    real = site.provider.sign_in
    site.provider.sign_in = lambda iam_id, account_id, **_: real(iam_id, account_id, auth_time=old)  # type: ignore[method-assign]
    answer = browser.get("/auth/callback", query_string={"code": code, "state": state})
    assert (answer.status_code, answer.get_json()["code"]) == (403, "fresh_sign_in_required")


def test_only_a_page_session_is_somebody_to_pages(site: Site) -> None:
    site.app.add_url_rule("/who", "who", lambda: str(current_principal()))
    assert site.client().get("/who").text == "None"
    assert site.bearer().get("/who").text == "None"
    assert site.iam_id in site.signed_in().get("/who").text


def test_what_a_sign_in_told_us_about_a_person_is_kept_for_notices(site: Site) -> None:
    site.signed_in()
    with site.ctx.store.read() as connection:
        owner = connection.execute(sa.select(t.owners)).one()
    assert (owner.iam_id, owner.email, owner.name) == (site.iam_id, "ada@example.test", "Ada")


def test_sign_in_and_out_are_in_the_audit(site: Site) -> None:
    browser = site.signed_in()
    browser.post("/sign-out", headers=_csrf(browser))
    actions = [event["action"] for event in site.bearer().get("/v1/audit").get_json()["items"]]
    assert actions == ["session:end", "session:begin"]
