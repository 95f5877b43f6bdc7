"""From a prompt's page back to the service whose run it was shown for, and to nobody else."""

from __future__ import annotations

import html
import re
import uuid
from datetime import timedelta
from urllib.parse import parse_qsl, urlencode, urlsplit

import httpx
import pytest

from taskcred.domain.runs import RunView
from taskcred.services import registry, runs
from taskcred.store import audit
from tests.browser.house import House, Resident
from tests.functional.web.conftest import Client, form_token

BACK = "https://notebooks.example.test/answered?from=taskcred"


@pytest.fixture
def service(house: House) -> str:
    return house.service(BACK)


@pytest.fixture
def run(house: House, service: str, ada: Resident) -> RunView:
    """A run of Ada's that waits, started by the service, which wants her back."""
    return _start(house, service, ada)


def _start(house: House, service_id: str, who: Resident) -> RunView:
    grant = house.grant(who, service_id=service_id)
    return runs.get(house.ctx, who.principal, house.start_under(grant, return_to=BACK))


def _page(run: RunView) -> str:
    return f"/prompts/{run.prompt_id}?run={run.id}"


def _answered(browser: httpx.Client, path: str) -> str:
    """Where the answer to the prompt leads."""
    form = {"csrf_token": form_token(browser.get(path)), "name": "Mine", "source": "generate", "expiry": "90"}
    answer = browser.post(path, data=form)
    assert answer.status_code == 303, answer.text
    return answer.headers["Location"]


def test_the_answer_leads_back_with_the_run(
    house: House, ada: Resident, client: Client, run: RunView
) -> None:
    browser = client(ada)
    page = browser.get(_page(run))
    assert "you are led back to <strong>notebooks.example.test</strong>" in page.text
    assert "form-action 'self' https://notebooks.example.test;" in page.headers["Content-Security-Policy"]
    assert _answered(browser, _page(run)) == _back(run)
    assert runs.get(house.ctx, ada.principal, run.id).state == "queued"
    assert "Your key is in place" not in browser.get("/").text  # said to nobody at some later time
    closed = browser.get(_page(run)).text
    assert re.search(rf'href="{_shown(run)}">Go on to notebooks', closed)


def test_who_declines_is_offered_the_way_back(ada: Resident, client: Client, run: RunView) -> None:
    page = client(ada).get(_page(run)).text
    assert re.search(rf'href="{_shown(run)}">Not now, back to notebooks\.example\.test<', page)


def test_a_key_that_is_shown_once_is_seen_before_the_way_back(
    ada: Resident, client: Client, run: RunView
) -> None:
    browser = client(ada)
    form = {"csrf_token": form_token(browser.get(_page(run))), "name": "Mine", "source": "generate"}
    shown = browser.post(_page(run), data={**form, "expiry": "90", "show_once": "1"})
    assert shown.status_code == 200
    assert f'href="{html.escape(_back(run))}"' in shown.text


def test_after_a_sign_in_the_way_back_is_still_known(ada: Resident, client: Client, run: RunView) -> None:
    answer = client(ada, signed_in_ago=timedelta(hours=1)).get(_page(run))
    assert answer.status_code == 303
    assert dict(parse_qsl(urlsplit(answer.headers["Location"]).query))["return_to"] == _page(run)


@pytest.mark.parametrize("change", ["off the list", "disabled", "ended"])
def test_a_url_that_is_the_services_no_more_leads_nowhere(
    house: House, ada: Resident, client: Client, service: str, run: RunView, change: str
) -> None:
    match change:
        case "off the list":
            urls = (BACK + "&", BACK.upper(), BACK.removesuffix("d"))
            registry.update(house.ctx, audit.OPERATOR, service, registry.Change(callback_urls=urls))
        case "disabled":
            registry.disable(house.ctx, audit.OPERATOR, service)
        case "ended":
            house.start(ada)  # else nothing waits for the answer
            registry.end(house.ctx, audit.OPERATOR, service)
    browser = client(ada)
    assert "notebooks.example.test" not in browser.get(_page(run)).text
    assert _answered(browser, _page(run)) == "/"


@pytest.mark.parametrize("named", ["somebody else's", "their own", "unknown", "nonsense", "a URL"])
def test_only_a_run_that_a_service_started_for_them_knows_the_way(
    house: House, ada: Resident, client: Client, service: str, run: RunView, named: str
) -> None:
    run_id = {
        "somebody else's": lambda: _start(house, service, house.move_in()).id,
        "their own": lambda: house.start(ada).id,
        "unknown": lambda: str(uuid.uuid4()),
        "nonsense": lambda: "../x",
        "a URL": lambda: BACK,
    }[named]()
    browser = client(ada)
    path = f"/prompts/{run.prompt_id}?{urlencode({'run': run_id, 'return_to': BACK})}"
    assert "notebooks.example.test" not in re.sub(r'action="[^"]*"', "", browser.get(path).text)
    assert _answered(browser, path) == "/"


def _back(run: RunView) -> str:
    return f"{BACK}&run_id={run.id}"


def _shown(run: RunView) -> str:
    return re.escape(html.escape(_back(run)))
