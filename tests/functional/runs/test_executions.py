"""External execution: begin, beat, end; what happens meanwhile; and who may not."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from taskcred.domain import keytext
from taskcred.domain.credentials import Generated
from taskcred.domain.permissions import Authentication, Principal
from taskcred.domain.runs import LOST_LIMIT, AttemptOutcome, RunState, RunView
from taskcred.errors import (
    ForbiddenError,
    InvalidRequestError,
    NotFoundError,
    TaskcredError,
    UnavailableError,
)
from taskcred.ports import AccessToken, IdentityProvider
from taskcred.services import (
    access,
    answering,
    attempts,
    credentials,
    executions,
    grant_endings,
    grants,
    overdue,
    registry,
    runs,
    starting,
    usability,
)
from taskcred.services.attempts import Begun
from taskcred.services.context import Context
from taskcred.services.events import service_of
from taskcred.services.executions import Progress
from taskcred.services.reaper import Reaper
from taskcred.store import audit, changes
from taskcred.store import tables as t
from taskcred.store import tokens as token_store
from taskcred.testing import Failure

from .conftest import WORKER, Room


@pytest.fixture
def owner(room: Room) -> Principal:
    """With a task credential."""
    owner = room.owner()
    room.give_credential(owner)
    return owner


@pytest.fixture
def service(room: Room) -> Principal:
    return room.service()


@pytest.fixture
def run(room: Room, service: Principal, owner: Principal) -> RunView:
    """Queued, for the service to carry out."""
    return room.start(service, owner, reference="cell 1")


def test_what_it_says_of_itself_is_shown_as_text(
    room: Room, service: Principal, owner: Principal, run: RunView
) -> None:
    begun = executions.begin(room.ctx, service, run.id)
    key = begun.standin_key.reveal()
    said = Progress(1, 2, f"\x9b31mred {key} \u202edlo")
    executions.heartbeat(room.ctx, service, run.id, begun.attempt_id, progress=said)
    assert runs.get(room.ctx, owner, run.id).progress_text == "\ufffd31mred tcs_*** \ufffddlo"
    executions.end(room.ctx, service, run.id, begun.attempt_id, AttemptOutcome.FAILED, reason="\x9bJ\u2028no")
    assert state(room, owner, run) == (RunState.FAILED, "\ufffdJ\ufffdno")


def is_live(room: Room, begun: Begun) -> bool:
    """Whether the attempt's stand-in key gets tokens."""
    with room.ctx.store.read() as connection:
        holder = token_store.holder_of(connection, begun.standin_key.digest())
    return holder is not None and holder.may_have_tokens


def refused(ask: Callable[[], object]) -> TaskcredError:
    """What the caller is told; there is always a cure."""
    with pytest.raises(TaskcredError) as told:
        ask()
    assert told.value.hint
    return told.value


def state(room: Room, owner: Principal, run: RunView) -> tuple[RunState, str]:
    now = runs.get(room.ctx, owner, run.id)
    return now.state, now.reason


def test_the_stand_in_key_is_told_once_and_the_executor_is_named(
    room: Room, service: Principal, owner: Principal, run: RunView
) -> None:
    begun = executions.begin(room.ctx, service, run.id)
    assert keytext.is_standin_key(begun.standin_key.reveal())
    assert is_live(room, begun)
    (attempt,) = runs.attempts(room.ctx, owner, run.id)
    assert (attempt.executor, attempt.number, attempt.addresses) == (service.iam_id, 1, None)
    assert state(room, owner, run) == (RunState.RUNNING, "")
    assert room.actions(owner)[-1] == "attempt:begin success"


def test_an_owner_carries_their_own_run_out(room: Room, owner: Principal) -> None:
    run = room.run(owner, "train")
    begun = executions.begin(room.ctx, owner, run.id)
    assert runs.attempts(room.ctx, owner, run.id)[0].executor == "owner"
    assert executions.heartbeat(room.ctx, owner, run.id, begun.attempt_id) is False
    ended = executions.end(
        room.ctx, owner, run.id, begun.attempt_id, AttemptOutcome.FAILED, reason="Exit 3.", exit_code=3
    )
    assert (ended.state, ended.reason, ended.exit_code) == (RunState.FAILED, "Exit 3.", 3)
    with room.ctx.store.read() as connection:
        found = audit.of_owner(connection, owner.account_id, owner.iam_id, limit=50)
    actors = {each.event.actor.id for each in found if each.event.action.startswith("attempt:")}
    assert actors == {owner.iam_id}


@pytest.mark.promise("empty-means-no")
def test_a_run_is_carried_out_by_whom_it_is_meant_for(
    room: Room, service: Principal, owner: Principal, run: RunView
) -> None:
    theirs, ours = room.run(owner, "train"), room.run(owner)
    by_worker = room.start(service, owner, "plain")
    begun = executions.begin(room.ctx, service, run.id)
    other, stranger = room.service(), room.owner()

    def ways(who: Principal, run_id: str) -> list[Callable[[], object]]:
        return [
            lambda: executions.begin(room.ctx, who, run_id),
            lambda: executions.heartbeat(room.ctx, who, run_id, begun.attempt_id),
            lambda: executions.end(room.ctx, who, run_id, begun.attempt_id, AttemptOutcome.FAILED),
        ]

    for who, asked in ((other, run), (stranger, run), (service, theirs), (service, ours), (stranger, theirs)):
        for ask in ways(who, asked.id):
            assert isinstance(refused(ask), NotFoundError)
    for who, asked in ((owner, run), (owner, ours), (service, by_worker)):
        for ask in ways(who, asked.id):
            assert refused(ask).error_code == "other_executor"
    for ask in ways(replace(owner, authentication=Authentication.PROGRAMMATIC), theirs.id):
        assert refused(ask).error_code == "programmatic_token"
    for ask in ways(replace(owner, authentication=Authentication.SESSION), theirs.id):
        assert isinstance(refused(ask), ForbiddenError)
    # Attempts belong to their run.
    mine = executions.begin(room.ctx, owner, theirs.id)
    assert isinstance(
        refused(lambda: executions.heartbeat(room.ctx, service, run.id, mine.attempt_id)), NotFoundError
    )
    assert is_live(room, begun)


@pytest.mark.promise("empty-means-no")
def test_a_worker_does_not_take_what_is_not_its_own(room: Room, run: RunView) -> None:
    assert attempts.begin(room.ctx, WORKER, run.id, 1) == attempts.NotBegun("superseded")
    assert room.count(t.attempts) == 0


@pytest.mark.promise("dead-with-the-run")
def test_a_new_attempt_ends_the_one_before_it(
    room: Room, service: Principal, owner: Principal, run: RunView
) -> None:
    first = executions.begin(room.ctx, service, run.id)
    second = executions.begin(room.ctx, service, run.id)
    assert (second.number, second.attempt_id == first.attempt_id) == (2, False)
    assert (is_live(room, first), is_live(room, second)) == (False, True)
    with room.ctx.store.read() as connection:
        taken = [(change.kind, change.ref) for change in changes.since(connection, 0)]
    assert ("attempt", first.attempt_id) in taken
    outcomes = [each.outcome for each in runs.attempts(room.ctx, owner, run.id)]
    assert outcomes == [AttemptOutcome.LOST, None]
    gone = refused(lambda: executions.heartbeat(room.ctx, service, run.id, first.attempt_id))
    assert (gone.error_code, gone.details["outcome"]) == ("attempt_ended", "lost")


@pytest.mark.promise("giving-up-is-visible")
def test_a_run_that_is_begun_over_and_over_fails(
    room: Room, service: Principal, owner: Principal, run: RunView
) -> None:
    for _ in range(LOST_LIMIT + 1):
        last = executions.begin(room.ctx, service, run.id)
    assert refused(lambda: executions.begin(room.ctx, service, run.id)).error_code == "finished"
    assert state(room, owner, run)[0] is RunState.FAILED
    assert not is_live(room, last)
    assert room.told(service)[-1][0] == "run.ended"


def test_a_task_that_must_not_be_tried_twice_is_not(room: Room, service: Principal, owner: Principal) -> None:
    run = room.start(service, owner, "deploy")
    executions.begin(room.ctx, service, run.id)
    assert refused(lambda: executions.begin(room.ctx, service, run.id)).error_code == "finished"
    assert state(room, owner, run)[0] is RunState.FAILED


@pytest.mark.promise("parked-not-failed")
def test_a_parked_run_says_where_its_owner_answers(room: Room, service: Principal) -> None:
    owner = room.owner()
    run = room.start(service, owner)
    told = refused(lambda: executions.begin(room.ctx, service, run.id))
    assert (told.error_code, told.action_url) == ("parked", f"https://taskcred.test/prompts/{run.prompt_id}")
    answering.answer(room.ctx, owner, run.prompt_id or "", Generated())
    assert room.told(service) == [("run.queued", {"why": "prompt_answered"})]
    assert is_live(room, executions.begin(room.ctx, service, run.id))


@pytest.mark.parametrize("change", ["deleted", "locked", "refused"])
@pytest.mark.parametrize("is_running", [False, True])
@pytest.mark.promise("parked-not-failed")
def test_a_run_whose_credential_went_away_is_parked(
    room: Room, service: Principal, owner: Principal, run: RunView, change: str, is_running: bool
) -> None:
    if is_running:
        before = executions.begin(room.ctx, service, run.id)
    _take_credential(room, owner, change)
    told = refused(lambda: executions.begin(room.ctx, service, run.id))
    now = runs.get(room.ctx, owner, run.id)
    assert now.state is RunState.WAITING_FOR_CREDENTIAL
    assert (told.error_code, told.action_url) == ("parked", f"https://taskcred.test/prompts/{now.prompt_id}")
    assert room.told(service)[-1] == ("run.waiting", {"prompt_id": now.prompt_id})
    if is_running:
        assert not is_live(room, before)


def _take_credential(room: Room, owner: Principal, change: str) -> None:
    (credential,) = credentials.list_own(room.ctx, owner)
    match change:
        case "deleted":
            credentials.delete(room.ctx, owner, credential.id)
        case "locked":
            usability.lock(room.ctx, audit.OPERATOR, credential.id, "On holiday.")
        case "rotated":
            credentials.rotate(room.ctx, owner, credential.id, source=Generated())
        case "refused":
            room.clock.advance(timedelta(hours=2))  # the cached token has run out
            room.provider.script("exchange", Failure.REFUSE)


@pytest.mark.promise("never-interrupted")
def test_an_outage_leaves_run_and_attempt_as_they_are(
    room: Room, service: Principal, owner: Principal, run: RunView
) -> None:
    room.clock.advance(timedelta(hours=2))
    room.provider.script("exchange", Failure.UNAVAILABLE)
    with pytest.raises(UnavailableError):
        executions.begin(room.ctx, service, run.id)
    assert (state(room, owner, run)[0], room.count(t.attempts)) == (RunState.QUEUED, 0)
    room.clock.advance(timedelta(minutes=1))
    begun = executions.begin(room.ctx, service, run.id)
    room.clock.advance(timedelta(hours=2))
    room.provider.script("exchange", Failure.UNAVAILABLE)
    with pytest.raises(UnavailableError):
        executions.begin(room.ctx, service, run.id)
    assert is_live(room, begun)


class _Meanwhile:
    """A provider during whose first exchange something else happens."""

    def __init__(self, inner: IdentityProvider, happens: Callable[[], object]) -> None:
        self._inner, self._happens = inner, [happens]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def exchange(self, *args: Any, **more: Any) -> AccessToken:
        while self._happens:
            self._happens.pop()()
        return self._inner.exchange(*args, **more)


def meanwhile(room: Room, happens: Callable[[], object]) -> Context:
    """A context in which `happens` comes between begin's look and its commit."""
    room.clock.advance(timedelta(hours=2))  # the cached token has run out
    return replace(room.ctx, provider=_Meanwhile(room.ctx.provider, happens))


def test_two_begins_at_once_leave_one_key(
    room: Room, service: Principal, owner: Principal, run: RunView
) -> None:
    begun: list[Begun] = []
    # The other one must not wait for the exchange that it interrupts: it finds a token in the cache.
    ctx = meanwhile(room, lambda: begun.append(_begin_from_cache(room, service, owner, run)))
    begun.append(executions.begin(ctx, service, run.id))
    assert [is_live(room, each) for each in begun] == [False, True]
    assert [each.number for each in begun] == [1, 2]


def _begin_from_cache(room: Room, service: Principal, owner: Principal, run: RunView) -> Begun:
    from taskcred.services import tokens

    (credential,) = credentials.list_own(room.ctx, owner)
    key = room.provider.add_key(owner.iam_id, owner.account_id)
    token = room.provider.exchange(key, for_run=True)
    assert credential.active_key
    with room.ctx.store.write() as connection:
        tokens.put(room.ctx, connection, credential.id, credential.active_key.id, token)
    return executions.begin(room.ctx, service, run.id)


@pytest.mark.parametrize("by_owner", [True, False])
def test_cancelled_while_it_begins(
    room: Room, service: Principal, owner: Principal, run: RunView, by_owner: bool
) -> None:
    ctx = meanwhile(room, lambda: runs.cancel(room.ctx, owner if by_owner else service, run.id))
    assert refused(lambda: executions.begin(ctx, service, run.id)).error_code == "cancelled"
    assert room.count(t.attempts) == 0


def test_what_was_asked_to_end_is_not_begun_again(
    room: Room, service: Principal, owner: Principal, run: RunView
) -> None:
    begun = executions.begin(room.ctx, service, run.id)
    runs.cancel(room.ctx, owner, run.id)
    assert refused(lambda: executions.begin(room.ctx, service, run.id)).error_code == "cancelled"
    assert state(room, owner, run) == (RunState.CANCELLED, "Cancelled by its owner.")
    assert not is_live(room, begun)


@pytest.mark.promise("at-once")
def test_the_grant_is_ended_while_a_run_under_it_begins(
    room: Room, service: Principal, owner: Principal
) -> None:
    grant = grants.give(room.ctx, owner, service_id=service_of(service), tasks=["train"], days=30)
    run = starting.start(room.ctx, service, task="train", parameters={}, grant_id=grant.id)
    ctx = meanwhile(room, lambda: grants.end(room.ctx, room.signed_in(owner.iam_id), grant.id))
    assert refused(lambda: executions.begin(ctx, service, run.id)).error_code == "cancelled"
    assert room.count(t.attempts) == 0
    assert state(room, owner, run) == (RunState.CANCELLED, "The grant it was started under was ended.")


@pytest.mark.promise("at-once")
def test_the_grant_is_ended_while_a_run_under_it_is_at_work(
    room: Room, service: Principal, owner: Principal
) -> None:
    grant = grants.give(room.ctx, owner, service_id=service_of(service), tasks=["train"], days=30)
    run = starting.start(room.ctx, service, task="train", parameters={}, grant_id=grant.id)
    begun = executions.begin(room.ctx, service, run.id)
    grants.end(room.ctx, owner, grant.id)
    assert not is_live(room, begun)
    for ask in (
        lambda: executions.heartbeat(room.ctx, service, run.id, begun.attempt_id),
        lambda: executions.end(room.ctx, service, run.id, begun.attempt_id, AttemptOutcome.SUCCEEDED),
    ):
        assert refused(ask).error_code == "attempt_ended"
    assert refused(lambda: executions.begin(room.ctx, service, run.id)).error_code == "cancelled"


@pytest.mark.promise("at-once")
def test_the_service_is_disabled_while_it_begins(
    room: Room, service: Principal, owner: Principal, run: RunView
) -> None:
    service_id = service_of(service)
    ctx = meanwhile(room, lambda: registry.disable(room.ctx, audit.OPERATOR, service_id))
    assert refused(lambda: executions.begin(ctx, service, run.id)).error_code == "service_disabled"
    assert (room.count(t.attempts), state(room, owner, run)[0]) == (0, RunState.QUEUED)
    registry.enable(room.ctx, audit.OPERATOR, service_id)
    assert is_live(room, executions.begin(room.ctx, service, run.id))


@pytest.mark.parametrize(("change", "code"), [("deleted", "parked"), ("locked", "parked")])
def test_the_credential_goes_away_while_a_run_begins(
    room: Room, service: Principal, owner: Principal, run: RunView, change: str, code: str
) -> None:
    ctx = meanwhile(room, lambda: _take_credential(room, room.signed_in(owner.iam_id), change))
    assert refused(lambda: executions.begin(ctx, service, run.id)).error_code == code
    assert state(room, owner, run)[0] is RunState.WAITING_FOR_CREDENTIAL
    assert room.count(t.attempts) == 0


@pytest.mark.promise("never-interrupted")
def test_the_key_is_rotated_while_a_run_begins(
    room: Room, service: Principal, owner: Principal, run: RunView
) -> None:
    ctx = meanwhile(room, lambda: _take_credential(room, room.signed_in(owner.iam_id), "rotated"))
    assert is_live(room, executions.begin(ctx, service, run.id))


def test_the_credential_is_replaced_while_a_run_begins(
    room: Room, service: Principal, owner: Principal, run: RunView
) -> None:
    def replace_it() -> None:
        again = room.signed_in(owner.iam_id)
        _take_credential(room, again, "deleted")
        room.give_credential(again)

    ctx = meanwhile(room, replace_it)
    told = refused(lambda: executions.begin(ctx, service, run.id))
    assert (type(told), state(room, owner, run)[0]) == (UnavailableError, RunState.QUEUED)
    assert is_live(room, executions.begin(room.ctx, service, run.id))


def test_progress_and_output_are_kept_up_to_the_tasks_limit(
    room: Room, service: Principal, owner: Principal, run: RunView
) -> None:
    begun = executions.begin(room.ctx, service, run.id)
    executions.heartbeat(
        room.ctx, service, run.id, begun.attempt_id, progress=Progress(3, 10, "three"), output="line\n"
    )
    executions.heartbeat(room.ctx, service, run.id, begun.attempt_id, output="x" * 2000)
    seen = runs.get(room.ctx, owner, run.id)
    assert (seen.progress_done, seen.progress_total, seen.progress_text) == (3, 10, "three")
    output = runs.output(room.ctx, owner, run.id)
    assert (output.text[:6], len(output.text), output.truncated) == ("line\nx", 1000, True)


@pytest.mark.promise("key-stays-home")
def test_a_stand_in_key_in_what_the_job_says_is_masked(
    room: Room, service: Principal, owner: Principal, run: RunView
) -> None:
    begun = executions.begin(room.ctx, service, run.id)
    key = begun.standin_key.reveal()
    executions.heartbeat(room.ctx, service, run.id, begun.attempt_id, output=f"apikey={key}\n{key}{key} ok")
    executions.end(
        room.ctx, service, run.id, begun.attempt_id, AttemptOutcome.FAILED, reason=f"{key} was refused."
    )
    assert runs.output(room.ctx, owner, run.id).text == "apikey=tcs_***\ntcs_***tcs_*** ok"
    assert state(room, owner, run) == (RunState.FAILED, "tcs_*** was refused.")


@pytest.mark.parametrize(
    ("outcome", "final"),
    [
        (AttemptOutcome.SUCCEEDED, RunState.SUCCEEDED),
        (AttemptOutcome.FAILED, RunState.FAILED),
        (AttemptOutcome.TIMED_OUT, RunState.FAILED),
        (AttemptOutcome.CANCELLED, RunState.CANCELLED),
    ],
)
@pytest.mark.promise("dead-with-the-run")
def test_the_end_of_the_attempt_is_the_end_of_the_run(
    room: Room, service: Principal, owner: Principal, run: RunView, outcome: AttemptOutcome, final: RunState
) -> None:
    begun = executions.begin(room.ctx, service, run.id)
    for _ in range(2):  # the second time its answer was lost
        ended = executions.end(room.ctx, service, run.id, begun.attempt_id, outcome, reason="So.")
        assert ended.state is final
    assert not is_live(room, begun)
    assert [kind for kind, _ in room.told(service)] == ["run.ended"]
    other = AttemptOutcome.FAILED if outcome is AttemptOutcome.SUCCEEDED else AttemptOutcome.SUCCEEDED
    late = refused(lambda: executions.end(room.ctx, service, run.id, begun.attempt_id, other))
    assert late.error_code == "attempt_ended"
    assert refused(lambda: executions.begin(room.ctx, service, run.id)).error_code in {
        "finished",
        "cancelled",
    }
    assert room.actions(owner)[-2:] == ["attempt:end success", "run:end success"]


def test_again_queues_the_run_for_another_attempt(room: Room, service: Principal, run: RunView) -> None:
    first = executions.begin(room.ctx, service, run.id)
    ended = executions.end(
        room.ctx, service, run.id, first.attempt_id, AttemptOutcome.FAILED, reason="No disk.", again=True
    )
    assert (ended.state, ended.attempts_made) == (RunState.QUEUED, 1)
    assert room.told(service) == [("run.queued", {"why": "again"})]
    second = executions.begin(room.ctx, service, run.id)
    assert (second.number, is_live(room, first), is_live(room, second)) == (2, False, True)
    assert room.queue.enqueued == []


@pytest.mark.promise("only-what-the-user-started")
@pytest.mark.parametrize("is_renewed", [False, True])
def test_there_is_no_other_attempt_after_the_grants_date(
    room: Room, service: Principal, owner: Principal, is_renewed: bool
) -> None:
    offer: dict[str, Any] = {"service_id": service_of(service), "tasks": ["train"]}
    grant = grants.give(room.ctx, owner, **offer, days=1)
    run = starting.start(room.ctx, service, task="train", parameters={}, grant_id=grant.id)
    begun = executions.begin(room.ctx, service, run.id)
    room.clock.advance(timedelta(days=1))
    grant_endings.expire_due(room.ctx)
    if is_renewed:
        grants.give(room.ctx, room.signed_in(owner.iam_id), **offer, days=1)
    failed = AttemptOutcome.FAILED
    ended = executions.end(room.ctx, service, run.id, begun.attempt_id, failed, reason="No disk.", again=True)
    if is_renewed:
        assert ended.state is RunState.QUEUED
        return
    why = "No disk. There is no other attempt: the grant it was started under has expired."
    assert (ended.state, ended.reason) == (RunState.FAILED, why)
    assert refused(lambda: executions.begin(room.ctx, service, run.id)).error_code == "finished"


@pytest.mark.promise("only-what-the-user-started")
@pytest.mark.parametrize("starter", ["service", "its owner", "grant"])
def test_a_run_that_its_owner_was_there_for_is_not_tried_for_ever(
    room: Room, service: Principal, owner: Principal, starter: str
) -> None:
    if starter == "grant":
        offer: dict[str, Any] = {"service_id": service_of(service), "tasks": ["train"]}
        grant_id = grants.give(room.ctx, owner, **offer, days=30).id
        run = starting.start(room.ctx, service, task="train", parameters={}, grant_id=grant_id)
    else:
        run = room.start(service, owner) if starter == "service" else room.run(owner, "train")
    executor = service if starter != "its owner" else owner
    room.clock.advance(timedelta(days=6))  # time in line does not count

    def try_it() -> RunView:
        begun = executions.begin(room.ctx, executor, run.id)
        failed = AttemptOutcome.FAILED
        return executions.end(
            room.ctx, executor, run.id, begun.attempt_id, failed, reason="No disk.", again=True
        )

    assert try_it().state is RunState.QUEUED
    room.clock.advance(timedelta(days=7))
    assert try_it().state is RunState.QUEUED
    room.clock.advance(timedelta(seconds=1))
    last = try_it()
    if starter != "service":
        assert last.state is RunState.QUEUED
        return
    why = "No disk. There is no other attempt: the first one began more than 7 days ago, and no grant is behind it."
    assert (last.state, last.reason) == (RunState.FAILED, why)


@pytest.mark.promise("only-what-the-user-started")
@pytest.mark.parametrize("before", ["queued", "parked", "queued again", "running"])
def test_no_attempt_begins_after_the_grants_date(
    room: Room, service: Principal, owner: Principal, before: str
) -> None:
    offer: dict[str, Any] = {"service_id": service_of(service), "tasks": ["train"]}
    grant = grants.give(room.ctx, owner, **offer, days=1)
    if before == "parked":
        _take_credential(room, owner, "deleted")
    run = starting.start(room.ctx, service, task="train", parameters={}, grant_id=grant.id)
    begun = None
    if before in {"queued again", "running"}:
        begun = executions.begin(room.ctx, service, run.id)
    if begun and before == "queued again":
        failed = AttemptOutcome.FAILED
        executions.end(room.ctx, service, run.id, begun.attempt_id, failed, again=True)
    room.clock.advance(timedelta(days=1))  # the keeper need not have seen it
    owner = room.signed_in(owner.iam_id)
    if begun and before == "running":
        assert executions.heartbeat(room.ctx, service, run.id, begun.attempt_id) is False  # goes on
    if before == "parked":
        assert refused(lambda: executions.begin(room.ctx, service, run.id)).error_code == "parked"
        room.give_credential(owner)
    told = refused(lambda: executions.begin(room.ctx, service, run.id))
    assert (told.error_code, told.hint) == (
        "cancelled",
        "The grant it was started under has expired. Let its job be.",
    )
    assert state(room, owner, run) == (RunState.CANCELLED, "The grant it was started under has expired.")
    ended = {"state": "cancelled", "reason_text": "The grant it was started under has expired."}
    assert room.told(service)[-1] == ("run.ended", ended)
    assert begun is None or not is_live(room, begun)
    assert room.actions(owner)[-1] == "run:end success"


def test_a_run_without_a_grant_or_with_a_renewed_one_begins_at_any_time(
    room: Room, service: Principal, owner: Principal, run: RunView
) -> None:
    offer: dict[str, Any] = {"service_id": service_of(service), "tasks": ["train"]}
    grant = grants.give(room.ctx, owner, **offer, days=1)
    granted = starting.start(room.ctx, service, task="train", parameters={}, grant_id=grant.id)
    room.clock.advance(timedelta(days=1))
    grants.give(room.ctx, room.signed_in(owner.iam_id), **offer, days=1)
    for each in (run, granted):
        assert is_live(room, executions.begin(room.ctx, service, each.id))


@pytest.mark.parametrize(
    ("outcome", "again", "field"),
    [
        (AttemptOutcome.LOST, False, "outcome"),
        (AttemptOutcome.SUCCEEDED, True, "again"),
        (AttemptOutcome.CANCELLED, True, "again"),
    ],
)
def test_what_makes_no_sense_as_an_end_is_refused(
    room: Room, service: Principal, run: RunView, outcome: AttemptOutcome, again: bool, field: str
) -> None:
    begun = executions.begin(room.ctx, service, run.id)
    told = refused(lambda: executions.end(room.ctx, service, run.id, begun.attempt_id, outcome, again=again))
    assert isinstance(told, InvalidRequestError)
    assert told.details["field"] == field
    assert is_live(room, begun)


@pytest.mark.parametrize("by_owner", [True, False])
def test_a_running_job_hears_of_its_cancellation_and_ends(
    room: Room, service: Principal, owner: Principal, run: RunView, by_owner: bool
) -> None:
    begun = executions.begin(room.ctx, service, run.id)
    runs.cancel(room.ctx, owner if by_owner else service, run.id)
    assert room.told(service) == [("run.cancel_requested", {})]
    assert executions.heartbeat(room.ctx, service, run.id, begun.attempt_id) is True
    ended = executions.end(room.ctx, service, run.id, begun.attempt_id, AttemptOutcome.FAILED, again=True)
    who = "its owner" if by_owner else "the service that started it"
    assert (ended.state, ended.reason) == (RunState.CANCELLED, f"Cancelled by {who}.")


def test_a_job_that_was_faster_than_its_cancellation_has_succeeded(
    room: Room, service: Principal, owner: Principal, run: RunView
) -> None:
    begun = executions.begin(room.ctx, service, run.id)
    runs.cancel(room.ctx, owner, run.id)
    ended = executions.end(room.ctx, service, run.id, begun.attempt_id, AttemptOutcome.SUCCEEDED)
    assert (ended.state, ended.reason) == (RunState.SUCCEEDED, "")


def _reap(room: Room, beating: Callable[[], object] = lambda: None) -> None:
    reaper = Reaper(room.ctx)
    for _ in range(5):
        reaper.reap()
        room.clock.advance(timedelta(seconds=20))
        beating()


@pytest.mark.promise("dead-with-the-run")
def test_silence_ends_the_attempt_and_the_run_is_queued_again(
    room: Room, service: Principal, owner: Principal, run: RunView
) -> None:
    pulse = room.start(service, owner)
    silent, beating = (executions.begin(room.ctx, service, each.id) for each in (run, pulse))
    _reap(room, lambda: executions.heartbeat(room.ctx, service, pulse.id, beating.attempt_id))
    assert (is_live(room, silent), is_live(room, beating)) == (False, True)
    assert state(room, owner, run)[0] is RunState.QUEUED
    assert [kind for kind, _ in room.told(service)] == ["attempt.ended", "run.queued"]
    assert room.told(service)[0][1]["outcome"] == "lost"
    assert (
        refused(
            lambda: executions.end(room.ctx, service, run.id, silent.attempt_id, AttemptOutcome.SUCCEEDED)
        ).error_code
        == "attempt_ended"
    )
    assert is_live(room, executions.begin(room.ctx, service, run.id))
    assert room.queue.enqueued == []


def test_silence_after_a_cancellation_is_the_end(
    room: Room, service: Principal, owner: Principal, run: RunView
) -> None:
    begun = executions.begin(room.ctx, service, run.id)
    runs.cancel(room.ctx, owner, run.id)
    _reap(room)
    assert state(room, owner, run) == (RunState.CANCELLED, "Cancelled by its owner.")
    assert not is_live(room, begun)


@pytest.mark.promise("giving-up-is-visible")
def test_an_executor_that_goes_on_after_it_was_told_to_end_is_ended(
    room: Room, service: Principal, owner: Principal, run: RunView
) -> None:
    begun = executions.begin(room.ctx, service, run.id)
    runs.cancel(room.ctx, owner, run.id)
    room.clock.advance(timedelta(minutes=4))
    assert (overdue.tend(room.ctx), is_live(room, begun)) == (0, True)
    room.clock.advance(timedelta(minutes=1))
    assert (overdue.tend(room.ctx), is_live(room, begun)) == (1, False)
    assert state(room, owner, run)[0] is RunState.CANCELLED
    assert overdue.tend(room.ctx) == 0


@pytest.mark.promise("giving-up-is-visible")
def test_an_attempt_ends_when_its_tasks_time_is_over(
    room: Room, service: Principal, owner: Principal
) -> None:
    run = room.start(service, owner, "deploy")
    begun = executions.begin(room.ctx, service, run.id)
    room.clock.advance(timedelta(minutes=59))
    assert overdue.tend(room.ctx) == 0
    room.clock.advance(timedelta(minutes=1))
    assert (overdue.tend(room.ctx), is_live(room, begun)) == (1, False)
    assert state(room, owner, run) == (RunState.FAILED, "It took longer than its task allows.")
    assert [(kind, data.get("outcome")) for kind, data in room.told(service)] == [
        ("attempt.ended", "timed_out"),
        ("run.ended", None),
    ]


@pytest.mark.promise("giving-up-is-visible")
def test_a_run_that_nobody_begins_for_a_week_fails(
    room: Room, service: Principal, owner: Principal, run: RunView
) -> None:
    own, at_work, ours = room.run(owner, "train"), room.start(service, owner), room.run(owner)
    executions.begin(room.ctx, service, at_work.id)
    room.clock.advance(timedelta(days=7))
    assert overdue.tend(room.ctx) == 1  # at_work, whose task's time is over
    room.clock.advance(timedelta(seconds=1))
    assert overdue.tend(room.ctx) == 2
    assert state(room, owner, run) == (
        RunState.FAILED,
        "The service that started it did not begin it within 7 days.",
    )
    assert state(room, owner, own) == (
        RunState.FAILED,
        "No program on your machine began it within 7 days.",
    )
    assert state(room, owner, ours)[0] is RunState.QUEUED  # that is our own affair
    assert ("run.ended", "failed") in [(kind, data.get("state")) for kind, data in room.told(service)]
    assert refused(lambda: executions.begin(room.ctx, service, run.id)).error_code == "finished"


@pytest.mark.promise("at-once")
def test_an_owner_takes_a_services_access_away(
    room: Room, service: Principal, owner: Principal, run: RunView
) -> None:
    begun = executions.begin(room.ctx, service, run.id, ["10.0.0.0/8"])
    (live,) = access.live_access(room.ctx, owner)
    assert (live.attempt_id, live.executor) == (begun.attempt_id, service.iam_id)
    access.end_access(room.ctx, owner, live.attempt_id)
    assert not is_live(room, begun)
    # A heartbeat says so, and there is no other attempt with another key.
    told = refused(lambda: executions.heartbeat(room.ctx, service, run.id, begun.attempt_id))
    assert told.error_code == "attempt_ended"
    assert state(room, owner, run) == (RunState.CANCELLED, "Its owner ended its access.")
    assert refused(lambda: executions.begin(room.ctx, service, run.id)).error_code == "cancelled"
    assert "run.ended" in [kind for kind, _ in room.told(service)]


def test_addresses_are_kept_in_canonical_form_and_shown(
    room: Room, service: Principal, owner: Principal, run: RunView
) -> None:
    executions.begin(room.ctx, service, run.id, ["10.0.0.0/8", "2001:DB8::0", "192.0.2.7"])
    (attempt,) = runs.attempts(room.ctx, owner, run.id)
    assert attempt.addresses == ("10.0.0.0/8", "2001:db8::/128", "192.0.2.7/32")


@pytest.mark.parametrize("address", ["10.0.0.1/8", "10.0.0.0/33", "example.org", "", "10.0.0.0/8 "])
def test_what_is_no_network_is_refused_before_anything_happens(
    room: Room, service: Principal, run: RunView, address: str
) -> None:
    told = refused(lambda: executions.begin(room.ctx, service, run.id, ["10.0.0.0/8", address]))
    assert (told.error_code, told.details["field"]) == ("invalid_request", "addresses")
    assert room.count(t.attempts) == 0


def test_only_digests_of_stand_in_keys_are_kept(room: Room, service: Principal, run: RunView) -> None:
    begun = executions.begin(room.ctx, service, run.id)
    with room.ctx.store.read() as connection:
        row = connection.execute(sa.select(t.attempts)).one()
    assert row.standin_digest == begun.standin_key.digest()
    assert begun.standin_key.reveal() not in str(row)


@pytest.mark.promise("dead-with-the-run")
def test_of_many_begins_at_once_one_key_is_alive(room: Room, service: Principal, run: RunView) -> None:
    room.clock.advance(timedelta(hours=2))  # each finds the cache empty, one exchanges
    exchanged = room.provider.calls["exchange"]
    with ThreadPoolExecutor(4) as pool:
        begun = list(pool.map(lambda _: executions.begin(room.ctx, service, run.id), range(4)))
    assert sorted(each.number for each in begun) == [1, 2, 3, 4]
    assert [each.number for each in begun if is_live(room, each)] == [4]
    assert room.provider.calls["exchange"] - exchanged == 1
