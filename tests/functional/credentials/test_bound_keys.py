"""Stand-in keys that are bound to networks: refused from elsewhere, and no burden for those that are not."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from typing import Any
from urllib.parse import urlencode

import pytest
import sqlalchemy as sa

from taskcred.domain import networks
from taskcred.domain.credentials import Generated
from taskcred.errors import KeyRefusedError, StoreBusyError
from taskcred.http.token_endpoint import TokenEndpoint
from taskcred.services import credentials
from taskcred.services.broker import TokenBroker
from taskcred.services.issued import AddressNeededError
from taskcred.store import tables as t
from taskcred.store.engine import Store

from .conftest import Attempt, World, add_attempt, end_attempt

INSIDE, OUTSIDE = "10.1.2.3", "192.0.2.9"


@pytest.fixture
def attempt(world: World) -> Attempt:
    """Its key works from 10.0.0.0/8 and one address of IPv6."""
    made = credentials.create(world.ctx, world.owner, name="work", source=Generated())
    attempt = add_attempt(world, made.credential.id)
    with world.ctx.store.write() as connection:
        connection.execute(t.attempts.update().values(addresses=["10.0.0.0/8", "2001:db8::7/128"]))
    return attempt


@pytest.fixture
def broker(world: World, attempt: Attempt) -> TokenBroker:
    assert attempt
    return TokenBroker(world.ctx)


def ask(endpoint: TokenEndpoint, attempt: Attempt, address: str, **environ: Any) -> tuple[str, Any]:
    """What a client at `address` is answered."""
    told: list[str] = []
    grant = "urn:ibm:params:oauth:grant-type:apikey"
    body = urlencode({"grant_type": grant, "apikey": attempt.key.decode()}).encode()
    answer = endpoint(
        {
            "REQUEST_METHOD": "POST",
            "PATH_INFO": "/identity/token",
            "CONTENT_LENGTH": str(len(body)),
            "REMOTE_ADDR": address,
            "wsgi.input": io.BytesIO(body),
            **environ,
        },
        lambda status, _headers: told.append(status),
    )
    return told[0], json.loads(b"".join(answer))


@pytest.mark.promise("dead-with-the-run")
def test_a_bound_key_works_from_its_networks_only(
    world: World, broker: TokenBroker, attempt: Attempt
) -> None:
    endpoint = TokenEndpoint(broker, None)
    unknown = ask(endpoint, replace(attempt, standin=attempt.standin), OUTSIDE)
    assert unknown[0] == "400 Bad Request"
    assert unknown[1]["errorCode"] == "BXNIM0415E"  # as an unknown key is told
    for address in (INSIDE, "::ffff:10.1.2.3", "2001:db8::7"):
        status, body = ask(endpoint, attempt, address)
        assert (status, body["token_type"]) == ("200 OK", "Bearer"), address
    for address in (OUTSIDE, "2001:db8::8", "", "no address"):
        assert ask(endpoint, attempt, address)[0] == "400 Bad Request", address
    forged = ask(endpoint, attempt, OUTSIDE, HTTP_X_FORWARDED_FOR=INSIDE, HTTP_FORWARDED=f"for={INSIDE}")
    assert forged[0] == "400 Bad Request"
    refused = [event for event in world.events("token:issue") if event.outcome == "refused"]
    assert [(event.details["why"], event.address) for event in refused] == [("other_network", OUTSIDE)]


def test_refusals_elsewhere_do_not_disturb_the_job(
    world: World, broker: TokenBroker, attempt: Attempt
) -> None:
    issued = broker.issue(attempt.key, INSIDE)
    for _ in range(3):
        with pytest.raises(KeyRefusedError):
            broker.issue(attempt.key, OUTSIDE)
        assert broker.issue(attempt.key, INSIDE) is issued
    world.clock.advance(timedelta(minutes=59, seconds=55))  # of the hour that the token lives
    broker._poll()
    with pytest.raises(KeyRefusedError):
        broker.issue(attempt.key, OUTSIDE)
    assert broker.issue(attempt.key, INSIDE).expires_at > issued.expires_at


@pytest.mark.promise("at-once")
def test_a_bound_key_dies_with_its_attempt(world: World, broker: TokenBroker, attempt: Attempt) -> None:
    broker.issue(attempt.key, INSIDE)
    end_attempt(world, attempt)
    with pytest.raises(KeyRefusedError):
        broker.issue(attempt.key, INSIDE)


def test_who_does_not_say_whence_is_refused(broker: TokenBroker, attempt: Attempt) -> None:
    for _ in range(2):
        with pytest.raises(AddressNeededError):
            broker.issue(attempt.key)
        broker.issue(attempt.key, INSIDE)


class _Away(Store):
    """Records that can be switched off."""

    is_away = False

    @contextmanager
    def read(self) -> Iterator[sa.Connection]:
        if self.is_away:
            raise StoreBusyError("switched off")
        with super().read() as connection:
            yield connection


def test_without_the_records_a_bound_key_is_as_bound(world: World, attempt: Attempt) -> None:
    store = _Away(world.ctx.store.engine, world.ctx.store.epoch)
    broker = TokenBroker(replace(world.ctx, store=store))
    broker.issue(attempt.key, INSIDE)
    store.is_away = True
    world.clock.advance(timedelta(seconds=2))
    for address in (OUTSIDE, "no address"):
        with pytest.raises((KeyRefusedError, StoreBusyError)):
            broker.issue(attempt.key, address)
    assert broker.issue(attempt.key, INSIDE)


def test_a_key_that_is_not_bound_is_not_asked_whence(world: World, attempt: Attempt) -> None:
    with world.ctx.store.write() as connection:
        connection.execute(t.attempts.update().values(addresses=None))
    endpoint = TokenEndpoint(TokenBroker(world.ctx), None)
    for _ in range(2):
        assert ask(endpoint, attempt, "no address")[0] == "200 OK"


@pytest.mark.parametrize("text", ["10.0.0.1/8", "10.0.0.0/33", "example.org", "", "10.0.0.0/8,10.1.0.0/16"])
def test_what_is_no_network_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        networks.read([text])
