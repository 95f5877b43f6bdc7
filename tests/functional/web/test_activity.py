"""Activity: a person finds what was done in their name, and by whom."""

from __future__ import annotations

from taskcred.domain.permissions import Authentication, Principal
from taskcred.domain.runs import Executor
from taskcred.services import registry, starting
from taskcred.store import audit
from tests.browser.house import House, Resident
from tests.functional.web.conftest import Client


def test_a_service_is_named(house: House, ada: Resident, client: Client) -> None:
    new = registry.NewService(
        "notebooks", ("count-keys",), executors=(Executor.WORKER,), title="Notebook server"
    )
    made = registry.create(house.ctx, audit.OPERATOR, new).service
    caller = Principal(f"service:{made.id}", "", Authentication.SERVICE)
    starting.start(house.ctx, caller, task="count-keys", parameters={}, subject=_there(ada))
    registry.end(house.ctx, audit.OPERATOR, made.id)
    page = client(ada).get("/profile/activity").text
    assert "The service Notebook server" in page
    assert f"service:{made.id}" in client(ada).get("/profile/activity.csv").text


def _there(who: Resident) -> Principal:
    """As their access token says who they are."""
    return Principal(who.iam_id, who.account_id, Authentication.INTERACTIVE)
