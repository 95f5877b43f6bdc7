"""Who holds a service's secret is that service, and nobody else; what is taken away is gone at once."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from taskcred.domain.secret import Secret
from taskcred.services import registry, service_secrets
from taskcred.store import audit, tables
from taskcred.store import service_tables as t
from tests.support.site import Site, make_site

SELF = "/v1/services/self"


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return make_site(tmp_path)


def test_the_right_secret_lets_in(site: Site) -> None:
    service = site.service("notebook")
    answer = service.client.get(SELF)
    assert answer.status_code == 200
    assert (answer.get_json()["id"], answer.get_json()["name"]) == (service.id, "notebook")


def test_a_wrong_secret_is_refused_like_an_unknown_service(site: Site) -> None:
    service, other = site.service(), site.service()
    fresh = service_secrets.draw_secret()
    answers = [
        site.basic(service.id, fresh).get(SELF),
        site.basic(service.id, other.secret).get(SELF),
        site.basic(site.no_id, service.secret).get(SELF),
        site.basic("nobody", service.secret).get(SELF),
    ]
    assert {answer.status_code for answer in answers} == {401}
    assert {answer.get_json()["code"] for answer in answers} == {"invalid_client"}
    assert len({answer.get_json()["detail"] for answer in answers}) == 1
    assert {answer.headers["WWW-Authenticate"] for answer in answers} == {'Basic realm="taskcred"'}


def test_a_secret_without_its_form_is_not_looked_up_as_a_services(site: Site) -> None:
    service = site.service()
    text = service.secret.reveal()
    for almost in (text[:-1] + "~", text.upper(), text[4:], f" {text}", text + text):
        assert site.basic(service.id, Secret(almost)).get(SELF).status_code == 401


def test_a_secret_does_not_open_other_doors(site: Site) -> None:
    service = site.service()
    assert site.client({"Authorization": f"Bearer {service.secret.reveal()}"}).get(SELF).status_code == 401
    # Neither does the worker's credential open this one.
    assert site.executor().get(SELF).status_code == 403


@pytest.mark.promise("at-once")
def test_a_disabled_service_is_refused_at_once_and_told_so(site: Site) -> None:
    service = site.service()
    assert service.client.get(SELF).status_code == 200
    site.clock.advance(timedelta(minutes=1))
    registry.disable(site.ctx, audit.OPERATOR, service.id)
    answer = service.client.get(SELF)
    assert (answer.status_code, answer.get_json()["code"]) == (403, "service_disabled")
    assert service.client.get(SELF).status_code == 403
    with site.ctx.store.read() as connection:
        rows = connection.execute(tables.audit_events.select()).all()
    refused = [row.actor for row in rows if (row.action, row.outcome) == ("service:enter", "refused")]
    assert refused == [f"service:{service.id}"]  # once a minute, not for each request
    # Who does not hold the secret learns nothing of it.
    stranger = site.basic(service.id, service_secrets.draw_secret()).get(SELF)
    assert stranger.get_json()["code"] == "invalid_client"
    registry.enable(site.ctx, audit.OPERATOR, service.id)
    assert service.client.get(SELF).status_code == 200


@pytest.mark.promise("at-once")
def test_an_ended_service_is_refused_at_once(site: Site) -> None:
    service = site.service()
    registry.end(site.ctx, audit.OPERATOR, service.id)
    assert service.client.get(SELF).get_json()["code"] == "invalid_client"


@pytest.mark.promise("at-once")
def test_without_overlap_the_old_secret_ends_with_the_rotation(site: Site) -> None:
    service = site.service()
    new = service_secrets.rotate(site.ctx, audit.OPERATOR, service.id, overlap=timedelta(0))
    assert service.client.get(SELF).status_code == 401
    assert site.basic(service.id, new.secret).get(SELF).status_code == 200


@pytest.mark.promise("never-interrupted")
def test_with_overlap_both_work_until_it_is_over(site: Site) -> None:
    service = site.service()
    new = service_secrets.rotate(site.ctx, audit.OPERATOR, service.id)
    renewed = site.basic(service.id, new.secret)
    site.clock.advance(timedelta(hours=24) - timedelta(seconds=1))
    assert (service.client.get(SELF).status_code, renewed.get(SELF).status_code) == (200, 200)
    site.clock.advance(timedelta(seconds=1))
    assert (service.client.get(SELF).status_code, renewed.get(SELF).status_code) == (401, 200)


def test_the_records_have_digests_only(site: Site) -> None:
    service = site.service()
    with site.ctx.store.read() as connection:
        row = connection.execute(t.service_secrets.select()).one()
    assert row.digest == service.secret.digest()
    raw = (Path(str(site.ctx.store.engine.url.database))).read_bytes()
    assert service.secret.reveal().encode() not in raw


def test_use_is_noted_once_a_minute(site: Site) -> None:
    service = site.service()
    seen = []
    for _ in range(4):
        used = service.client.get(SELF).get_json()["secrets"][0]["last_used_at"]
        seen.append(used)
        site.clock.advance(timedelta(seconds=30))
    assert len(set(seen)) == 2
