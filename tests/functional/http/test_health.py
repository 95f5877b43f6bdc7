"""Health, metrics, and the headers every answer carries."""

from __future__ import annotations

import os
from datetime import timedelta

import pytest
import sqlalchemy as sa
from prometheus_client.parser import text_string_to_metric_families

from taskcred.domain.keytext import new_key
from taskcred.http.app import create_app
from taskcred.testing import Failure
from tests.support.site import Site


def test_a_process_that_answers_is_alive(site: Site) -> None:
    assert site.client().get("/healthz").get_json() == {"status": "ok"}


def test_every_part_is_named(site: Site) -> None:
    answer = site.client().get("/readyz")
    assert (answer.status_code, answer.get_json()["status"]) == (200, "ready")
    parts = {"records": "ok", "tokens": "ok", "vault": "ok", "identity_provider": "ok"}
    assert answer.get_json()["parts"] == parts


@pytest.mark.promise("never-interrupted")
def test_a_provider_that_is_away_degrades_and_does_not_unready(site: Site) -> None:
    site.provider.script("check", Failure.UNAVAILABLE, times=None)
    answer = site.client().get("/readyz")
    assert (answer.status_code, answer.get_json()["status"]) == (200, "degraded")
    assert answer.get_json()["parts"]["identity_provider"] == "identity_provider_unavailable"


def test_what_the_vault_refused_is_counted_by_reason(site: Site) -> None:
    site.vault.script("check", Failure.REFUSE)
    assert site.client().get("/readyz").get_json()["parts"]["vault"] == "vault_sealed"
    labels = f'{{process="{os.getpid()}",reason="vault_sealed"}}'
    assert f"taskcred_vault_failures_total{labels} 1.0" in site.client().get("/metrics").text


def test_parts_are_not_asked_at_every_request(site: Site) -> None:
    for _ in range(5):
        site.client().get("/readyz")
    assert site.provider.calls["check"] == 1
    site.clock.advance(timedelta(seconds=3))
    site.client().get("/readyz")
    assert site.provider.calls["check"] == 2


def test_without_the_records_nothing_is_ready(site: Site) -> None:
    site.ctx.store.engine = sa.create_engine("sqlite:////nowhere/records.db")
    answer = site.client().get("/readyz")
    assert (answer.status_code, answer.get_json()["status"]) == (503, "not_ready")
    assert answer.get_json()["parts"]["records"] == "store_busy"
    assert "taskcred_records_up 0.0" in site.client().get("/metrics").text


@pytest.mark.promise("at-once")
def test_a_process_that_is_out_of_touch_says_so(site: Site) -> None:
    in_touch = f'taskcred_in_touch{{process="{os.getpid()}"}}'
    assert f"{in_touch} 1.0" in site.client().get("/metrics").text
    site.clock.advance(timedelta(seconds=3.1))  # and nothing was read meanwhile
    answer = site.client().get("/readyz")
    assert (answer.status_code, answer.get_json()["status"]) == (503, "not_ready")
    assert answer.get_json()["parts"]["tokens"] == "out_of_touch"
    assert answer.get_json()["parts"]["records"] == "ok"
    assert f"{in_touch} 0.0" in site.client().get("/metrics").text


@pytest.mark.promise("at-once")
def test_out_of_touch_is_told_without_the_records(site: Site) -> None:
    site.ctx.store.engine = sa.create_engine("sqlite:////nowhere/records.db")
    site.clock.advance(timedelta(seconds=3.1))
    assert site.client().get("/readyz").get_json()["parts"]["tokens"] == "out_of_touch"
    text = site.client().get("/metrics").text
    assert f'taskcred_in_touch{{process="{os.getpid()}"}} 0.0' in text
    assert f'taskcred_known_stand_in_keys{{process="{os.getpid()}"}} 0.0' in text


def test_metrics_tell_states_and_requests(site: Site) -> None:
    me = site.bearer()
    me.post("/v1/runs", json={"task": "report"})
    me.get(f"/v1/runs/{site.no_id}")
    text = site.client().get("/metrics").text
    samples = {
        (
            sample.name,
            *(value for name, value in sorted(sample.labels.items()) if name != "process"),
        ): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
    assert samples["taskcred_records_up",] == 1
    assert samples["taskcred_runs", "waiting_for_credential"] == 1
    assert samples["taskcred_prompts", "open"] == 1
    assert samples["taskcred_intents", "given_up"] == 0
    assert samples["taskcred_intents", "rolled_back"] == 0
    assert samples["taskcred_notices", "given_up"] == 0
    assert samples["taskcred_http_requests_total", "GET", "/v1/runs/<uuid:run_id>", "404"] == 1
    assert site.no_id not in text
    assert site.iam_id not in text


def test_every_answer_is_closed_to_other_sites_and_caches(site: Site) -> None:
    for path in ("/v1/runs", "/healthz", "/nowhere", "/sign-in", "/v1/task_credentials", "/openapi.json"):
        headers = site.bearer().get(path).headers
        policy = headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy
        assert "frame-ancestors 'none'" in policy
        assert "base-uri 'none'" in policy
        assert "unsafe" not in policy
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Cache-Control"] == "no-store"
        assert headers["Referrer-Policy"] == "same-origin"


def test_forms_may_lead_to_the_providers_sign_in(site: Site) -> None:
    app = create_app(
        site.ctx,
        site.broker,
        secret_key=new_key("tck_"),
        cookie_secure=True,
        provider_origin="https://iam.example.test",
    )
    policy = app.test_client().get("/healthz").headers["Content-Security-Policy"]
    assert "form-action 'self' https://iam.example.test;" in policy


def test_requests_are_logged_without_their_query(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    key = site.key()
    site.bearer().get("/v1/runs", query_string={"apikey": key, "after": key})
    site.client().get("/auth/callback", query_string={"code": key, "state": key})
    logged = capsys.readouterr()
    assert "/v1/runs" in logged.out + logged.err
    assert key not in logged.out + logged.err
