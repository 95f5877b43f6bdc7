"""Administration, Services: who sees it, what it shows, what its forms do."""

from __future__ import annotations

import re
import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from taskcred.domain.runs import Executor
from taskcred.domain.services import ServiceState, ServiceView
from taskcred.services import federation, registry, service_secrets
from taskcred.services.federation import NewTrust
from taskcred.store import audit, events
from tests.browser.house import House, Resident
from tests.functional.web.conftest import Client, form_token

ROOM = "/administration/services"


@pytest.fixture
def service(house: House, ada: Resident) -> ServiceView:
    """A service that Ada looks after."""
    new = registry.NewService(
        f"notebooks-{uuid.uuid4().hex[:8]}",
        ("count-keys", "train"),
        executors=(Executor.SERVICE, Executor.WORKER),
        title="Notebook server",
        description="Runs cells.",
        callback_urls=("https://a.example/back",),
        webhook_url="https://a.example/hook",
    )
    made = registry.create(house.ctx, audit.OPERATOR, new).service
    return registry.add_administrator(house.ctx, audit.OPERATOR, made.id, ada.iam_id, "ada@example.com")


def now_of(house: House, service: ServiceView) -> ServiceView:
    return registry.get(house.ctx, audit.OPERATOR, service.id)[0]


def send(browser: httpx.Client, path: str, **fields: str) -> httpx.Response:
    page = browser.get(path)
    hidden = dict(re.findall(r'<input type="hidden" name="([a-z_]+)" value="([^"]*)">', page.text))
    return browser.post(path, data={**hidden, "csrf_token": form_token(page), **fields})


def test_the_room_is_shown_to_those_it_is_for(
    house: House, ada: Resident, client: Client, service: ServiceView
) -> None:
    other = client(house.move_in("Bob"))
    assert "Administration" not in other.get("/").text
    assert "You look after no service." in other.get(ROOM).text
    assert other.get(f"{ROOM}/{service.id}").status_code == 404
    mine = client(ada)
    assert f'href="{ROOM}"' in mine.get("/").text
    assert mine.get("/administration").headers["Location"] == ROOM
    assert "Notebook server" in mine.get(ROOM).text


def test_the_page_says_what_it_may_and_shows_no_secret(
    house: House, ada: Resident, client: Client, service: ServiceView
) -> None:
    trust = NewTrust("https://issuer.example", "system:serviceaccount:a:b", "https://x")
    federation.add_trust(house.ctx, audit.OPERATOR, service.id, trust)
    rotated = service_secrets.rotate(house.ctx, audit.OPERATOR, service.id)
    page = client(ada).get(f"{ROOM}/{service.id}").text
    for words in (
        service.id,
        "Count my API keys",
        "its own engine, or a worker of taskcred",
        "600 starts a minute",
        "https://a.example/back",
        "https://a.example/hook",
        "ada@example.com",
        "system:serviceaccount:a:b",
        *(f"…{secret.last_four}" for secret in rotated.service.secrets),
    ):
        assert words in page, words
    assert rotated.secret.reveal() not in page


@pytest.mark.promise("giving-up-is-visible")
def test_deliveries_that_failed_are_shown(
    house: House, ada: Resident, client: Client, service: ServiceView
) -> None:
    now = datetime.now(UTC)
    with house.ctx.store.write() as connection:
        events.insert(connection, service.id, "run.ended", {"run_id": "1"}, now)
        (event,) = events.after(connection, service.id, 0, 1)
        events.close(connection, event.id, "given_up", now, "The webhook answered with status 500.")
    page = client(ada).get(f"{ROOM}/{service.id}").text
    assert "Given up" in page
    assert "The webhook answered with status 500." in page


def test_words_and_addresses_are_edited(
    house: House, ada: Resident, client: Client, service: ServiceView
) -> None:
    path = f"{ROOM}/{service.id}/edit"
    fields = {
        "title": "New title",
        "description": "",
        "callback_urls": "https://a.example/1\r\n\r\n https://a.example/2 ",
        "webhook_url": "",
    }
    saved = send(client(ada), path, **fields)
    assert (saved.status_code, saved.headers["Location"]) == (303, f"{ROOM}/{service.id}")
    after = now_of(house, service)
    assert (after.title, after.webhook_url) == ("New title", "")
    assert after.callback_urls == ("https://a.example/1", "https://a.example/2")
    assert "Replace its secret" not in client(ada).get(f"{ROOM}/{service.id}").text
    browser = client(ada)
    send(browser, path, **{**fields, "webhook_url": "https://a.example/hook"})
    assert "nobody knows the one it has" in browser.get(f"{ROOM}/{service.id}").text
    send(browser, path, **fields)
    assert "nobody knows" not in browser.get(f"{ROOM}/{service.id}").text
    after = now_of(house, service)
    wrong = send(client(ada), path, **{**fields, "webhook_url": "http://a.example"})
    assert (wrong.status_code, "is neither of https" in wrong.text) == (400, True)
    stale = send(client(ada), path, **{**fields, "revision": "1"})
    assert stale.status_code == 412
    assert now_of(house, service) == after


def test_a_secret_is_rotated_once_however_often_the_form_is_sent(
    house: House, ada: Resident, client: Client, service: ServiceView
) -> None:
    browser, path = client(ada), f"{ROOM}/{service.id}/rotate-secret"
    page = browser.get(path)
    replaces = re.search(r'name="replaces" value="([^"]*)"', page.text)
    assert replaces is not None
    form = {"csrf_token": form_token(page), "replaces": replaces[1], "overlap": "3600"}
    shown = browser.post(path, data=form)
    assert shown.status_code == 200
    (text,) = re.findall(r'value="(tcc_[A-Za-z0-9]+)"', shown.text)
    assert shown.headers["Cache-Control"] == "no-store"
    again = browser.post(path, data=form)
    assert (again.status_code, "already replaced" in again.text) == (422, True)
    assert text[-4:] in {secret.last_four for secret in now_of(house, service).secrets}
    assert len(now_of(house, service).secrets) == 2


def test_without_a_choice_nothing_is_rotated(
    house: House, ada: Resident, client: Client, service: ServiceView
) -> None:
    for odd in ("", "12", "-1", "x"):
        refused = send(client(ada), f"{ROOM}/{service.id}/rotate-secret", overlap=odd)
        assert refused.status_code == 422
    assert len(now_of(house, service).secrets) == 1


def test_an_old_secret_is_ended_early(
    house: House, ada: Resident, client: Client, service: ServiceView
) -> None:
    old = service.secrets[0].id
    service_secrets.rotate(house.ctx, audit.OPERATOR, service.id)
    ended = send(client(ada), f"{ROOM}/{service.id}/secrets/{old}/end")
    assert ended.status_code == 303
    assert old not in {secret.id for secret in now_of(house, service).secrets}
    assert client(ada).get(f"{ROOM}/{service.id}/secrets/{old}/end").status_code == 404


def test_a_webhook_secret_is_replaced_and_shown_once(
    house: House, ada: Resident, client: Client, service: ServiceView
) -> None:
    path = f"services/{service.id}/webhook"
    before = house.ctx.vault.open(path)
    shown = send(client(ada), f"{ROOM}/{service.id}/rotate-webhook-secret")
    fresh, old = service_secrets.signing_secrets(house.ctx, service.id)
    assert (old, house.ctx.vault.open(path).reveal().split()[0]) == (before, fresh.reveal())
    assert fresh.reveal() in shown.text
    assert old.reveal() not in shown.text
    send(client(ada), f"{ROOM}/{service.id}/rotate-webhook-secret", action="leaked")
    assert len(service_secrets.signing_secrets(house.ctx, service.id)) == 1


def test_a_trust_is_ended(house: House, ada: Resident, client: Client, service: ServiceView) -> None:
    trust = NewTrust("https://issuer.example", uuid.uuid4().hex, "https://x")
    (added,) = federation.add_trust(house.ctx, audit.OPERATOR, service.id, trust).trusts
    assert send(client(ada), f"{ROOM}/{service.id}/trusts/{added.id}/end").status_code == 303
    assert now_of(house, service).trusts == ()


def test_disabled_and_enabled_again(
    house: House, ada: Resident, client: Client, service: ServiceView
) -> None:
    browser = client(ada)
    assert send(browser, f"{ROOM}/{service.id}/disable").status_code == 303
    assert now_of(house, service).state is ServiceState.DISABLED
    page = browser.get(f"{ROOM}/{service.id}")
    assert "It is refused until you enable it." in page.text
    browser.post(f"{ROOM}/{service.id}/enable", data={"csrf_token": form_token(page)})
    assert now_of(house, service).state is ServiceState.ACTIVE


FORMS = ("edit", "rotate-secret", "rotate-webhook-secret", "disable")


@pytest.mark.parametrize("form", FORMS)
def test_forms_ask_for_a_fresh_sign_in_and_for_their_own_token(
    house: House, ada: Resident, client: Client, service: ServiceView, form: str
) -> None:
    path = f"{ROOM}/{service.id}/{form}"
    stale = client(ada, signed_in_ago=timedelta(minutes=20)).get(path)
    assert (stale.status_code, "fresh=1" in stale.headers["Location"]) == (303, True)
    data: dict[str, Any] = {"overlap": "0", "title": "x"}
    assert client(ada).post(path, data=data).status_code == 403
    other = house.move_in("Mallory")
    assert client(other).get(path).status_code == 404
    assert now_of(house, service) == service
