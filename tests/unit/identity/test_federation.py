"""Other platforms' issuers: how often, how long and with how many threads they are asked."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import httpx
import pytest

from taskcred.domain.services import TrustView
from taskcred.errors import UpstreamUnavailableError
from taskcred.identity.federation import WorkloadIssuers
from taskcred.testing import START, FrozenClock
from tests.support.issuer import Issuer


@pytest.fixture
def issuer() -> Iterator[Issuer]:
    with Issuer().serving() as serving:
        yield serving


def trust(issuer: Issuer, **said: Any) -> TrustView:
    return TrustView(
        **{
            "id": "1",
            "issuer": issuer.url,
            "subject": "system:serviceaccount:notebooks:hub",
            "audience": "https://taskcred.test",
            "jwks_url": "",
            "ca_file": "",
            "created_at": START,
            "created_by": "operator",
            "last_used_at": None,
            **said,
        }
    )


def test_one_call_too_many_is_refused_at_once(issuer: Issuer) -> None:
    issuers = WorkloadIssuers(FrozenClock(), permits=1)
    issuer.is_open.clear()
    first = threading.Thread(target=issuers.check, args=(trust(issuer),))
    first.start()
    assert issuer.was_asked.wait(timeout=30)
    with pytest.raises(UpstreamUnavailableError) as refused:
        issuers.check(trust(issuer, jwks_url=f"{issuer.url}/keys"))
    assert "too many calls" in refused.value.message
    issuer.is_open.set()
    first.join()
    issuers.check(trust(issuer, jwks_url=f"{issuer.url}/keys"))  # the permit was given back


def test_an_issuer_that_hangs_is_given_up(issuer: Issuer) -> None:
    issuers = WorkloadIssuers(FrozenClock(), timeout=timedelta(milliseconds=50))
    issuer.is_open.clear()
    with pytest.raises(UpstreamUnavailableError) as away:
        issuers.check(trust(issuer))
    assert away.value.error_code == "issuer_unavailable"
    assert issuer.url in away.value.message


def test_keys_are_had_from_a_cluster_that_shows_them_as_a_set_of_keys_alone(issuer: Issuer) -> None:
    with httpx.Client(base_url=issuer.url) as client:
        assert client.get("/keys", headers={"Accept": "application/json"}).status_code == 406
    WorkloadIssuers(FrozenClock()).check(trust(issuer))


def test_keys_serve_on_while_the_issuer_is_away(issuer: Issuer) -> None:
    clock = FrozenClock()
    issuers = WorkloadIssuers(clock)
    assert issuers.verify(issuer.token(clock.now()), trust(issuer))["iss"] == issuer.url
    issuer.status = 503
    clock.advance(timedelta(hours=1))
    assert issuers.verify(issuer.token(clock.now()), trust(issuer))["iss"] == issuer.url


def test_a_certificate_authority_that_is_none_is_told(issuer: Issuer, tmp_path: Any) -> None:
    file = tmp_path / "ca.pem"
    file.write_text("no certificate")
    with pytest.raises(UpstreamUnavailableError) as away:
        WorkloadIssuers(FrozenClock()).check(trust(issuer, ca_file=str(file)))
    assert str(file) in away.value.message
