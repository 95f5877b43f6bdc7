"""A workload's own token makes it a service only where everything about it is what the trust says."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient
from joserfc import jws
from joserfc.jwk import ECKey, OctKey, RSAKey

from taskcred.services import federation, registry
from taskcred.services.federation import NewTrust
from taskcred.store import audit
from tests.support.issuer import Issuer
from tests.support.site import BASE, ServiceCaller, Site, make_site

SUBJECT = "system:serviceaccount:notebooks:hub"


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return make_site(tmp_path)


@pytest.fixture
def stranger() -> Iterator[Issuer]:
    """An issuer nobody trusts."""
    with Issuer().serving() as serving:
        yield serving


@pytest.fixture
def service(site: Site, stranger: Issuer) -> ServiceCaller:
    """A service that trusts it."""
    made = site.service()
    federation.add_trust(site.ctx, audit.OPERATOR, made.id, NewTrust(stranger.url, SUBJECT, BASE))
    return made


@pytest.fixture
def issuer(stranger: Issuer, service: ServiceCaller) -> Issuer:
    """The issuer that the service trusts."""
    assert service.id
    return stranger


def bearer(site: Site, token: str) -> FlaskClient:
    return site.client({"Authorization": f"Bearer {token}"})


def call(site: Site, token: str) -> Any:
    return bearer(site, token).get("/v1/services/self")


def test_a_workload_is_its_service(site: Site, issuer: Issuer, service: ServiceCaller) -> None:
    answer = call(site, issuer.token(site.clock.now()))
    assert (answer.status_code, answer.get_json()["id"]) == (200, service.id)
    assert answer.get_json()["trusts"][0]["last_used_at"]


def test_an_audience_may_stand_alone(site: Site, issuer: Issuer) -> None:
    assert call(site, issuer.token(site.clock.now(), aud=BASE)).status_code == 200


def test_es256_is_taken_too(site: Site, issuer: Issuer) -> None:
    issuer.publish(ECKey.generate_key("P-256", {"kid": "curve"}))
    assert call(site, issuer.token(site.clock.now())).status_code == 200


WRONG: dict[str, dict[str, Any]] = {
    "another subject": {"sub": "system:serviceaccount:notebooks:other"},
    "a subject that begins alike": {"sub": SUBJECT + "-2"},
    "no subject": {"sub": None},
    "a list for a subject": {"sub": [SUBJECT]},
    "another audience": {"aud": ["https://kubernetes.default.svc"]},
    "no audience": {"aud": None},
    "an object for an audience": {"aud": {BASE: True}},
    "no expiry": {"exp": None},
    "an expiry that is no number": {"exp": "9999999999"},
    "an endless expiry": {"exp": True},
}


@pytest.mark.promise("empty-means-no")
def test_other_claims_are_refused(site: Site, issuer: Issuer) -> None:
    let_in = []
    for name, claims in WRONG.items():
        answer = call(site, issuer.token(site.clock.now(), **claims))
        if (answer.status_code, answer.get_json()["code"]) != (401, "invalid_token"):
            let_in.append(name)
        assert answer.get_json()["hint"]
    assert let_in == []


def test_an_expired_token_is_refused(site: Site, issuer: Issuer) -> None:
    token = issuer.token(site.clock.now())
    assert call(site, token).status_code == 200
    site.clock.advance(timedelta(minutes=10))
    assert call(site, token).status_code == 401


def test_a_token_of_tomorrow_is_refused(site: Site, issuer: Issuer) -> None:
    tomorrow = int((site.clock.now() + timedelta(days=1)).timestamp())
    for claims in ({"nbf": tomorrow}, {"iat": tomorrow}):
        assert call(site, issuer.token(site.clock.now(), exp=tomorrow + 60, **claims)).status_code == 401


def test_a_forged_signature_is_refused(site: Site, issuer: Issuer) -> None:
    other = RSAKey.generate_key(2048, {"kid": "first"})
    assert call(site, issuer.token(site.clock.now(), key=other)).status_code == 401


def test_an_unsigned_token_is_refused(site: Site, issuer: Issuer) -> None:
    payload = issuer.token(site.clock.now()).split(".")[1]
    for alg in ("none", "None"):
        header = base64.urlsafe_b64encode(json.dumps({"alg": alg, "kid": "first"}).encode()).decode()
        assert call(site, f"{header.rstrip('=')}.{payload}.").status_code == 401


def test_the_published_key_is_no_shared_secret(site: Site, issuer: Issuer) -> None:
    """The classic confusion: HS256 with the public key's text as the secret."""
    public = OctKey.import_key(json.dumps(issuer.key.as_dict(private=False)))
    payload = issuer.token(site.clock.now()).split(".")[1]
    claims = base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4))
    header = {"alg": "HS256", "kid": "first"}
    forged = jws.serialize_compact(header, claims, public, registry=jws.JWSRegistry(algorithms=["HS256"]))
    assert call(site, forged).status_code == 401


@pytest.mark.parametrize("alg", ["RS512", "PS256"])
def test_other_algorithms_are_refused(site: Site, issuer: Issuer, alg: str) -> None:
    assert call(site, issuer.token(site.clock.now(), alg=alg)).status_code == 401


def test_an_issuer_nobody_trusts_is_never_called(site: Site, stranger: Issuer) -> None:
    site.service()
    assert call(site, stranger.token(site.clock.now())).status_code == 401
    assert stranger.requests.total() == 0


def test_a_token_that_fits_no_trust_calls_nobody(site: Site, issuer: Issuer) -> None:
    call(site, issuer.token(site.clock.now(), sub="somebody"))
    assert issuer.requests.total() == 0


def test_keys_are_kept(site: Site, issuer: Issuer) -> None:
    for _ in range(5):
        assert call(site, issuer.token(site.clock.now())).status_code == 200
    assert issuer.requests == {"/.well-known/openid-configuration": 1, "/keys": 1}


def test_invented_key_ids_do_not_flood_the_issuer(site: Site, issuer: Issuer) -> None:
    assert call(site, issuer.token(site.clock.now())).status_code == 200
    for number in range(20):
        assert call(site, issuer.token(site.clock.now(), kid=f"invented-{number}")).status_code == 401
    assert issuer.requests["/keys"] <= 2


def test_a_replaced_key_is_found(site: Site, issuer: Issuer) -> None:
    assert call(site, issuer.token(site.clock.now())).status_code == 200
    issuer.publish(issuer.key, RSAKey.generate_key(2048, {"kid": "second"}))
    site.clock.advance(timedelta(seconds=11))
    assert call(site, issuer.token(site.clock.now())).status_code == 200


def test_an_issuer_that_is_away_is_a_503_that_says_so(site: Site, issuer: Issuer) -> None:
    issuer.status = 500
    for _ in range(2):  # the second meets the pause between two looks
        answer = call(site, issuer.token(site.clock.now()))
        assert (answer.status_code, answer.get_json()["code"]) == (503, "issuer_unavailable")
        assert issuer.url in answer.get_json()["detail"]


def test_redirects_are_not_followed(site: Site, issuer: Issuer) -> None:
    issuer.status = 302
    assert call(site, issuer.token(site.clock.now())).status_code == 503
    assert issuer.requests["/keys"] == 0


@pytest.mark.parametrize(
    "document",
    [
        b"no JSON",
        b"[]",
        b"{}",
        b'{"issuer": "https://somebody.else", "jwks_uri": "https://somebody.else/keys"}',
        b'{"issuer": "ISSUER", "jwks_uri": "http://10.0.0.1/keys"}',
        b'{"issuer": "ISSUER", "jwks_uri": 7}',
        b" " * (2 << 20),
    ],
    ids=["no JSON", "a list", "nothing", "another's", "an address inside", "a number", "too much"],
)
def test_odd_configurations_are_not_believed(site: Site, issuer: Issuer, document: bytes) -> None:
    issuer.documents["/.well-known/openid-configuration"] = document.replace(b"ISSUER", issuer.url.encode())
    answer = call(site, issuer.token(site.clock.now()))
    assert (answer.status_code, answer.get_json()["code"]) == (503, "issuer_unavailable")
    assert issuer.requests["/keys"] == 0


@pytest.mark.parametrize(
    "keys", ["7", '[{"kty": "oct", "k": "AAAA", "kid": "first"}]', '[7, {"kty": "RSA"}]']
)
def test_odd_keys_verify_nothing(site: Site, issuer: Issuer, keys: str) -> None:
    issuer.documents["/keys"] = f'{{"keys": {keys}}}'.encode()
    assert call(site, issuer.token(site.clock.now())).status_code in {401, 503}


def test_keys_at_a_named_address(site: Site, stranger: Issuer) -> None:
    made = site.service()
    trust = NewTrust(stranger.url, SUBJECT, BASE, jwks_url=f"{stranger.url}/elsewhere")
    federation.add_trust(site.ctx, audit.OPERATOR, made.id, trust)
    stranger.documents["/elsewhere"] = stranger.documents["/keys"]
    assert call(site, stranger.token(site.clock.now())).status_code == 200
    assert stranger.requests == {"/elsewhere": 1}


@pytest.mark.promise("at-once")
def test_an_ended_trust_is_refused_at_once(site: Site, issuer: Issuer, service: ServiceCaller) -> None:
    token = issuer.token(site.clock.now())
    assert call(site, token).status_code == 200
    view, _ = registry.get(site.ctx, audit.OPERATOR, service.id)
    federation.end_trust(site.ctx, audit.OPERATOR, service.id, view.trusts[0].id)
    assert call(site, token).status_code == 401


@pytest.mark.promise("at-once")
def test_a_disabled_services_workload_is_refused(site: Site, issuer: Issuer, service: ServiceCaller) -> None:
    token = issuer.token(site.clock.now())
    registry.disable(site.ctx, audit.OPERATOR, service.id)
    assert call(site, token).get_json()["code"] == "service_disabled"
    registry.end(site.ctx, audit.OPERATOR, service.id)
    assert call(site, token).status_code == 401


def test_a_token_for_two_services_is_nobodys(site: Site, issuer: Issuer) -> None:
    other = site.service()
    federation.add_trust(site.ctx, audit.OPERATOR, other.id, NewTrust(issuer.url, SUBJECT, "https://other"))
    assert call(site, issuer.token(site.clock.now(), aud=[BASE, "https://other"])).status_code == 401
    answer = call(site, issuer.token(site.clock.now(), aud=["https://other"]))
    assert answer.get_json()["id"] == other.id


def test_people_still_sign_in(site: Site, issuer: Issuer) -> None:
    assert issuer.url
    assert site.bearer().get("/v1/runs").status_code == 200
