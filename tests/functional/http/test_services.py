"""/v1/services: what owners see, what administrators see and do, what the service sees of itself."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from flask.testing import FlaskClient

from taskcred.services import federation, registry, service_secrets
from taskcred.services.federation import NewTrust
from taskcred.store import audit, events
from tests.support.site import ServiceCaller, Site


@pytest.fixture
def service(site: Site) -> ServiceCaller:
    return site.service(
        "notebook", title="Notebook server", description="Runs cells.", webhook_url="https://a.example/hook"
    )


@pytest.fixture
def administrator(site: Site, service: ServiceCaller) -> FlaskClient:
    """Looks after the service, signed in just now."""
    person = site.provider.add_person(site.account_id)
    registry.add_administrator(site.ctx, audit.OPERATOR, service.id, person, "ada@example.com")
    return site.bearer(iam_id=person)


def path(service: ServiceCaller, *rest: str) -> str:
    return "/".join((f"/v1/services/{service.id}", *rest))


def test_owners_see_what_a_consent_page_shows(site: Site, service: ServiceCaller) -> None:
    told = site.bearer().get(path(service)).get_json()
    assert {name: value for name, value in told.items() if value is not None} == {
        "id": service.id,
        "name": "notebook",
        "title": "Notebook server",
        "description": "Runs cells.",
    }
    assert site.bearer().get("/v1/services").get_json() == {"items": [], "next": None}
    assert site.bearer().get(path(service, "deliveries")).status_code == 404


def test_administrators_see_all_of_theirs(
    site: Site, service: ServiceCaller, administrator: FlaskClient
) -> None:
    site.service("other")
    (listed,) = administrator.get("/v1/services").get_json()["items"]
    assert listed == administrator.get(path(service)).get_json()
    assert (listed["state"], listed["tasks"][0], listed["executors"]) == (
        "active",
        "report",
        ["service", "worker"],
    )
    assert (listed["starts_per_minute"], listed["webhook_url"]) == (600, "https://a.example/hook")
    assert [secret["last_four"] for secret in listed["secrets"]] == [service.secret.last_four]
    assert [person["email"] for person in listed["administrators"]] == ["ada@example.com"]
    assert service.secret.reveal() not in administrator.get("/v1/services").text


def test_a_service_sees_itself(site: Site, service: ServiceCaller) -> None:
    told = service.client.get("/v1/services/self")
    assert told.get_json()["id"] == service.id
    again = service.client.get("/v1/services/self", headers={"If-None-Match": told.headers["ETag"]})
    assert again.status_code == 304
    assert site.bearer().get("/v1/services/self").status_code == 403
    assert service.client.get("/v1/services").status_code == 403
    assert service.client.get(path(service)).status_code == 403


def test_an_administrator_changes_words_and_urls(service: ServiceCaller, administrator: FlaskClient) -> None:
    before = administrator.get(path(service))
    changed = administrator.patch(
        path(service),
        json={"title": "New", "callback_urls": ["https://a.example/back"], "webhook_url": ""},
        headers={"If-Match": before.headers["ETag"]},
    )
    assert changed.status_code == 200, changed.text
    assert (changed.get_json()["title"], changed.get_json()["callback_urls"]) == (
        "New",
        ["https://a.example/back"],
    )
    stale = administrator.patch(
        path(service), json={"title": "x"}, headers={"If-Match": before.headers["ETag"]}
    )
    assert (stale.status_code, stale.get_json()["code"]) == (412, "stale_revision")


@pytest.mark.promise("empty-means-no")
@pytest.mark.parametrize("member", ["tasks", "executors", "starts_per_minute", "name", "state"])
def test_what_it_may_has_no_route(service: ServiceCaller, administrator: FlaskClient, member: str) -> None:
    before = administrator.get(path(service)).get_json()
    refused = administrator.patch(path(service), json={member: before[member]})
    assert (refused.status_code, refused.get_json()["field"]) == (400, member)


@pytest.mark.parametrize(
    "url", ["http://a.example/", "https://u:p@a.example/", "https://a.example/#x", "//a"]
)
def test_other_urls_are_refused(service: ServiceCaller, administrator: FlaskClient, url: str) -> None:
    for body in ({"webhook_url": url}, {"callback_urls": [url]}):
        refused = administrator.patch(path(service), json=body)
        assert (refused.status_code, refused.get_json()["code"]) == (400, "invalid_url")


def test_a_secret_is_rotated_and_shown_once(
    site: Site, service: ServiceCaller, administrator: FlaskClient
) -> None:
    made = administrator.post(path(service, "secrets"), json={"overlap_seconds": 3600})
    assert made.status_code == 201, made.text
    text = made.get_json()["secret"]
    assert text.startswith("tcc_")
    assert text not in administrator.get(path(service)).text
    assert sorted(bool(secret["ends_at"]) for secret in made.get_json()["secrets"]) == [False, True]
    old = next(secret["id"] for secret in made.get_json()["secrets"] if secret["ends_at"])
    assert service.client.get("/v1/services/self").status_code == 200
    assert administrator.delete(path(service, "secrets", old)).status_code == 200
    assert service.client.get("/v1/services/self").status_code == 401
    assert administrator.delete(path(service, "secrets", site.no_id)).status_code == 404


def test_the_present_secret_is_not_ended(service: ServiceCaller, administrator: FlaskClient) -> None:
    (secret,) = administrator.get(path(service)).get_json()["secrets"]
    refused = administrator.delete(path(service, "secrets", secret["id"]))
    assert (refused.status_code, refused.get_json()["code"]) == (409, "secret_current")


def test_a_webhook_secret_is_rotated_and_shown_once(
    site: Site, service: ServiceCaller, administrator: FlaskClient
) -> None:
    made = administrator.post(path(service, "webhook_secret"), json={"overlap_seconds": 0})
    assert made.status_code == 201, made.text
    kept = site.vault.records[f"services/{service.id}/webhook"]
    assert made.get_json()["secret"] == kept.reveal()
    assert kept.reveal().startswith("whsec_")
    administrator.post(path(service, "webhook_secret"), json={})
    assert [kept] == service_secrets.signing_secrets(site.ctx, service.id)[1:]


@pytest.mark.promise("at-once")
def test_disabled_and_enabled_again(service: ServiceCaller, administrator: FlaskClient) -> None:
    assert administrator.post(path(service, "disable")).get_json()["state"] == "disabled"
    assert service.client.get("/v1/services/self").get_json()["code"] == "service_disabled"
    assert administrator.post(path(service, "enable")).get_json()["state"] == "active"
    assert service.client.get("/v1/services/self").status_code == 200


def test_a_trust_is_seen_and_ended(site: Site, service: ServiceCaller, administrator: FlaskClient) -> None:
    trust = NewTrust("https://issuer.example", "subject", "https://taskcred.test")
    federation.add_trust(site.ctx, audit.OPERATOR, service.id, trust)
    (seen,) = administrator.get(path(service)).get_json()["trusts"]
    assert (seen["issuer"], seen["subject"]) == ("https://issuer.example", "subject")
    assert administrator.delete(path(service, "trusts", seen["id"])).get_json()["trusts"] == []
    assert administrator.delete(path(service, "trusts", seen["id"])).status_code == 404


@pytest.mark.promise("giving-up-is-visible")
def test_deliveries_that_failed_are_seen(
    site: Site, service: ServiceCaller, administrator: FlaskClient
) -> None:
    now = site.clock.now()
    with site.ctx.store.write() as connection:
        for number in range(3):
            events.insert(connection, service.id, "run.ended", {"run_id": str(number)}, now)
        first, second, _third = events.after(connection, service.id, 0, 10)
        events.close(connection, first.id, "given_up", now, "The webhook answered with status 500.")
        events.plan(connection, second.id, now + timedelta(hours=1), "The webhook could not be reached.")
    failed: list[dict[str, Any]] = administrator.get(path(service, "deliveries")).get_json()["items"]
    assert [(event["state"], event["error"]) for event in failed] == [
        ("open", "The webhook could not be reached."),
        ("given_up", "The webhook answered with status 500."),
    ]


@pytest.mark.parametrize("rest", ["", "disable", "enable", "secrets", "webhook_secret"])
def test_others_services_are_not_there_to_be_changed(
    site: Site, service: ServiceCaller, administrator: FlaskClient, rest: str
) -> None:
    other = site.service()
    method = "post" if rest else "patch"
    for target, client in ((other, administrator), (service, site.bearer())):
        answer = getattr(client, method)(path(target, *filter(None, [rest])), json={})
        assert (answer.status_code, answer.get_json()["code"]) == (404, "not_found")
    assert service.client.get("/v1/services/self").status_code == 200


def test_changes_need_a_fresh_sign_in(site: Site, service: ServiceCaller) -> None:
    person = site.provider.add_person(site.account_id)
    registry.add_administrator(site.ctx, audit.OPERATOR, service.id, person)
    stale = site.bearer(iam_id=person, auth_time=site.clock.now() - timedelta(minutes=16))
    assert stale.get(path(service)).get_json()["state"] == "active"
    refused = stale.post(path(service, "disable"))
    assert (refused.status_code, refused.get_json()["code"]) == (403, "fresh_sign_in_required")
    assert refused.get_json()["action_url"]
