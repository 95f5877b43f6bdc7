"""An owner's consent: what it allows, for how long, and that its end takes everything with it."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from taskcred.domain.grants import GrantEnd, GrantState
from taskcred.domain.permissions import Principal
from taskcred.errors import ConflictError, ForbiddenError, InvalidRequestError, NotFoundError
from taskcred.services import grant_endings, grants
from taskcred.store.service_tables import grants as grant_rows
from taskcred.testing import programmatic

from .conftest import Room, as_service


def _give(room: Room, owner: Principal, service_id: str, *tasks: str, days: int = 90) -> str:
    return grants.give(room.ctx, owner, service_id=service_id, tasks=tasks or ("report",), days=days).id


def _may_start(room: Room, service_id: str, grant_id: str, task: str = "report") -> Any:
    with room.ctx.store.write() as connection:
        return grants.find_for_service(room.ctx, connection, service_id, grant_id, task)


def test_a_grant_names_what_for_whom_and_until_when(room: Room) -> None:
    owner, service_id = room.owner(), room.service()
    given = grants.give(room.ctx, owner, service_id=service_id, tasks=["train", "report", "train"], days=30)
    assert given.tasks == ("report", "train")
    assert (given.state, given.iam_id, given.service_title) == (
        GrantState.ACTIVE,
        owner.iam_id,
        "Notebook server",
    )
    assert given.expires_at == room.clock.now() + timedelta(days=30)
    assert grants.list_own(room.ctx, owner) == ([given], None)
    assert grants.get(room.ctx, as_service(service_id), given.id) == given
    (event,) = room.told(service_id)
    assert (event.type, event.data["grant_id"], event.data["iam_id"]) == (
        "grant.given",
        given.id,
        owner.iam_id,
    )


@pytest.mark.promise("only-what-the-user-started")
def test_only_a_person_who_signed_in_just_now_gives_one(room: Room) -> None:
    owner, service_id = room.owner(), room.service()
    with pytest.raises(ForbiddenError) as by_program:
        _give(room, programmatic(owner.iam_id, room.account_id), service_id)
    with pytest.raises(ForbiddenError) as by_itself:
        _give(room, as_service(service_id), service_id)
    room.clock.advance(timedelta(minutes=16))
    with pytest.raises(ForbiddenError) as too_late:
        _give(room, owner, service_id)
    codes = [error.value.error_code for error in (by_program, by_itself, too_late)]
    assert codes == ["programmatic_token", "forbidden", "fresh_sign_in_required"]
    assert room.count(grant_rows) == 0


@pytest.mark.promise("empty-means-no")
@pytest.mark.parametrize("tasks", [["hidden"], ["nonsense"], ["report", "hidden"]])
def test_only_what_the_service_is_registered_for_can_be_granted(room: Room, tasks: list[str]) -> None:
    with pytest.raises(InvalidRequestError) as refused:
        grants.give(room.ctx, room.owner(), service_id=room.service(), tasks=tasks)
    assert refused.value.error_code == "task_not_offered"
    assert room.count(grant_rows) == 0


def test_no_task_is_no_consent(room: Room) -> None:
    with pytest.raises(InvalidRequestError):
        grants.give(room.ctx, room.owner(), service_id=room.service(), tasks=[])


@pytest.mark.parametrize("days", [0, -1, 366])
def test_it_lasts_a_day_to_a_year(room: Room, days: int) -> None:
    with pytest.raises(InvalidRequestError) as refused:
        _give(room, room.owner(), room.service(), days=days)
    assert refused.value.details == {"field": "days"}


@pytest.mark.parametrize(("state", "kind"), [("disabled", ConflictError), ("ended", NotFoundError)])
def test_a_service_that_is_not_active_is_given_nothing(room: Room, state: str, kind: type[Exception]) -> None:
    with pytest.raises(kind):
        _give(room, room.owner(), room.service(state=state))


def test_a_grant_is_for_its_service_and_its_tasks(room: Room) -> None:
    owner, service_id, other = room.owner(), room.service(), room.service()
    grant_id = _give(room, owner, service_id, "report")
    room.clock.advance(timedelta(hours=1))
    assert _may_start(room, service_id, grant_id).iam_id == owner.iam_id
    assert grants.get(room.ctx, owner, grant_id).last_used_at == room.clock.now()
    with pytest.raises(NotFoundError):
        _may_start(room, other, grant_id)
    with pytest.raises(ForbiddenError) as refused:
        _may_start(room, service_id, grant_id, "train")
    assert (refused.value.error_code, bool(refused.value.action_url)) == ("task_not_granted", True)


def test_a_grant_ends_on_its_date_to_the_second(room: Room) -> None:
    owner, service_id = room.owner(), room.service()
    grant_id = _give(room, owner, service_id, days=1)
    room.clock.advance(timedelta(days=1) - timedelta(seconds=1))
    _may_start(room, service_id, grant_id)
    assert grant_endings.expire_due(room.ctx) == 0
    room.clock.advance(timedelta(seconds=1))
    with pytest.raises(ForbiddenError) as refused:  # before the keeper has looked
        _may_start(room, service_id, grant_id)
    assert refused.value.error_code == "grant_expired"
    assert grants.get(room.ctx, room.signed_in(owner.iam_id), grant_id).state is GrantState.EXPIRED
    assert (grant_endings.expire_due(room.ctx), grant_endings.expire_due(room.ctx)) == (1, 0)
    assert [(event.type, event.data.get("reason")) for event in room.told(service_id)] == [
        ("grant.given", None),
        ("grant.ended", "expired"),
    ]


@pytest.mark.promise("at-once")
def test_after_its_end_nothing_is_started(room: Room) -> None:
    owner, service_id = room.owner(), room.service()
    grant_id = _give(room, owner, service_id)
    ended = grants.end(room.ctx, owner, grant_id)
    assert (ended.state, ended.end_reason) == (GrantState.ENDED, GrantEnd.OWNER)
    with pytest.raises(ForbiddenError) as refused:
        _may_start(room, service_id, grant_id)
    assert refused.value.error_code == "grant_ended"
    assert grants.end(room.ctx, owner, grant_id) == ended
    assert [event.type for event in room.told(service_id)] == ["grant.given", "grant.ended"]


def test_anothers_grant_is_not_there(room: Room) -> None:
    owner, other, service_id = room.owner(), room.owner(), room.service()
    grant_id = _give(room, owner, service_id)
    for principal in (other, as_service(room.service())):
        with pytest.raises(NotFoundError):
            grants.get(room.ctx, principal, grant_id)
        assert grants.list_own(room.ctx, principal) == ([], None)
    with pytest.raises(NotFoundError):
        grants.end(room.ctx, other, grant_id)


def test_a_new_consent_replaces_the_one_before(room: Room) -> None:
    owner, service_id = room.owner(), room.service()
    first, theirs = _give(room, owner, service_id), _give(room, room.owner(), service_id)
    second = _give(room, owner, service_id, "train")
    found, _ = grants.list_own(room.ctx, as_service(service_id))
    states = {each.id: (each.state, each.end_reason) for each in found}
    assert states == {
        first: (GrantState.ENDED, GrantEnd.REPLACED),
        theirs: (GrantState.ACTIVE, None),
        second: (GrantState.ACTIVE, None),
    }
