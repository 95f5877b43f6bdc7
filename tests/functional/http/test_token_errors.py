"""Every refusal that a job of a service can get for its stand-in key: provoked, and each names its cure."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from typing import Any, Final, cast

import pytest
import sqlalchemy as sa
from werkzeug.test import Client, TestResponse

from taskcred.domain.policy import Policy, TokenPolicy
from taskcred.errors import StoreBusyError
from taskcred.http.token_endpoint import TokenEndpoint
from taskcred.services.broker import TokenBroker
from taskcred.store.engine import Store
from taskcred.testing import Failure, InMemoryVault
from tests.support.service_errors import Case, refusing
from tests.support.site import API_KEY_GRANT, Site


class Job(Case):
    """An attempt is live, and its job has the stand-in key."""

    def __init__(self, site: Site) -> None:
        super().__init__(site)
        self.give_credential()
        self.path = self.run()
        begun = self.begin(self.path).get_json()
        self.attempt, self.key = f"{self.path}/attempts/{begun['attempt_id']}", begun["stand_in_key"]

    def ask(self, broker: TokenBroker | None = None, key: str = "") -> TestResponse:
        endpoint = Client(TokenEndpoint(broker or self.site.broker, None))
        form = {"grant_type": API_KEY_GRANT, "apikey": key or self.key}
        return endpoint.post("/identity/token", data=form)

    def expire(self) -> None:
        """The access token that was fetched for the attempt's begin, while nobody loses touch."""
        self.site.clock.advance(timedelta(hours=2))

    def broker(self, **parts: Any) -> TokenBroker:
        return TokenBroker(replace(self.site.ctx, **parts))


CASES: Final[dict[str, tuple[int, str, Callable[[Job], TestResponse]]]] = {}


def case(status: int, code: str) -> Callable[[Callable[[Job], TestResponse]], None]:
    """Put the function into the table."""

    def add(provoke: Callable[[Job], TestResponse]) -> None:
        CASES[provoke.__name__] = (status, code, provoke)

    return add


@case(400, "BXNIM0415E")
def after_the_end(job: Job) -> TestResponse:
    job.end(job.attempt)
    return job.ask()


@case(400, "BXNIM0415E")
def from_elsewhere(job: Job) -> TestResponse:
    begun = job.begin(job.path, addresses=["192.0.2.0/24"]).get_json()
    return job.ask(key=begun["stand_in_key"])


@case(429, "rate_limited")
def too_often(job: Job) -> TestResponse:
    broker = job.broker(policy=Policy(tokens=TokenPolicy(standin_rate=1, standin_burst=1)))
    assert job.ask(broker).status_code == 200
    return job.ask(broker)


@case(503, "out_of_touch")
def while_the_server_is_out_of_touch(job: Job) -> TestResponse:
    job.expire()
    return job.ask()


@case(503, "store_busy")
def while_the_records_are_away(job: Job) -> TestResponse:
    class Away(Store):
        is_away = False

        @contextmanager
        def read(self) -> Iterator[sa.Connection]:
            if self.is_away:
                raise StoreBusyError("The records database is busy or away.", hint="Try again.")
            with super().read() as connection:
                yield connection

    store = job.site.ctx.store
    away = Away(store.engine, store.epoch)
    broker = job.broker(store=away)
    away.is_away = True
    return job.ask(broker)


@case(503, "identity_provider_unavailable")
def while_the_provider_is_away(job: Job) -> TestResponse:
    job.expire()
    job.site.provider.script("exchange", Failure.UNAVAILABLE)
    return job.ask(job.broker())


@case(503, "vault_unreachable")
def while_the_vault_is_away(job: Job) -> TestResponse:
    job.expire()
    cast("InMemoryVault", job.site.ctx.vault).script("open", Failure.UNAVAILABLE)  # through the guard
    return job.ask(job.broker())


@case(503, "vault_login_refused")
def while_the_vault_does_not_let_us_in(job: Job) -> TestResponse:
    job.expire()
    with refusing(job.site, "vault_login_refused"):
        return job.ask(job.broker())


@case(503, "vault_denied")
def while_the_vault_denies_us_the_key(job: Job) -> TestResponse:
    job.expire()
    with refusing(job.site, "vault_denied"):
        return job.ask(job.broker())


@case(503, "vault_sealed")
def while_the_vault_is_sealed(job: Job) -> TestResponse:
    job.expire()
    cast("InMemoryVault", job.site.ctx.vault).script("open", Failure.REFUSE)  # through the guard
    return job.ask(job.broker())


@case(413, "request_too_large")
def with_far_too_much(job: Job) -> TestResponse:
    return job.ask(key="x" * 65_537)


@pytest.mark.parametrize("name", CASES)
def test_each_names_its_cure(site: Site, name: str) -> None:
    status, code, provoke = CASES[name]
    job = Job(site)
    answer = provoke(job)
    told = cast("dict[str, Any]", answer.get_json())
    assert (answer.status_code, told["errorCode"]) == (status, code), told
    assert told["errorMessage"]
    assert told["errorDetails"]
    assert ("Retry-After" in answer.headers) == (status in (429, 503))
    assert job.key not in answer.text
