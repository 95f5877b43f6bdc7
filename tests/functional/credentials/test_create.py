"""Creating a task credential."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import pytest

from taskcred.domain import keytext
from taskcred.domain.credentials import CredentialState, Generated, KeyState, Origin, Provided
from taskcred.domain.secret import Secret
from taskcred.errors import ConflictError, ForbiddenError, InvalidRequestError, UnavailableError
from taskcred.services import credentials, tokens
from taskcred.store import tables as t
from taskcred.testing import Failure, programmatic

from .conftest import World


def test_a_provided_key_is_usable_at_once(world: World) -> None:
    expires_at = world.clock.now() + timedelta(days=90)
    key = world.provider.add_key(world.iam_id, world.account_id, name="laptop", expires_at=expires_at)

    created = credentials.create(world.ctx, world.owner, name="work", source=Provided(key))

    assert created.stage == "done"
    assert created.shown_once is None
    view = created.credential
    assert view.state is CredentialState.USABLE
    assert view.active_key is not None
    assert view.active_key.origin is Origin.PROVIDED
    assert view.active_key.name == "laptop"
    assert view.active_key.last_four == key.last_four
    assert view.active_key.expires_at == expires_at
    path = f"credentials/{view.id}/{view.active_key.id}"
    assert world.vault.records[path] == key
    (cached,) = world.rows(t.access_tokens)
    assert tokens.is_run_token(world.ctx, cached.digest)
    assert len(world.events("credential:create")) == 1


def test_a_generated_key_is_made_at_the_provider_with_our_value(world: World) -> None:
    created = credentials.create(world.ctx, world.owner, name="work", source=Generated(show_once=True))

    assert created.stage == "done"
    key = created.credential.active_key
    assert key is not None
    assert key.origin is Origin.GENERATED
    assert created.shown_once is not None
    made = world.provider.key_with(created.shown_once)
    assert made is not None
    assert made.id == key.provider_key_id
    assert made.name == f"taskcred {created.credential.id}.{key.id}"


@pytest.mark.promise("last-good-key")
def test_a_holder_that_comes_late_does_not_replace_a_value_that_was_sealed(world: World) -> None:
    """Two hold the change one after the other, and the first wakes up before its vault call: were the second's
    value replaced then, the key that the second makes of it would be nobody's."""
    sealed = keytext.new_key(keytext.USER_KEY_PREFIX)

    def meanwhile(method: str) -> None:
        if method == "store":
            (intent,) = world.rows(t.intents)
            world.vault.records[f"credentials/{intent.credential_id}/{intent.data['key_id']}"] = sealed

    world.vault.hook = meanwhile
    created = credentials.create(world.ctx, world.owner, name="work", source=Generated())

    assert created.credential.active_key is not None
    path = f"credentials/{created.credential.id}/{created.credential.active_key.id}"
    assert world.vault.records[path] == sealed
    assert world.provider.key_with(sealed) is not None


@pytest.mark.parametrize(
    ("wish", "life"),
    [
        (lambda _now: Generated(), timedelta(days=90)),
        (lambda now: Generated(expires_at=now + timedelta(days=7)), timedelta(days=7)),
        (lambda _now: Generated(never_expires=True), None),
    ],
)
def test_a_generated_key_expires_unless_its_owner_says_that_it_never_does(
    world: World, wish: Callable[[datetime], Generated], life: timedelta | None
) -> None:
    source = wish(world.clock.now())
    key = credentials.create(world.ctx, world.owner, name="work", source=source).credential.active_key

    assert key is not None
    assert key.expires_at == (world.clock.now() + life if life else None)
    (made,) = world.provider.keys_of(world.iam_id, world.account_id)
    assert made.expires_at == key.expires_at


def test_an_end_and_no_end_exclude_each_other(world: World) -> None:
    both = Generated(expires_at=world.clock.now() + timedelta(days=7), never_expires=True)
    with pytest.raises(InvalidRequestError) as refused:
        credentials.create(world.ctx, world.owner, name="work", source=both)
    assert refused.value.details["field"] == "never_expires"


def test_a_generated_key_is_called_like_its_task_credential_unless_it_was_named(world: World) -> None:
    created = credentials.create(world.ctx, world.owner, name="work", source=Generated())
    assert created.credential.active_key is not None
    assert created.credential.active_key.name == "work"
    rotated = credentials.rotate(
        world.ctx, world.owner, created.credential.id, source=Generated(), key_name="autumn"
    )
    assert rotated.credential.active_key is not None
    assert rotated.credential.active_key.name == "autumn"


def test_a_generated_key_is_not_shown_unasked(world: World) -> None:
    assert credentials.create(world.ctx, world.owner, name="work", source=Generated()).shown_once is None


@pytest.mark.promise("one-per-owner")
@pytest.mark.parametrize("source", ["provided", "generated"])
def test_of_64_creates_at_once_one_wins_and_the_others_leave_nothing(world: World, source: str) -> None:
    key = world.provider.add_key(world.iam_id, world.account_id)
    keys_before = len(world.provider.keys_of(world.iam_id, world.account_id))
    outcomes: list[object] = []
    start = threading.Barrier(64)

    def post() -> None:
        chosen = Provided(key) if source == "provided" else Generated()
        start.wait()
        try:
            outcomes.append(credentials.create(world.ctx, world.owner, name="work", source=chosen))
        except ConflictError as error:
            outcomes.append(error)

    threads = [threading.Thread(target=post) for _ in range(64)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    conflicts = [outcome for outcome in outcomes if isinstance(outcome, ConflictError)]
    assert len(outcomes) == 64
    assert len(conflicts) == 63
    (own,) = credentials.list_own(world.ctx, world.owner)
    assert {(c.error_code, c.details["existing_id"]) for c in conflicts} == {("credential_exists", own.id)}
    assert len(world.keys_in_vault()) == 1
    made = len(world.provider.keys_of(world.iam_id, world.account_id)) - keys_before
    assert made == (1 if source == "generated" else 0)


def _of_somebody_else(world: World) -> Secret:
    return world.provider.add_key(world.provider.add_person(world.account_id), world.account_id)


def _of_other_account(world: World) -> Secret:
    return world.provider.add_key(world.iam_id, world.provider.add_account("other"))


def _expired(world: World) -> Secret:
    return world.provider.add_key(
        world.iam_id, world.account_id, expires_at=world.clock.now() - timedelta(seconds=1)
    )


@pytest.mark.parametrize(
    ("make_key", "code"),
    [
        (lambda _world: keytext.new_key(keytext.USER_KEY_PREFIX), "key_refused"),
        (_expired, "key_refused"),
        (_of_somebody_else, "key_of_other_owner"),
        (_of_other_account, "key_of_other_owner"),
        (lambda _world: keytext.new_key(keytext.STANDIN_KEY_PREFIX), "key_is_standin"),
        (lambda _world: Secret(""), "key_malformed"),
        (lambda _world: Secret("with a space in the middle of it"), "key_malformed"),
        (lambda _world: Secret("x" * 513), "key_malformed"),
        (lambda _world: Secret(keytext.new_key("tcu_").reveal()[:-1] + "!"), "key_malformed"),
    ],
)
def test_a_key_that_will_not_do_leaves_nothing(
    world: World, make_key: Callable[[World], Secret], code: str
) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        credentials.create(world.ctx, world.owner, name="work", source=Provided(make_key(world)))

    assert caught.value.error_code == code
    assert caught.value.hint
    assert credentials.list_own(world.ctx, world.owner) == []
    assert world.rows(t.task_credentials) == []
    assert world.keys_in_vault() == []
    assert world.rows(t.intents, state="open") == []


@pytest.mark.parametrize(
    ("port", "method"), [("provider", "exchange"), ("provider", "key_details"), ("vault", "store")]
)
def test_a_part_that_is_away_fails_a_provided_create_and_leaves_nothing(
    world: World, port: str, method: str
) -> None:
    key = world.provider.add_key(world.iam_id, world.account_id)
    getattr(world, port).script(method, Failure.UNAVAILABLE)

    with pytest.raises(UnavailableError):
        credentials.create(world.ctx, world.owner, name="work", source=Provided(key))

    assert credentials.list_own(world.ctx, world.owner) == []
    world.keep()
    assert world.keys_in_vault() == []
    credentials.create(world.ctx, world.owner, name="work", source=Provided(key))


def test_a_vault_that_stays_away_does_not_block_the_next_try(world: World) -> None:
    key = world.provider.add_key(world.iam_id, world.account_id)
    world.vault.script("store", Failure.COMMIT_THEN_DROP)
    world.vault.script("destroy", Failure.UNAVAILABLE, times=None)

    with pytest.raises(UnavailableError):
        credentials.create(world.ctx, world.owner, name="work", source=Provided(key))
    created = credentials.create(world.ctx, world.owner, name="work", source=Provided(key))

    world.vault.recover()
    world.keep()
    assert created.credential.active_key is not None
    assert world.keys_in_vault() == [
        f"credentials/{created.credential.id}/{created.credential.active_key.id}"
    ]


def test_a_provider_that_tells_nothing_of_a_provided_key_is_tolerated(world: World) -> None:
    key = world.provider.add_key(world.iam_id, world.account_id)
    world.provider.script("key_details", Failure.REFUSE, times=None)

    created = credentials.create(world.ctx, world.owner, name="work", source=Provided(key))

    assert created.credential.active_key is not None
    assert created.credential.active_key.provider_key_id is None


def test_a_provider_that_refuses_to_make_a_key_says_why_and_leaves_nothing(world: World) -> None:
    world.provider.script("create_key", Failure.REFUSE)

    with pytest.raises(ConflictError) as caught:
        credentials.create(world.ctx, world.owner, name="work", source=Generated())

    assert caught.value.error_code == "provider_refused"
    assert world.rows(t.task_credentials) == []
    assert world.keys_in_vault() == []
    assert world.provider.keys_of(world.iam_id, world.account_id) == []


@pytest.mark.promise("last-good-key")
def test_a_lost_answer_of_the_provider_is_decided_by_a_live_exchange(world: World) -> None:
    world.provider.script("create_key", Failure.COMMIT_THEN_DROP)

    created = credentials.create(world.ctx, world.owner, name="work", source=Generated())

    assert created.stage == "done"
    assert len(world.provider.keys_of(world.iam_id, world.account_id)) == 1


@pytest.mark.promise("last-good-key")
def test_a_provider_that_goes_away_in_the_middle_is_asked_again_by_the_keeper(world: World) -> None:
    def away_from_now_on(method: str) -> None:
        if method == "create_key":
            world.provider.script("exchange", Failure.UNAVAILABLE, times=None)

    world.provider.hook = away_from_now_on
    world.provider.script("create_key", Failure.COMMIT_THEN_DROP)

    created = credentials.create(world.ctx, world.owner, name="work", source=Generated())
    assert created.stage == "make"
    assert created.credential.state is CredentialState.CREATING

    world.provider.recover()
    world.keep()
    (own,) = credentials.list_own(world.ctx, world.owner)
    assert own.state is CredentialState.USABLE
    assert len(world.provider.keys_of(world.iam_id, world.account_id)) == 1


@pytest.mark.promise("giving-up-is-visible")
def test_a_create_that_cannot_be_finished_without_its_owner_is_undone_and_told(world: World) -> None:
    world.provider.script("create_key", Failure.UNAVAILABLE)

    created = credentials.create(world.ctx, world.owner, name="work", source=Generated())
    assert created.stage == "make"
    world.keep()

    assert world.rows(t.task_credentials) == []
    assert world.keys_in_vault() == []
    assert [row.kind for row in world.rows(t.notices)] == ["creation_failed"]


def test_a_program_may_store_its_own_key_but_not_have_one_made(world: World) -> None:
    program = programmatic(world.iam_id, world.account_id)
    with pytest.raises(ForbiddenError) as caught:
        credentials.create(world.ctx, program, name="work", source=Generated())
    assert caught.value.error_code == "programmatic_token"

    key = world.provider.add_key(world.iam_id, world.account_id)
    created = credentials.create(world.ctx, program, name="work", source=Provided(key))
    assert created.credential.active_key is not None
    assert created.credential.active_key.state is KeyState.ACTIVE


@pytest.mark.parametrize(
    "bad",
    [
        {"name": ""},
        {"name": "  "},
        {"name": "x" * 257},
        {"name": "a\x00b"},
        {"name": "ok", "description": "x" * 1025},
        {"name": "ok", "scope": {"project_id": "x" * 5000}},
        {"name": "ok", "key_name": "x" * 257},
    ],
)
def test_bad_words_are_refused_before_anything_is_stored(world: World, bad: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        credentials.create(world.ctx, world.owner, source=Generated(), **bad)
    assert caught.value.details["field"]
    assert world.rows(t.intents) == []


@pytest.mark.promise("last-good-key")
def test_a_process_that_stood_still_takes_back_what_it_made_too_late(world: World) -> None:
    """Frozen before its call to the provider; meanwhile the keeper found no key and undid the intent."""

    def stand_still(method: str) -> None:
        if method == "create_key":
            world.provider.hook = None
            world.clock.advance(timedelta(seconds=31))
            world.keep()

    world.provider.hook = stand_still
    with pytest.raises(ConflictError) as caught:
        credentials.create(world.ctx, world.owner, name="work", source=Generated())

    assert caught.value.error_code == "interrupted"
    assert world.provider.keys_of(world.iam_id, world.account_id) == []
    assert world.keys_in_vault() == []
    assert world.rows(t.task_credentials) == []
