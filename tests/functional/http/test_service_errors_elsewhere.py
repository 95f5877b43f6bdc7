"""What a service can get at the door, and from parts that are away: provoked, and each names its cure."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, Final, cast

import pytest
import sqlalchemy as sa

from taskcred.store.engine import Store
from taskcred.testing import Failure, InMemoryVault
from tests.support.service_errors import Case, Table, adder, refusing, verify
from tests.support.site import Site

CASES: Final[Table] = {}
case = adder(CASES)


@case(401, "authentication_required", leads=True)
def nobody(case: Case) -> Any:
    return case.site.client().get("/v1/events")


@case(401, "invalid_token")
def token_of_no_provider(case: Case) -> Any:
    return case.site.client({"Authorization": "Bearer nonsense"}).get("/v1/events")


@case(401, "invalid_token")
def workload_that_is_not_trusted(case: Case) -> Any:
    return case.workload("somebody-else")


@case(503, "issuer_unavailable")
def workload_whose_issuer_is_away(case: Case) -> Any:
    return case.workload("hub")


@case(403, "forbidden")
def what_only_people_do(case: Case) -> Any:
    return case.service.client.get("/v1/schedules")


@case(403, "forbidden")
def acting_for_somebody(case: Case) -> Any:
    return case.service.client.get("/v1/events", headers={"Taskcred-Act-For": "iam-ServiceId-1"})


@case(400, "invalid_cursor")
def made_up_cursor(case: Case) -> Any:
    return case.service.client.get("/v1/runs?after=abc")


@case(404, "not_found")
def grant_of_another_service(case: Case) -> Any:
    return case.site.service().client.get(f"/v1/grants/{case.grant()}")


@case(404, "not_found")
def no_such_address(case: Case) -> Any:
    return case.service.client.get("/v1/nothing")


@case(405, "method_not_allowed")
def unknown_method(case: Case) -> Any:
    return case.service.client.delete("/v1/runs")


@case(503, "vault_unreachable")
def begin_while_the_vault_is_away(case: Case) -> Any:
    case.give_credential()
    run = case.run()
    case.site.clock.advance(timedelta(hours=2))
    cast("InMemoryVault", case.site.ctx.vault).script("open", Failure.UNAVAILABLE)  # through the guard
    return case.begin(run)


@case(503, "vault_login_refused")
def begin_while_the_vault_does_not_let_us_in(case: Case) -> Any:
    return _begin_while_the_vault_refuses(case, "vault_login_refused")


@case(503, "vault_denied")
def begin_while_the_vault_denies_us_the_key(case: Case) -> Any:
    return _begin_while_the_vault_refuses(case, "vault_denied")


def _begin_while_the_vault_refuses(case: Case, code: str) -> Any:
    case.give_credential()
    run = case.run()
    case.site.clock.advance(timedelta(hours=2))
    with refusing(case.site, code):
        return case.begin(run)


@case(503, "unavailable")
def begin_while_the_credential_changes(case: Case) -> Any:
    class Late(Store):
        """The owner makes a new credential just before our transaction."""

        @contextmanager
        def write(self, *, shared: bool = False) -> Iterator[sa.Connection]:
            case.with_context(store=store)
            case.give_credential()
            with store.write() as connection:
                yield connection

    store = case.site.ctx.store
    credential = case.give_credential()
    run = case.run()
    case.site.bearer().delete(f"/v1/task_credentials/{credential}")
    case.with_context(store=Late(store.engine, store.epoch))
    return case.begin(run)


@case(500, "internal")
def mistake_of_ours(case: Case) -> Any:
    case.with_context(tasks=None)
    return case.start()


@pytest.mark.parametrize("name", CASES)
def test_each_names_its_cure(site: Site, name: str) -> None:
    status, code, leads, provoke = CASES[name]
    verify(provoke(Case(site)), status, code, leads=leads)
