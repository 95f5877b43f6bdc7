"""Reading, updating, rotating, locking, ending."""

from __future__ import annotations

from datetime import timedelta

import pytest

from taskcred.domain.credentials import (
    CredentialState,
    CredentialView,
    Drain,
    Generated,
    KeyState,
    Origin,
    Provided,
    RevocationReason,
)
from taskcred.errors import (
    ConflictError,
    ForbiddenError,
    InvalidRequestError,
    NotFoundError,
    StalePreconditionError,
    UnavailableError,
)
from taskcred.services import credentials, intents, usability
from taskcred.store import audit
from taskcred.store import tables as t
from taskcred.testing import Failure, programmatic

from .conftest import World, add_attempt


@pytest.fixture
def credential(world: World) -> CredentialView:
    return credentials.create(world.ctx, world.owner, name="work", source=Generated()).credential


def states(world: World, credential: CredentialView) -> list[KeyState]:
    """States of the keys, newest first."""
    return [key.state for key in credentials.keys(world.ctx, world.owner, credential.id)]


def at_provider(world: World) -> set[str]:
    """Ids of the owner's keys at the provider."""
    return {key.id for key in world.provider.keys_of(world.iam_id, world.account_id)}


# Reading and updating.


def test_only_its_owner_sees_a_credential(world: World, credential: CredentialView) -> None:
    stranger = world.principal(world.provider.add_person(world.account_id))
    for call in (credentials.get, credentials.keys, credentials.impact, credentials.delete):
        with pytest.raises(NotFoundError):
            call(world.ctx, stranger, credential.id)
    with pytest.raises(NotFoundError):
        credentials.rotate(world.ctx, stranger, credential.id, source=Generated())
    with pytest.raises(NotFoundError):
        credentials.update(world.ctx, stranger, credential.id, name="mine now")
    assert credentials.list_own(world.ctx, stranger) == []
    assert credentials.get(world.ctx, world.owner, credential.id) == credential


def test_an_update_needs_the_current_revision_if_one_is_named(
    world: World, credential: CredentialView
) -> None:
    changed = credentials.update(
        world.ctx, world.owner, credential.id, name="new", if_match=credential.revision
    )
    assert (changed.name, changed.revision) == ("new", credential.revision + 1)
    with pytest.raises(StalePreconditionError):
        credentials.update(
            world.ctx, world.owner, credential.id, description="d", if_match=credential.revision
        )
    (event,) = world.events("credential:update")
    assert event.details == {"fields": ["name"]}


def test_impact_says_what_would_break(world: World, credential: CredentialView) -> None:
    attempt = add_attempt(world, credential.id)
    impact = credentials.impact(world.ctx, world.owner, credential.id)
    assert [item.id for item in impact.live_runs] == [attempt.run_id]
    assert impact.live_tokens_until == world.clock.now() + timedelta(hours=1)
    assert impact.last_used_at == world.clock.now()
    assert (impact.schedules, impact.waiting_runs) == ((), 0)


# Rotating.


@pytest.mark.promise("never-interrupted")
def test_the_old_key_ends_when_its_last_token_has_expired(world: World, credential: CredentialView) -> None:
    assert credential.active_key is not None
    old = credential.active_key.provider_key_id
    credentials.rotate(world.ctx, world.owner, credential.id, source=Generated())

    assert states(world, credential) == [KeyState.ACTIVE, KeyState.PHASED_OUT]
    world.clock.advance(timedelta(minutes=59))
    intents.advance_due(world.ctx, "keeper")
    assert old in at_provider(world)
    world.clock.advance(timedelta(minutes=1))
    intents.advance_due(world.ctx, "keeper")
    assert old not in at_provider(world)
    assert len(world.keys_in_vault()) == 1
    assert len(world.rows(t.keys, state=KeyState.DESTROYED)) == 1


def test_the_old_key_can_end_now_or_at_a_time(world: World, credential: CredentialView) -> None:
    credentials.rotate(world.ctx, world.owner, credential.id, source=Generated(), drain=Drain("now"))
    assert states(world, credential) == [KeyState.ACTIVE, KeyState.DESTROYED]
    assert len(at_provider(world)) == 1

    at = world.clock.now() + timedelta(minutes=10)
    credentials.rotate(world.ctx, world.owner, credential.id, source=Generated(), drain=Drain("at", at))
    world.clock.advance(timedelta(minutes=10, seconds=-1))
    intents.advance_due(world.ctx, "keeper")
    assert len(at_provider(world)) == 2
    world.clock.advance(timedelta(seconds=1))
    intents.advance_due(world.ctx, "keeper")
    assert len(at_provider(world)) == 1


def test_a_time_for_the_old_key_lies_in_the_future(world: World, credential: CredentialView) -> None:
    for bad in (Drain("at"), Drain("at", world.clock.now())):
        with pytest.raises(InvalidRequestError) as caught:
            credentials.rotate(world.ctx, world.owner, credential.id, source=Generated(), drain=bad)
        assert caught.value.details["field"] == "drain"


def test_a_provided_key_is_never_touched_at_the_provider(world: World, credential: CredentialView) -> None:
    key = world.provider.add_key(world.iam_id, world.account_id)
    credentials.rotate(
        world.ctx, world.owner, credential.id, source=Provided(key), drain=Drain("now"), key_name="mine"
    )
    credentials.rotate(world.ctx, world.owner, credential.id, source=Generated(), drain=Drain("now"))
    still = world.provider.key_with(key)
    assert still is not None
    assert not still.disabled
    assert len(world.keys_in_vault()) == 1


def test_a_failed_rotation_leaves_the_old_key_at_work(world: World, credential: CredentialView) -> None:
    world.provider.script("create_key", Failure.REFUSE)
    with pytest.raises(ConflictError) as caught:
        credentials.rotate(world.ctx, world.owner, credential.id, source=Generated())
    assert caught.value.error_code == "provider_refused"
    assert states(world, credential) == [KeyState.ACTIVE]
    assert len(world.keys_in_vault()) == 1
    assert credentials.get(world.ctx, world.owner, credential.id).state is CredentialState.USABLE


@pytest.mark.promise("last-good-key")
def test_a_rotation_the_provider_was_away_for_is_finished_by_the_keeper(
    world: World, credential: CredentialView
) -> None:
    world.provider.script("create_key", Failure.UNAVAILABLE)
    rotated = credentials.rotate(world.ctx, world.owner, credential.id, source=Generated())
    assert rotated.stage == "make"
    with pytest.raises(ConflictError) as caught:
        credentials.rotate(world.ctx, world.owner, credential.id, source=Generated())
    assert caught.value.error_code == "credential_busy"
    world.clock.advance(timedelta(seconds=2))
    intents.advance_due(world.ctx, "keeper")
    assert states(world, credential) == [KeyState.ACTIVE, KeyState.PHASED_OUT]


def test_the_same_key_is_no_new_key(world: World) -> None:
    key = world.provider.add_key(world.iam_id, world.account_id)
    created = credentials.create(world.ctx, world.owner, name="work", source=Provided(key))
    with pytest.raises(ConflictError) as caught:
        credentials.rotate(world.ctx, world.owner, created.credential.id, source=Provided(key))
    assert caught.value.error_code == "key_known"


@pytest.mark.parametrize("origin", list(Origin))
def test_a_leaked_key_is_ended_at_the_provider_whoever_made_it(world: World, origin: Origin) -> None:
    pasted = world.provider.add_key(world.iam_id, world.account_id)
    source = Provided(pasted) if origin is Origin.PROVIDED else Generated(show_once=True)
    created = credentials.create(world.ctx, world.owner, name="work", source=source)
    leaked = created.shown_once or pasted
    order: list[str] = []
    world.provider.hook = order.append

    credentials.rotate(world.ctx, world.owner, created.credential.id, source=Generated(), leaked=True)

    left = world.provider.key_with(leaked)
    assert left is None or left.disabled
    ending = "disable_key" if origin is Origin.PROVIDED else "delete_key"
    assert order.index(ending) < order.index("create_key")
    (key,) = world.rows(t.keys, reason=RevocationReason.KEY_COMPROMISE)
    assert key.state == KeyState.DESTROYED
    view = credentials.get(world.ctx, world.owner, created.credential.id)
    assert view.state is CredentialState.USABLE


def test_a_leaked_key_stays_ended_when_its_successor_is_refused(world: World) -> None:
    pasted = world.provider.add_key(world.iam_id, world.account_id)
    created = credentials.create(world.ctx, world.owner, name="work", source=Provided(pasted))
    world.provider.script("create_key", Failure.REFUSE)
    with pytest.raises(ConflictError):
        credentials.rotate(world.ctx, world.owner, created.credential.id, source=Generated(), leaked=True)
    view = credentials.get(world.ctx, world.owner, created.credential.id)
    assert view.state is CredentialState.UNUSABLE
    with pytest.raises(ConflictError):  # and it cannot be brought back by pasting it again
        credentials.rotate(world.ctx, world.owner, created.credential.id, source=Provided(pasted))


@pytest.mark.parametrize("why", ["expired", "refused"])
def test_a_leaked_key_that_works_no_more_is_disabled_at_the_provider(world: World, why: str) -> None:
    expires_at = world.clock.now() + timedelta(days=1)
    pasted = world.provider.add_key(world.iam_id, world.account_id, expires_at=expires_at)
    created = credentials.create(world.ctx, world.owner, name="work", source=Provided(pasted)).credential
    if why == "expired":
        world.clock.advance(timedelta(days=1))
        intents.advance_due(world.ctx, "keeper")
    else:
        assert created.active_key is not None
        with world.ctx.store.write() as connection:
            usability.key_refused(world.ctx, connection, created.active_key, world.clock.now())
    assert credentials.get(world.ctx, world.owner, created.id).state is CredentialState.UNUSABLE
    with pytest.raises(ConflictError) as caught:
        credentials.rotate(world.ctx, world.owner, created.id, source=Provided(pasted), leaked=True)
    assert caught.value.error_code == "key_known"

    credentials.rotate(world.ctx, world.owner, created.id, source=Generated(), leaked=True)

    old = world.provider.key_with(pasted)
    assert old is not None
    assert old.disabled
    (key,) = world.rows(t.keys, reason=RevocationReason.KEY_COMPROMISE)
    assert key.state == KeyState.DESTROYED
    assert states(world, created) == [KeyState.ACTIVE, KeyState.DESTROYED]
    assert world.rows(t.intents, state="open") == []


@pytest.mark.promise("parked-not-failed")
def test_an_unusable_credential_gets_its_new_key_in_place(world: World) -> None:
    expires_at = world.clock.now() + timedelta(days=1)
    key = world.provider.add_key(world.iam_id, world.account_id, expires_at=expires_at)
    created = credentials.create(world.ctx, world.owner, name="work", source=Provided(key)).credential
    world.clock.advance(timedelta(days=1))
    intents.advance_due(world.ctx, "keeper")
    assert states(world, created) == [KeyState.EXPIRED]
    assert credentials.get(world.ctx, world.owner, created.id).state is CredentialState.UNUSABLE
    assert [row.kind for row in world.rows(t.notices)] == ["key_expired"]

    rotated = credentials.rotate(world.ctx, world.owner, created.id, source=Generated())

    assert rotated.credential.id == created.id
    assert rotated.credential.state is CredentialState.USABLE
    assert states(world, created) == [KeyState.ACTIVE, KeyState.DESTROYED]
    assert len(world.keys_in_vault()) == 1


# Ending keys.


def test_a_phased_out_key_can_be_ended_now(world: World, credential: CredentialView) -> None:
    credentials.rotate(world.ctx, world.owner, credential.id, source=Generated())
    active, old = credentials.keys(world.ctx, world.owner, credential.id)
    with pytest.raises(ConflictError) as caught:
        credentials.end_key(world.ctx, world.owner, credential.id, active.id)
    assert caught.value.error_code == "key_active"
    credentials.end_key(world.ctx, world.owner, credential.id, old.id)
    assert at_provider(world) == {active.provider_key_id}
    with pytest.raises(ConflictError) as caught:
        credentials.end_key(world.ctx, world.owner, credential.id, old.id)
    assert caught.value.error_code == "key_ended"
    with pytest.raises(NotFoundError):
        credentials.end_key(world.ctx, world.owner, credential.id, "no such key")


def test_a_key_revoked_as_leaked_stays_so(world: World, credential: CredentialView) -> None:
    world.provider.script("delete_key", Failure.UNAVAILABLE, times=None)
    credentials.rotate(world.ctx, world.owner, credential.id, source=Generated(), leaked=True)
    leaked = credentials.keys(world.ctx, world.owner, credential.id)[-1]
    assert (leaked.state, leaked.reason) == (KeyState.REVOKED, RevocationReason.KEY_COMPROMISE)
    begun = world.rows(t.intents)
    with pytest.raises(ConflictError) as caught:
        credentials.end_key(world.ctx, world.owner, credential.id, leaked.id)
    assert caught.value.error_code == "key_ended"
    assert credentials.keys(world.ctx, world.owner, credential.id)[-1] == leaked
    assert world.rows(t.intents) == begun


@pytest.mark.parametrize("reason", list(RevocationReason))
def test_deleting_a_credential_keeps_why_and_when_a_key_was_revoked(
    world: World, credential: CredentialView, reason: RevocationReason
) -> None:
    world.provider.script("delete_key", Failure.UNAVAILABLE, times=None)
    credentials.rotate(world.ctx, world.owner, credential.id, source=Generated(), leaked=True)
    leaked = credentials.keys(world.ctx, world.owner, credential.id)[-1]
    world.clock.advance(timedelta(minutes=1))

    credentials.delete(world.ctx, world.owner, credential.id, reason=reason)

    (row,) = world.rows(t.keys, id=leaked.id)
    assert (row.reason, row.ended_at) == (RevocationReason.KEY_COMPROMISE, leaked.ended_at)
    revoked = [
        event.details["reason"] for event in world.events("key:revoke") if event.target_id == leaked.id
    ]
    assert revoked == [RevocationReason.KEY_COMPROMISE]
    world.provider.recover()
    world.keep()
    assert at_provider(world) == set()
    assert world.keys_in_vault() == []


@pytest.mark.promise("giving-up-is-visible")
def test_a_provider_that_refuses_to_end_a_key_ends_in_a_visible_state(
    world: World, credential: CredentialView
) -> None:
    credentials.rotate(world.ctx, world.owner, credential.id, source=Generated())
    old = credentials.keys(world.ctx, world.owner, credential.id)[-1]
    world.provider.script("delete_key", Failure.REFUSE, times=None)
    credentials.end_key(world.ctx, world.owner, credential.id, old.id)
    world.keep()

    (given_up,) = world.rows(t.intents, state="given_up")
    assert given_up.error
    assert [event.outcome for event in world.events("intent:give_up")] == ["given_up"]
    assert [row.kind for row in world.rows(t.notices)] == ["intent_given_up"]
    # The material is kept: without it nobody could end the key any more.
    assert len(world.keys_in_vault()) == 2
    assert states(world, credential) == [KeyState.ACTIVE, KeyState.REVOKED]


@pytest.mark.promise("giving-up-is-visible")
@pytest.mark.parametrize("later", ["rotate", "delete"])
def test_a_leaked_key_that_could_not_be_ended_is_never_merely_destroyed(world: World, later: str) -> None:
    pasted = world.provider.add_key(world.iam_id, world.account_id)
    created = credentials.create(world.ctx, world.owner, name="work", source=Provided(pasted)).credential
    world.provider.script("disable_key", Failure.REFUSE, times=None)
    credentials.rotate(world.ctx, world.owner, created.id, source=Generated(), leaked=True)
    world.keep()
    assert [row.state for row in world.rows(t.intents, kind="end_key")] == ["given_up"]

    if later == "rotate":
        credentials.rotate(world.ctx, world.owner, created.id, source=Generated(), drain=Drain("now"))
    else:
        credentials.delete(world.ctx, world.owner, created.id)
    world.keep()
    (leaked,) = world.rows(t.keys, reason=RevocationReason.KEY_COMPROMISE)
    assert leaked.state == KeyState.REVOKED  # its material is kept: with it the key can still be ended
    world.provider.recover()
    for intent in intents.unfinished(world.ctx):
        intents.retry(world.ctx, audit.OPERATOR, intent.id)
    world.keep()

    left = world.provider.key_with(pasted)
    assert left is not None
    assert left.disabled
    assert world.rows(t.keys, id=leaked.id)[0].state == KeyState.DESTROYED


@pytest.mark.promise("giving-up-is-visible")
def test_an_operator_has_a_given_up_change_tried_again(world: World, credential: CredentialView) -> None:
    credentials.rotate(world.ctx, world.owner, credential.id, source=Generated())
    old = credentials.keys(world.ctx, world.owner, credential.id)[-1]
    world.provider.script("delete_key", Failure.REFUSE, times=None)
    credentials.end_key(world.ctx, world.owner, credential.id, old.id)
    assert [intent.state for intent in intents.unfinished(world.ctx)] == ["open"]
    with pytest.raises(ConflictError):
        intents.retry(world.ctx, audit.OPERATOR, intents.unfinished(world.ctx)[0].id)
    world.keep()
    (given_up,) = intents.unfinished(world.ctx)
    assert given_up.state == "given_up"
    world.clock.advance(timedelta(days=3))
    world.provider.recover()
    world.provider.script("delete_key", Failure.UNAVAILABLE, times=1)  # old as it is, it has its tries again
    intents.retry(world.ctx, audit.OPERATOR, given_up.id)
    world.keep()
    assert intents.unfinished(world.ctx) == []
    assert states(world, credential) == [KeyState.ACTIVE, KeyState.DESTROYED]
    (event,) = world.events("intent:retry")
    assert (event.actor_kind, event.details["intent"]) == ("operator", given_up.id)
    with pytest.raises(NotFoundError):
        intents.retry(world.ctx, audit.OPERATOR, "no such intent")


# Deleting.


def test_delete_ends_everything_and_a_new_one_may_be_made_at_once(
    world: World, credential: CredentialView
) -> None:
    credentials.rotate(world.ctx, world.owner, credential.id, source=Generated())
    credentials.delete(world.ctx, world.owner, credential.id)

    assert credentials.list_own(world.ctx, world.owner) == []
    with pytest.raises(NotFoundError):
        credentials.get(world.ctx, world.owner, credential.id)
    assert at_provider(world) == set()
    assert world.keys_in_vault() == []
    assert {row.state for row in world.rows(t.keys)} == {KeyState.DESTROYED}
    assert {(entry.kind, entry.ref) for entry in world.revocations.entries} >= {("credential", credential.id)}
    (tombstone,) = world.rows(t.task_credentials)
    assert tombstone.end_reason == RevocationReason.CESSATION_OF_OPERATION
    credentials.create(world.ctx, world.owner, name="next", source=Generated())


@pytest.mark.promise("at-once")
def test_delete_answers_though_vault_and_provider_are_away(world: World, credential: CredentialView) -> None:
    world.provider.script("*", Failure.UNAVAILABLE, times=None)
    world.vault.script("*", Failure.UNAVAILABLE, times=None)
    credentials.delete(world.ctx, world.owner, credential.id)
    assert credentials.list_own(world.ctx, world.owner) == []
    world.provider.recover()
    world.vault.recover()
    world.keep()
    assert at_provider(world) == set()
    assert world.keys_in_vault() == []


@pytest.mark.promise("last-good-key")
def test_deleting_while_the_first_key_is_being_made_undoes_it(world: World) -> None:
    world.provider.script("create_key", Failure.COMMIT_THEN_DROP)

    def away(method: str) -> None:
        if method == "create_key":
            world.provider.script("exchange", Failure.UNAVAILABLE)

    world.provider.hook = away
    created = credentials.create(world.ctx, world.owner, name="work", source=Generated())
    assert created.credential.state is CredentialState.CREATING
    credentials.delete(world.ctx, world.owner, created.credential.id)
    assert credentials.list_own(world.ctx, world.owner) == []
    world.keep()
    assert at_provider(world) == set()
    assert world.keys_in_vault() == []
    assert world.rows(t.task_credentials) == []


def test_a_program_may_delete_its_own(world: World) -> None:
    program = programmatic(world.iam_id, world.account_id)
    key = world.provider.add_key(world.iam_id, world.account_id)
    created = credentials.create(world.ctx, program, name="work", source=Provided(key))
    with pytest.raises(ForbiddenError):
        credentials.rotate(world.ctx, program, created.credential.id, source=Provided(key))
    credentials.delete(world.ctx, program, created.credential.id)
    assert world.keys_in_vault() == []


# Locking.


def test_a_lock_puts_the_key_aside_and_lifting_it_brings_it_back(
    world: World, credential: CredentialView
) -> None:
    credentials.lock(world.ctx, audit.OPERATOR, credential.id, "looked odd")
    locked = credentials.get(world.ctx, world.owner, credential.id)
    assert (locked.state, locked.state_reason, locked.active_key) == (
        CredentialState.LOCKED,
        "looked odd",
        None,
    )
    with pytest.raises(ConflictError) as caught:
        credentials.rotate(world.ctx, world.owner, credential.id, source=Generated())
    assert caught.value.error_code == "credential_locked"
    (held,) = credentials.keys(world.ctx, world.owner, credential.id)
    with pytest.raises(ConflictError):
        credentials.end_key(world.ctx, world.owner, credential.id, held.id)
    world.clock.advance(timedelta(days=2))
    intents.advance_due(world.ctx, "keeper")

    credentials.unlock(world.ctx, audit.OPERATOR, credential.id)
    unlocked = credentials.get(world.ctx, world.owner, credential.id)
    assert unlocked.state is CredentialState.USABLE
    assert unlocked.active_key is not None
    assert unlocked.active_key.id == held.id


def test_a_lock_in_the_middle_of_a_rotation_wins(world: World, credential: CredentialView) -> None:
    def lock_meanwhile(method: str) -> None:
        if method == "create_key":
            world.provider.hook = None
            credentials.lock(world.ctx, audit.OPERATOR, credential.id, "looked odd")

    world.provider.hook = lock_meanwhile
    with pytest.raises(ConflictError) as caught:
        credentials.rotate(world.ctx, world.owner, credential.id, source=Generated())
    assert caught.value.error_code == "credential_changed"
    assert len(at_provider(world)) == 1
    assert len(world.keys_in_vault()) == 1
    credentials.unlock(world.ctx, audit.OPERATOR, credential.id)
    assert states(world, credential) == [KeyState.ACTIVE]


def test_a_day_without_the_provider_makes_an_unfinished_rotation_undo_itself(
    world: World, credential: CredentialView
) -> None:
    world.provider.script("create_key", Failure.UNAVAILABLE, times=None)
    credentials.rotate(world.ctx, world.owner, credential.id, source=Generated())
    world.keep(rounds=2000, step=timedelta(minutes=5))
    assert [row.state for row in world.rows(t.intents, kind="rotate")] == ["rolled_back"]
    assert [row.kind for row in world.rows(t.notices)] == ["creation_failed"]
    assert len(world.keys_in_vault()) == 1


def test_a_vault_away_fails_a_rotation_and_changes_nothing(world: World, credential: CredentialView) -> None:
    world.vault.script("store", Failure.REFUSE)
    with pytest.raises(UnavailableError):
        credentials.rotate(world.ctx, world.owner, credential.id, source=Generated())
    assert states(world, credential) == [KeyState.ACTIVE]
