"""Runs that services start, and runs that are carried out elsewhere, as their owner sees them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from taskcred.domain.permissions import Authentication, Principal
from taskcred.domain.runs import Executor
from taskcred.domain.tasks import Task, TaskKind
from taskcred.services import executions, registry, runs, starting
from taskcred.store import audit
from tests.browser.house import TASKS, House, Resident
from tests.functional.web.conftest import Client, post

NOTEBOOK = Task("notebook", TaskKind.EXTERNAL, title="Run a notebook")


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """A server with a task that a service carries out."""
    opened = House(tmp_path_factory.mktemp("house"), {**TASKS, NOTEBOOK.name: NOTEBOOK})
    yield opened
    opened.close()


@pytest.fixture
def service(house: House) -> Principal:
    service_id = house.service()
    both = registry.Change(executors=(Executor.SERVICE, Executor.WORKER))
    registry.update(house.ctx, audit.OPERATOR, service_id, both)
    return Principal(f"service:{service_id}", "", Authentication.SERVICE)


def start(house: House, service: Principal, who: Resident, task: str = "notebook") -> runs.RunView:
    subject = Principal(who.iam_id, who.account_id, Authentication.INTERACTIVE)
    return starting.start(
        house.ctx, service, task=task, parameters={}, subject=subject, reference="report.ipynb <7>"
    )


def test_what_is_carried_out_elsewhere_is_not_offered(house: House, ada: Resident, client: Client) -> None:
    browser = client(ada)
    assert "notebook" not in browser.get("/tasks").text
    page = browser.get("/tasks/notebook").text
    assert "does not carry this task out" in page
    assert "taskcred exec" in page
    assert "<form" not in page.partition("<main")[2]
    for action in ("run", "schedule"):
        post(browser, "/tasks/notebook", action=action, once="0" * 32)
    post(browser, "/schedules/new/notebook", name="n", cron="0 2 * * *", timezone="UTC", misfire="skip")
    assert runs.list_own(house.ctx, ada.principal)[0] == []
    assert "notebook" not in browser.get("/schedules").text


@pytest.mark.parametrize(
    ("task", "who"), [("notebook", "the service Notebook server"), ("count-keys", "a worker")]
)
def test_a_services_run_says_for_whom_and_by_whom(
    house: House, ada: Resident, client: Client, service: Principal, task: str, who: str
) -> None:
    house.give_key(ada)
    run = start(house, service, ada, task)
    listed, shown = client(ada).get("/runs").text, client(ada).get(f"/runs/{run.id}").text
    for page in (listed, shown):
        assert "by <bdi>Notebook server</bdi>" in page
        assert "<bdi>report.ipynb &lt;7&gt;</bdi>" in page
    assert (f"carried out by {who}" in listed) == (task == "notebook")
    assert f"{who[0].upper()}{who[1:]}" in shown
    assert ("Begins as soon as Notebook server takes it up." in shown) == (task == "notebook")


def test_the_attempt_says_who_has_the_key_and_from_where_it_works(
    house: House, ada: Resident, client: Client, service: Principal
) -> None:
    house.give_key(ada)
    run = start(house, service, ada)
    begun = executions.begin(house.ctx, service, run.id, ["10.0.0.0/8", "192.0.2.7"])
    browser = client(ada)
    page = browser.get(f"/runs/{run.id}").text
    assert "from 10.0.0.0/8, 192.0.2.7/32 only" in page
    assert "at Notebook server" in browser.get("/profile/tokens").text
    runs.cancel(house.ctx, ada.principal, run.id)
    page = browser.get(f"/runs/{run.id}").text
    assert "Being cancelled since" in page
    assert "Cancelled by" not in page  # not yet
    assert begun.standin_key.reveal() not in page


def test_an_owners_own_run_is_carried_out_on_their_machine(
    house: House, ada: Resident, client: Client
) -> None:
    house.give_key(ada)
    me = Principal(ada.iam_id, ada.account_id, Authentication.INTERACTIVE, auth_time=house.ctx.clock.now())
    run = runs.start(house.ctx, me, task="notebook", parameters={})
    executions.begin(house.ctx, me, run.id)
    page = client(ada).get(f"/runs/{run.id}").text
    assert page.count("You, on your own machine") == 2
    assert "on your own machine" in client(ada).get("/profile/tokens").text
    assert "Run this task again" not in page
