"""Who gets in, what a forged or old form does, and what every page carries."""

from __future__ import annotations

import re
from datetime import timedelta
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest

from taskcred.errors import IntegrityError
from taskcred.services import credentials, runs, schedules
from taskcred.testing import Failure
from tests.browser.house import House, Resident
from tests.functional.web.conftest import Client, form_token, post

_ID = "00000000-0000-4000-8000-000000000000"
_FRESH = (
    "/profile/api-key/create",
    "/profile/api-key/rotate",
    "/profile/api-key/delete",
    f"/prompts/{_ID}",
    f"/profile/grants/{_ID}/end",
)


def _paths(house: House, method: str) -> list[str]:
    """Every address of the pages that knows the method, with some id filled in."""
    return sorted(
        re.sub(r"<[^>]+>", _ID, rule.rule)
        for rule in house.app.url_map.iter_rules()
        if rule.endpoint.startswith("pages.") and method in (rule.methods or ())
    )


def test_there_are_pages(house: House) -> None:
    assert len(_paths(house, "GET")) > 20
    assert len(_paths(house, "POST")) > 10


def test_strangers_and_bearers_of_tokens_are_sent_to_sign_in(
    house: House, ada: Resident, client: Client
) -> None:
    token = house.provider.token(ada.iam_id, ada.account_id).token
    for path in _paths(house, "GET"):
        if path in {"/", "/favicon.ico"} or path.startswith("/assets/"):
            continue
        # The server needs the token's text, as a program would send it.
        for headers in ({}, {"Authorization": f"Bearer {token.reveal()}"}):
            answer = client().get(path, headers=headers)
            assert answer.status_code == 303, path
            where = urlsplit(answer.headers["Location"])
            assert where.path == "/sign-in"
            assert parse_qs(where.query)["return_to"] == [path]


def test_forms_without_our_token_change_nothing(house: House, ada: Resident, client: Client) -> None:
    house.give_key(ada)
    browser = client(ada)
    for path in _paths(house, "POST"):
        for data in (
            {},
            {"csrf_token": "forged"},
            {"csrf_token": form_token(client(house.move_in()).get("/"))},
        ):
            answer = browser.post(path, data={"confirm": "My nightly reports", "action": "run", **data})
            assert answer.status_code == 403, path
            assert "This form can no longer be used" in answer.text
    assert credentials.list_own(house.ctx, ada.principal)
    assert runs.list_own(house.ctx, ada.principal) == ([], None)


@pytest.mark.parametrize("path", _FRESH)
def test_an_older_sign_in_is_renewed_before_the_form_opens(
    ada: Resident, house: House, client: Client, path: str
) -> None:
    if "rotate" in path or "delete" in path:
        house.give_key(ada)
    answer = client(ada, signed_in_ago=timedelta(minutes=14)).get(path)
    query = parse_qs(urlsplit(answer.headers["Location"]).query)
    assert query == {"return_to": [path], "fresh": ["1"]}


def test_a_form_sent_too_late_changes_nothing_and_says_how_to_go_on(
    house: House, ada: Resident, client: Client
) -> None:
    browser = client(ada, signed_in_ago=timedelta(minutes=16))
    answer = post(browser, "/profile/api-key/create", name="Mine", source="generate", expiry="90")
    assert answer.status_code == 403
    assert "Please sign in again" in answer.text
    assert "fresh=1" in answer.text
    assert credentials.list_own(house.ctx, ada.principal) == []


def test_other_peoples_things_are_not_there(house: House, ada: Resident, client: Client) -> None:
    bob = house.move_in("Bob")
    run = house.start(bob)
    house.give_key(bob)
    attempt_id = house.work_on(run.id)
    schedule = house.schedule(bob)
    house.give_key(ada)
    browser = client(ada)
    for path in (
        f"/runs/{run.id}",
        f"/runs/{run.id}/live",
        f"/runs/{run.id}/output",
        f"/runs/{run.id}/cancel",
        f"/prompts/{run.prompt_id}",
        f"/schedules/{schedule.id}",
        f"/schedules/{schedule.id}/edit",
        f"/schedules/{schedule.id}/delete",
        f"/profile/tokens/{attempt_id}/end",
    ):
        assert browser.get(path).status_code == 404, path
    for path in (
        f"/runs/{run.id}/cancel",
        f"/schedules/{schedule.id}/delete",
        f"/schedules/{schedule.id}/pause",
        f"/profile/tokens/{attempt_id}/end",
    ):
        assert post(browser, path).status_code == 404, path
    assert schedules.get(house.ctx, bob.principal, schedule.id).paused is False


def test_pages_allow_nothing_inline_and_nothing_from_elsewhere(
    house: House, ada: Resident, client: Client
) -> None:
    house.give_key(ada)
    run = house.start(ada)
    schedule = house.schedule(ada)
    browser = client(ada)
    for path in (
        *(path for path in _paths(house, "GET") if _ID not in path and not path.endswith((".csv", ".ico"))),
        f"/runs/{run.id}",
        f"/schedules/{schedule.id}",
        "/tasks/train",
        "/schedules/new/train",
        "/nowhere",
    ):
        page = browser.get(path, follow_redirects=True)
        policy = page.headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert page.headers["Cache-Control"] == "no-store"
        assert page.headers["X-Content-Type-Options"] == "nosniff"
        assert not re.search(r"<script(?![^>]*\ssrc=)|<style|\sstyle=|\son[a-z]+=|javascript:", page.text), (
            path
        )
        assert not re.search(r'(?:src|href|action)="(?:https?:)?//', page.text), path


def test_names_are_text_whatever_they_look_like(house: House, ada: Resident, client: Client) -> None:
    hostile = "<script>alert(1)</script>\"'{{7*7}}"
    house.give_key(ada, hostile, purpose=hostile)
    house.schedule(ada, hostile)
    browser = client(ada)
    for path in ("/", "/profile/api-key", "/profile/api-key/delete", "/profile/api-key/edit", "/schedules"):
        page = browser.get(path).text
        assert "<script>alert" not in page
        assert "{{7*7}}" in page or path == "/profile/api-key/edit"


def test_static_files_are_kept_by_their_digest(client: Client) -> None:
    browser = client()
    found = re.findall(r'"(/assets/[^"]+)"', browser.get("/").text)
    assert len(found) == 3
    for address in found:
        answer = browser.get(address)
        assert answer.status_code == 200
        assert "immutable" in answer.headers["Cache-Control"]
        assert re.search(r"\?v=[0-9a-f]{12}$", address)


def test_browsers_find_an_icon_where_they_look_for_it(client: Client) -> None:
    answer = client().get("/favicon.ico")
    assert (answer.status_code, answer.headers["Content-Type"]) == (200, "image/svg+xml; charset=utf-8")
    assert "max-age=86400" in answer.headers["Cache-Control"]
    assert "default-src 'none'" in answer.headers["Content-Security-Policy"]


def test_an_unknown_address_is_a_page_for_browsers_and_a_problem_for_programs(
    ada: Resident, client: Client
) -> None:
    browser = client(ada)
    page = browser.get("/nowhere")
    assert page.status_code == 404
    assert page.headers["Content-Type"].startswith("text/html")
    for path, accept in (("/nowhere", "application/json"), ("/nowhere", "*/*"), ("/v1/nowhere", "text/html")):
        problem = browser.get(path, headers={"Accept": accept})
        assert problem.status_code == 404
        assert problem.headers["Content-Type"] == "application/problem+json"


@pytest.mark.parametrize(
    "away", ["https://evil.test/", "//evil.test/", "/\\evil.test", "javascript:alert(1)", "/%0d%0aX: y"]
)
def test_a_prompt_leads_back_to_our_own_pages_only(
    house: House, ada: Resident, client: Client, away: str
) -> None:
    run = house.start(ada)
    browser = client(ada)
    page = browser.get(f"/prompts/{run.prompt_id}", params={"return_to": away})
    assert "evil.test" not in re.sub(r'action="[^"]*"', "", page.text)
    answer = browser.post(
        f"/prompts/{run.prompt_id}",
        params={"return_to": away},
        data={"csrf_token": form_token(page), "name": "Mine", "source": "generate", "expiry": "90"},
    )
    assert answer.status_code == 303
    assert "evil" not in answer.headers["Location"]
    assert answer.headers["Location"].startswith("/")


def test_a_bug_is_answered_with_an_id_and_no_text(
    ada: Resident, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_args: object, **_kwargs: object) -> None:
        raise RuntimeError("the canary sings")

    monkeypatch.setattr(runs, "list_own", broken)
    answer = client(ada).get("/runs", headers={"X-Request-Id": "request-0815"})
    assert answer.status_code == 500
    assert "request-0815" in answer.text
    assert "canary" not in answer.text


def test_a_failed_integrity_check_tells_no_detail(
    ada: Resident, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_args: object, **_kwargs: object) -> None:
        raise IntegrityError("the canary sings")

    monkeypatch.setattr(runs, "list_own", broken)
    answer = client(ada).get("/runs")
    assert answer.status_code == 500
    assert "canary" not in answer.text


_LONG = "x" * 5000
_HOSTILE = [
    "",
    " ",
    "\x00",
    "\ud7ff\U0010ffff",
    _LONG,
    "-1",
    "1e400",
    "9" * 400,
    "[[[[",
    "../..",
    "';--",
    "%s%n",
]


@pytest.mark.parametrize("value", _HOSTILE, ids=range(len(_HOSTILE)))
def test_hostile_fields_are_answered_with_a_page_and_store_nothing(
    house: House, ada: Resident, client: Client, value: str
) -> None:
    browser = client(ada)
    token = form_token(browser.get("/"))
    names = [
        *("name", "description", "source", "api_key", "expiry", "expiry_date", "drain", "drain_at"),
        *("replaces", "confirm", "revision", "cron", "timezone", "misfire", "action"),
        *("p.data_set", "p.epochs", "p.learning_rate", "p.size", "p.until", "p.start_after", "p.options"),
    ]
    fields = dict.fromkeys(names, value)
    paths = [
        path.replace(_ID, "train") if "/tasks/" in path or "/new/" in path else path
        for path in _paths(house, "POST")
    ]
    for path in paths:
        answer = browser.post(path, data={"csrf_token": token, **fields})
        assert answer.status_code < 500, path
        assert "This form can no longer be used" not in answer.text
        for source in ("generate", "provide"):
            answer = browser.post(
                path, data={"csrf_token": token, **fields, "source": source, "expiry": "date"}
            )
            assert answer.status_code < 500, path
    assert credentials.list_own(house.ctx, ada.principal) == []
    assert runs.list_own(house.ctx, ada.principal) == ([], None)
    assert schedules.list_own(house.ctx, ada.principal) == ([], None)


@pytest.mark.parametrize(
    "query", ["state=nonsense", "after=%00", "after=x", "before=-1", "before=9e99", "cron=*&timezone=/"]
)
def test_hostile_queries_are_answered_with_a_page(ada: Resident, client: Client, query: str) -> None:
    browser = client(ada)
    for path in ("/runs", "/runs/live", "/schedules", "/profile/activity", "/schedules/preview"):
        answer: httpx.Response = browser.get(f"{path}?{query}")
        assert answer.status_code < 500, path


def test_an_absent_provider_leaves_pages_whole(house: House, ada: Resident, client: Client) -> None:
    browser = client(ada)
    house.provider.script("*", Failure.UNAVAILABLE, None)
    try:
        for path in ("/", "/runs", "/profile/api-key"):
            page = browser.get(path)
            assert page.status_code == 200
            assert ada.account_id in page.text  # named by its id, since its name is not to be had
    finally:
        house.provider.recover()


def test_a_form_sent_twice_starts_one_run(house: House, ada: Resident, client: Client) -> None:
    house.give_key(ada)
    browser = client(ada)
    page = browser.get("/tasks/count-keys")
    found = re.search(r'name="once" value="([0-9a-f]{32})"', page.text)
    assert found is not None
    fields = {"csrf_token": form_token(page), "once": found[1], "action": "run"}
    first, second = (browser.post("/tasks/count-keys", data=fields) for _ in range(2))
    assert first.headers["Location"] == second.headers["Location"]
    assert len(runs.list_own(house.ctx, ada.principal)[0]) == 1
    browser.post("/tasks/count-keys", data=fields | {"once": found[1][::-1]})
    assert len(runs.list_own(house.ctx, ada.principal)[0]) == 2


def test_the_same_form_with_other_contents_is_a_new_request(
    house: House, ada: Resident, client: Client
) -> None:
    house.give_key(ada)
    browser = client(ada)
    page = browser.get("/tasks/train")
    found = re.search(r'name="once" value="([0-9a-f]{32})"', page.text)
    assert found is not None
    fields = {"csrf_token": form_token(page), "once": found[1], "action": "run"}
    for epochs in ("1", "2"):
        browser.post(
            "/tasks/train", data=fields | {"p.data_set": "sales", "p.size": '"small"', "p.epochs": epochs}
        )
    assert len(runs.list_own(house.ctx, ada.principal)[0]) == 2


def test_the_address_of_all_prompts_leads_to_the_open_one(
    house: House, ada: Resident, client: Client
) -> None:
    browser = client(ada)
    assert browser.get("/prompts").headers["Location"] == "/"
    run = house.start(ada)
    assert browser.get("/prompts").headers["Location"] == f"/prompts/{run.prompt_id}"
