"""Every error that a service can get on the routes of runs: provoked, and each names its cure."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, Final, cast

import pytest
import sqlalchemy as sa

from taskcred.domain.keytext import new_key
from taskcred.domain.policy import Policy, RunPolicy
from taskcred.domain.runs import Executor
from taskcred.errors import StoreBusyError
from taskcred.store import tables as t
from taskcred.store.engine import Store
from taskcred.testing import Failure, InMemoryVault
from tests.support.service_errors import Case, Table, adder, verify
from tests.support.site import API_KEY_GRANT, Site

CASES: Final[Table] = {}
case = adder(CASES)


@case(401, "invalid_client")
def wrong_secret(case: Case) -> Any:
    return case.site.basic(case.service.id, new_key("tcc_")).post("/v1/runs", json={"task": "train"})


@case(403, "service_disabled")
def disabled(case: Case) -> Any:
    case.disable()
    return case.start()


@case(400, "owner_required")
def for_nobody(case: Case) -> Any:
    return case.start(subject_token=None)


@case(400, "invalid_request")
def for_two_owners(case: Case) -> Any:
    return case.start(grant_id=str(uuid.uuid4()))


@case(400, "invalid_subject_token")
def no_token(case: Case) -> Any:
    return case.start(subject_token="nonsense")


@case(400, "invalid_subject_token")
def expired_token(case: Case) -> Any:
    token = case.site.subject()
    case.site.clock.advance(timedelta(hours=2))
    return case.start(subject_token=token)


@case(400, "invalid_return_to")
def way_back_to_somebody_else(case: Case) -> Any:
    case.change(callback_urls=("https://notebooks.example.test/back",))
    return case.start(return_to="https://notebooks.example.test/back/")


@case(403, "programmatic_token")
def token_of_a_program(case: Case) -> Any:
    token = case.site.subject(grant_type=API_KEY_GRANT, client_id="default")
    return case.start(subject_token=token)


@case(403, "run_token")
def token_of_a_run(case: Case) -> Any:
    token = case.site.subject(grant_type=API_KEY_GRANT, client_id="taskcred")
    return case.start(subject_token=token)


@case(403, "task_not_allowed")
def unregistered_task(case: Case) -> Any:
    case.change(tasks=("report",))
    return case.start()


@case(403, "executor_not_allowed")
def unregistered_executor(case: Case) -> Any:
    case.change(executors=(Executor.SERVICE,))
    return case.start(task="report")


@case(400, "invalid_parameters")
def wrong_parameters(case: Case) -> Any:
    return case.start(task="copy", parameters={"source": 7})


@case(400, "unknown_task")
def task_that_left_the_catalogue(case: Case) -> Any:
    case.with_context(tasks={})
    return case.start()


@case(404, "not_found")
def unknown_grant(case: Case) -> Any:
    return case.start(subject_token=None, grant_id=str(uuid.uuid4()))


@case(403, "grant_ended", leads=True)
def ended_grant(case: Case) -> Any:
    grant = case.grant()
    case.end_grant(grant)
    return case.start(subject_token=None, grant_id=grant)


@case(403, "grant_expired", leads=True)
def expired_grant(case: Case) -> Any:
    grant = case.grant()
    case.site.clock.advance(timedelta(days=1))
    return case.start(subject_token=None, grant_id=grant)


@case(403, "task_not_granted", leads=True)
def task_outside_the_grant(case: Case) -> Any:
    return case.start(subject_token=None, grant_id=case.grant("report"))


@case(429, "rate_limited")
def too_many_starts(case: Case) -> Any:
    case.change(starts_per_minute=1)
    case.run()
    return case.start()


@case(422, "too_many_waiting_runs", leads=True)
def too_many_parked(case: Case) -> Any:
    case.with_context(policy=Policy(runs=RunPolicy(max_parked=1)))
    case.run()
    return case.start()


@case(422, "idempotency_key_reused")
def key_of_another_request(case: Case) -> Any:
    case.start(key="one")
    return case.start(key="one", reference="another")


@case(409, "idempotency_in_progress")
def first_request_under_way(case: Case) -> Any:
    case.start(key="one")
    with case.site.ctx.store.write() as connection:
        connection.execute(t.idempotency.update().values(status=None, body=None))
    return case.start(key="one")


@case(503, "store_busy")
def records_away(case: Case) -> Any:
    class Away(Store):
        @contextmanager
        def write(self, *, shared: bool = False) -> Iterator[sa.Connection]:
            raise StoreBusyError("The records database is busy or away.", hint="Try again.")
            yield

    store = case.site.ctx.store
    case.with_context(store=Away(store.engine, store.epoch))
    return case.start()


@case(404, "not_found")
def run_of_somebody_else(case: Case) -> Any:
    run = case.site.bearer().post("/v1/runs", json={"task": "report"}).get_json()["id"]
    return case.service.client.get(f"/v1/runs/{run}")


@case(409, "parked", leads=True)
def begin_of_a_parked_run(case: Case) -> Any:
    return case.begin(case.run())


@case(409, "cancelled")
def begin_of_a_cancelled_run(case: Case) -> Any:
    run = case.run()
    case.site.bearer().post(f"{run}/cancel")
    return case.begin(run)


@case(409, "finished")
def begin_of_a_finished_run(case: Case) -> Any:
    case.give_credential()
    run = case.run()
    case.end(case.begun(run))
    return case.begin(run)


@case(409, "other_executor")
def begin_of_a_workers_run(case: Case) -> Any:
    return case.begin(case.run(task="report"))


@case(400, "invalid_request")
def begin_with_what_is_no_network(case: Case) -> Any:
    return case.begin(case.run(), addresses=["10.0.0.1/8"])


@case(400, "invalid_request")
def begin_as_if_a_worker(case: Case) -> Any:
    return case.begin(case.run(), dispatch_no=1)


@case(503, "identity_provider_unavailable")
def begin_while_the_provider_is_away(case: Case) -> Any:
    case.give_credential()
    run = case.run()
    case.site.clock.advance(timedelta(hours=2))
    case.site.provider.script("exchange", Failure.UNAVAILABLE)
    return case.begin(run)


@case(503, "vault_sealed")
def begin_while_the_vault_is_sealed(case: Case) -> Any:
    case.give_credential()
    run = case.run()
    case.site.clock.advance(timedelta(hours=2))
    cast("InMemoryVault", case.site.ctx.vault).script("open", Failure.REFUSE)  # through the guard
    return case.begin(run)


@case(409, "attempt_ended")
def heartbeat_of_a_replaced_attempt(case: Case) -> Any:
    case.give_credential()
    run = case.run()
    attempt = case.begun(run)
    case.begun(run)
    return case.service.client.post(f"{attempt}/heartbeat", json={})


@case(409, "attempt_ended")
def other_end_of_an_ended_attempt(case: Case) -> Any:
    case.give_credential()
    attempt = case.begun(case.run())
    case.end(attempt)
    return case.end(attempt, "failed")


@case(404, "not_found")
def heartbeat_of_no_attempt(case: Case) -> Any:
    return case.service.client.post(f"{case.run()}/attempts/{uuid.uuid4()}/heartbeat", json={})


@case(400, "invalid_request")
def success_that_is_to_be_repeated(case: Case) -> Any:
    case.give_credential()
    body = {"outcome": "succeeded", "again": True}
    return case.service.client.post(f"{case.begun(case.run())}/end", json=body)


@case(409, "run_ended")
def cancel_of_what_has_ended(case: Case) -> Any:
    case.give_credential()
    run = case.run()
    case.end(case.begun(run))
    return case.service.client.post(f"{run}/cancel")


@case(415, "unsupported_media_type")
def a_form(case: Case) -> Any:
    return case.service.client.post("/v1/runs", data={"task": "train"})


@case(413, "too_large")
def a_novel(case: Case) -> Any:
    return case.service.client.post("/v1/runs", data=b" " * (1 << 21), content_type="application/json")


@pytest.mark.parametrize("name", CASES)
def test_each_names_its_cure(site: Site, name: str) -> None:
    status, code, leads, provoke = CASES[name]
    verify(provoke(Case(site)), status, code, leads=leads)
