"""Consent to a grant: what the page says and where its answers lead; and ending a grant."""

from __future__ import annotations

import re
import uuid
from datetime import timedelta
from typing import Any
from urllib.parse import parse_qs, parse_qsl, urlencode, urlsplit

import httpx
import pytest

from taskcred.domain.grants import GrantState
from taskcred.services import grants, registry
from taskcred.store import audit
from taskcred.store import grants as grants_store
from tests.browser.house import House, Resident
from tests.functional.web.conftest import Client, form_token, post

BACK = "https://notebooks.example.test/back?from=taskcred"


def _service(house: House, **said: Any) -> str:
    new = registry.NewService(
        **{
            "name": f"notebooks-{uuid.uuid4().hex[:8]}",
            "title": "Notebook server",
            "description": "Runs your notebooks at night.",
            "tasks": ("count-keys", "train"),
            "callback_urls": (BACK,),
            **said,
        }
    )
    return registry.create(house.ctx, audit.OPERATOR, new).service.id


def _link(service_id: str, **said: str) -> str:
    query = {"service": service_id, "tasks": "count-keys", "return_to": BACK, "state": "s-1", **said}
    return f"/grants/new?{urlencode({name: value for name, value in query.items() if value})}"


def _answer(browser: httpx.Client, link: str, answer: str, days: str = "90") -> httpx.Response:
    token = form_token(browser.get(link))
    return browser.post(link, data={"csrf_token": token, "answer": answer, "days": days})


def _given(house: House, who: Resident) -> list[Any]:
    return grants.list_own(house.ctx, who.principal)[0]


def test_the_page_says_who_asks_for_what_and_how_to_withdraw(
    house: House, ada: Resident, client: Client
) -> None:
    page = client(ada).get(_link(_service(house), tasks="train,count-keys"))
    assert page.status_code == 200
    for words in (
        "Notebook server",
        "Runs your notebooks at night.",
        "an operator of this server",
        "Count my API keys",
        "Train a model",
        "90 days, as it asks",
        "notebooks.example.test",
        "It never sees your key.",
        "You have no User API key in this account yet.",
    ):
        assert words in page.text, words
    assert 'href="/profile/grants"' in page.text
    assert _given(house, ada) == []


def test_allow_gives_the_grant_and_leads_back_with_it(house: House, ada: Resident, client: Client) -> None:
    house.give_key(ada)
    state = 'a&b="<script>+ %20é'
    answer = _answer(client(ada), _link(_service(house), state=state), "allow", days="30")
    (grant,) = _given(house, ada)
    assert answer.status_code == 303
    where = answer.headers["Location"]
    assert where.startswith(f"{BACK}&")
    assert dict(parse_qsl(urlsplit(where).query)) == {
        "from": "taskcred",
        "grant_id": grant.id,
        "state": state,
    }
    assert grant.expires_at - grant.created_at == timedelta(days=30)
    assert grant.tasks == ("count-keys",)


@pytest.mark.parametrize("answer", ["refuse", "", "ALLOW"])
def test_anything_else_refuses_and_says_so_to_the_service(
    house: House, ada: Resident, client: Client, answer: str
) -> None:
    refused = _answer(client(ada), _link(_service(house)), answer)
    query = dict(parse_qsl(urlsplit(refused.headers["Location"]).query))
    assert query == {"from": "taskcred", "error": "access_denied", "state": "s-1"}
    assert _given(house, ada) == []


def test_without_a_way_back_the_answer_stays_here(house: House, ada: Resident, client: Client) -> None:
    house.give_key(ada)
    link = _link(_service(house), return_to="", state="")
    for answer in ("refuse", "allow"):
        assert _answer(client(ada), link, answer).headers["Location"] == "/profile/grants"


def test_without_a_usable_key_one_is_led_there_and_back(house: House, ada: Resident, client: Client) -> None:
    browser = client(ada)
    answer = _answer(browser, _link(_service(house)), "allow")
    (grant,) = _given(house, ada)
    where = answer.headers["Location"]
    assert urlsplit(where).path == f"/grants/{grant.id}/allowed"
    page = browser.get(where)
    assert "One thing is missing" in page.text
    found = re.search(r'href="(/profile/api-key/create\?[^"]+)"', page.text)
    assert found is not None
    create = found[1].replace("&amp;", "&")
    fields = {"name": "Mine", "source": "generate", "expiry": "90"}
    made = browser.post(create, data={"csrf_token": form_token(browser.get(create)), **fields})
    assert made.headers["Location"] == where
    page = browser.get(where)
    assert "Everything is in place" in page.text
    assert f"{BACK}&amp;grant_id={grant.id}&amp;state=s-1".replace("&", "&") in page.text


AWAY = [
    "https://evil.test/",
    "https://notebooks.example.test/back",
    "https://notebooks.example.test/back?from=taskcred&x=1",
    "https://notebooks.example.test/back?from=taskcred#x",
    "https://NOTEBOOKS.example.test/back?from=taskcred",
    "https://notebooks.example.test/back?from=taskcred ",
    "https://notebooks.example.test@evil.test/back?from=taskcred",
    "//evil.test/",
    "javascript:alert(1)",
]


@pytest.mark.parametrize("away", AWAY)
def test_an_address_that_is_not_registered_is_never_gone_to(
    house: House, ada: Resident, client: Client, away: str
) -> None:
    house.give_key(ada)
    service_id = _service(house)
    browser = client(ada)
    link = _link(service_id, return_to=away)
    page = browser.get(link)
    assert page.status_code == 400
    assert "not one that the service is registered with" in page.text
    assert "evil" not in page.text
    for answer in ("allow", "refuse"):
        refused = browser.post(
            link, data={"csrf_token": form_token(browser.get("/")), "answer": answer, "days": "90"}
        )
        assert refused.status_code == 400
        assert "Location" not in refused.headers
    assert _given(house, ada) == []
    given = grants.give(house.ctx, ada.principal, service_id=service_id, tasks=["count-keys"])
    page = browser.get(f"/grants/{given.id}/allowed?{urlencode({'return_to': away})}")
    assert "evil.test" not in re.sub(r'(action|href)="[^"]*return_to=[^"]*"', "", page.text)
    assert "Back to" not in page.text


@pytest.mark.parametrize(
    ("said", "status"),
    [
        ({"service": ""}, 400),
        ({"service": "nonsense"}, 400),
        ({"service": str(uuid.UUID(int=0))}, 404),
        ({"tasks": ""}, 400),
        ({"tasks": "rm-rf"}, 400),
        ({"tasks": "count-keys,rm-rf"}, 400),
        ({"days": "0"}, 400),
        ({"days": "366"}, 400),
        ({"days": "-1"}, 400),
        ({"days": "9" * 400}, 400),
        ({"days": "٣"}, 400),
        ({"state": "x" * 1025}, 400),
        ({"state": "x" * 2000}, 400),
        ({"more": "x"}, 400),
        ({"tasks": "<script>alert(1)</script>"}, 400),
    ],
)
def test_a_link_that_makes_no_sense_is_a_page_that_leads_nowhere(
    house: House, ada: Resident, client: Client, said: dict[str, str], status: int
) -> None:
    page = client(ada).get(_link(_service(house), **said))
    assert page.status_code == status
    assert page.headers["Content-Type"].startswith("text/html")
    assert "<script>alert" not in page.text


def test_a_parameter_that_is_said_twice_is_refused(house: House, ada: Resident, client: Client) -> None:
    page = client(ada).get(_link(_service(house)) + "&tasks=train")
    assert page.status_code == 400


def test_state_is_nowhere_on_the_page_but_where_it_is_encoded(
    house: House, ada: Resident, client: Client
) -> None:
    hostile = '"><script>alert(1)</script><a href="'
    browser = client(ada)
    link = _link(_service(house), state=hostile)
    page = browser.get(link)
    assert page.status_code == 200
    assert "<script>alert" not in page.text
    where = _answer(browser, link, "allow").headers["Location"]
    page = browser.get(where)
    assert page.status_code == 200
    assert "<script>alert" not in page.text


def test_words_of_a_service_are_words_only(house: House, ada: Resident, client: Client) -> None:
    hostile = "<img src=x onerror=alert(1)>"
    service_id = _service(house, title=hostile, description=hostile)
    browser = client(ada)
    assert "<img" not in browser.get(_link(service_id)).text
    grants.give(house.ctx, ada.principal, service_id=service_id, tasks=["count-keys"])
    assert "<img" not in browser.get("/profile/grants").text


def test_a_disabled_service_gets_no_consent(house: House, ada: Resident, client: Client) -> None:
    service_id = _service(house)
    registry.disable(house.ctx, audit.OPERATOR, service_id)
    page = client(ada).get(_link(service_id))
    assert page.status_code == 409
    assert "disabled" in page.text


def test_who_is_not_signed_in_is_led_through_a_sign_in_and_back(
    house: House, ada: Resident, client: Client
) -> None:
    link = _link(_service(house), state="x y&z")
    for browser, fresh in (
        (client(), None),
        (client(ada, signed_in_ago=timedelta(minutes=14)), ["1"]),
    ):
        answer = browser.get(link)
        query = parse_qs(urlsplit(answer.headers["Location"]).query)
        assert answer.status_code == 303
        assert urlsplit(answer.headers["Location"]).path == "/sign-in"
        assert query["return_to"] == [link]
        assert query.get("fresh") == fresh


def test_several_long_links_do_not_overfill_the_browsers_cookie(house: House, client: Client) -> None:
    browser = client()
    service_id = _service(house)
    for number in range(5):
        state = "".join(uuid.uuid4().hex for _ in range(30)) + str(number)
        answer = browser.get(_link(service_id, state=state), follow_redirects=False)
        browser.get(answer.headers["Location"])
        assert sum(len(cookie.value or "") for cookie in browser.cookies.jar) < 4000


@pytest.mark.promise("only-what-the-user-started")
def test_a_forged_or_late_consent_is_none(house: House, ada: Resident, client: Client) -> None:
    link = _link(_service(house))
    browser = client(ada)
    stranger = client(house.move_in())
    for token in ("", "forged", form_token(stranger.get("/"))):
        answer = browser.post(link, data={"csrf_token": token, "answer": "allow", "days": "90"})
        assert answer.status_code == 403
    late = client(ada, signed_in_ago=timedelta(minutes=16))
    answer = late.post(link, data={"csrf_token": form_token(late.get("/")), "answer": "allow", "days": "90"})
    assert answer.status_code == 403
    assert "Please sign in again" in answer.text
    assert "tasks%3Dcount-keys" in answer.text
    assert _given(house, ada) == []


def test_the_page_may_be_left_for_the_services_address_only(
    house: House, ada: Resident, client: Client
) -> None:
    policy = client(ada).get(_link(_service(house))).headers["Content-Security-Policy"]
    assert "form-action 'self' https://notebooks.example.test;" in policy
    assert "frame-ancestors 'none'" in policy
    assert "notebooks" not in client(ada).get("/profile/grants").headers["Content-Security-Policy"]


def test_a_host_that_would_widen_the_policy_is_left_out(house: House, ada: Resident, client: Client) -> None:
    odd = "https://a.test;script-src/"
    page = client(ada).get(_link(_service(house, callback_urls=(odd,)), return_to=odd))
    assert "a.test" not in page.headers["Content-Security-Policy"]


def test_an_end_is_asked_for_with_what_it_stops(house: House, ada: Resident, client: Client) -> None:
    service_id = _service(house)
    grant = grants.give(house.ctx, ada.principal, service_id=service_id, tasks=["count-keys"])
    browser = client(ada)
    assert "Notebook server" in browser.get("/profile/grants").text
    page = browser.get(f"/profile/grants/{grant.id}/end")
    assert "Nothing runs or waits under it" in page.text
    answer = browser.post(f"/profile/grants/{grant.id}/end", data={"csrf_token": form_token(page)})
    assert answer.headers["Location"] == "/profile/grants"
    assert _given(house, ada)[0].state is GrantState.ENDED
    assert "Withdrawn by you" in browser.get("/profile/grants").text
    assert browser.get(f"/profile/grants/{grant.id}/end").headers["Location"] == "/profile/grants"


def test_anothers_grant_is_no_page(house: House, ada: Resident, client: Client) -> None:
    grant = grants.give(house.ctx, ada.principal, service_id=_service(house), tasks=["count-keys"])
    stranger = client(house.move_in())
    for path in (f"/profile/grants/{grant.id}/end", f"/grants/{grant.id}/allowed"):
        assert stranger.get(path).status_code == 404
    token = form_token(stranger.get("/"))
    answer = stranger.post(f"/profile/grants/{grant.id}/end", data={"csrf_token": token})
    assert answer.status_code == 404
    assert _given(house, ada)[0].state is GrantState.ACTIVE


def test_who_acts_for_a_service_id_is_asked_for_it_and_gives_its_grant(
    house: House, ada: Resident, client: Client
) -> None:
    robot = house.provider.add_service_id(ada.account_id, "nightly")
    house.provider.allow_act(ada.iam_id, robot)
    browser = client(ada)
    post(browser, "/account", account_id=f"act-for:{robot}", return_to="/")
    link = _link(_service(house))
    assert "Let <bdi>Notebook server</bdi> start work as the service id nightly?" in browser.get(link).text
    assert _answer(browser, link, "allow").status_code == 303
    assert _given(house, ada) == []
    with house.ctx.store.read() as connection:
        (grant,) = grants_store.of_owner(
            connection, ada.account_id, robot, now=house.ctx.clock.now(), limit=2
        )
    assert (grant.iam_id, grant.acting_iam_id) == (robot, ada.iam_id)
