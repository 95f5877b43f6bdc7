"""Stand-in keys and the broker."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

import jwt
import pytest
import sqlalchemy as sa

from taskcred.domain import keytext
from taskcred.domain.credentials import CredentialView, Generated
from taskcred.domain.policy import Policy, TokenPolicy
from taskcred.errors import (
    KeyRefusedError,
    OutOfTouchError,
    RateLimitedError,
    StoreBusyError,
    UnavailableError,
)
from taskcred.services import access, credentials, tokens
from taskcred.services.broker import TokenBroker
from taskcred.store import audit, changes
from taskcred.store import tables as t
from taskcred.store.engine import Store
from taskcred.testing import Failure

from .conftest import Attempt, World, add_attempt, end_attempt


class Outage(Store):
    """Records that can be switched off, and that let something happen after a commit."""

    def __init__(self, inner: Store) -> None:
        super().__init__(inner.engine, inner.epoch)
        self.is_away = False
        self.after_write: Callable[[], None] | None = None  # what happens once, right after a commit

    @contextmanager
    def write(self, *, shared: bool = False) -> Iterator[sa.Connection]:
        if self.is_away:
            raise StoreBusyError("switched off")
        with super().write(shared=shared) as connection:
            yield connection
        then, self.after_write = self.after_write, None
        if then:
            then()

    @contextmanager
    def read(self) -> Iterator[sa.Connection]:
        if self.is_away:
            raise StoreBusyError("switched off")
        with super().read() as connection:
            yield connection


@pytest.fixture
def credential(world: World) -> CredentialView:
    world.ctx = replace(world.ctx, store=Outage(world.ctx.store))
    return credentials.create(world.ctx, world.owner, name="work", source=Generated()).credential


@pytest.fixture
def attempt(world: World, credential: CredentialView) -> Attempt:
    return add_attempt(world, credential.id)


@pytest.fixture
def broker(world: World, attempt: Attempt) -> TokenBroker:
    assert attempt
    return TokenBroker(world.ctx)


def token_of(world: World, broker: TokenBroker, attempt: Attempt) -> str:
    answer = json.loads(broker.issue(attempt.key).body(world.clock.now().timestamp()))
    return cast("str", answer["access_token"])


def test_a_stand_in_key_gets_the_owners_token(world: World, broker: TokenBroker, attempt: Attempt) -> None:
    token = world.provider.verify(token_of(world, broker, attempt))
    assert (token.iam_id, token.account_id) == (world.iam_id, world.account_id)
    assert tokens.is_run_token(world.ctx, token.token.digest())


@pytest.mark.promise("audited-or-refused")
def test_the_first_hand_out_is_audited_and_repeats_are_counted(
    world: World, broker: TokenBroker, attempt: Attempt
) -> None:
    for _ in range(5):
        broker.issue(attempt.key)
    broker.close()

    (event,) = world.events("token:issue")
    assert event.run_id == attempt.run_id
    (view,) = access.run_access(world.ctx, world.owner, attempt.run_id)
    assert [item.uses for item in view.tokens] == [5]


@pytest.mark.promise("audited-or-refused")
def test_counts_survive_an_outage(world: World, broker: TokenBroker, attempt: Attempt) -> None:
    broker.issue(attempt.key)
    store = cast("Outage", world.ctx.store)
    store.is_away = True
    broker._flush()
    broker.issue(attempt.key)
    store.is_away = False
    broker.close()
    (view,) = access.run_access(world.ctx, world.owner, attempt.run_id)
    assert [item.uses for item in view.tokens] == [2]


@pytest.mark.promise("audited-or-refused")
def test_no_token_leaves_without_its_audit_event(
    world: World, broker: TokenBroker, attempt: Attempt, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_args: Any) -> None:
        raise StoreBusyError("no room for audit events")

    monkeypatch.setattr(audit, "append", full)
    with pytest.raises(UnavailableError):
        broker.issue(attempt.key)
    assert world.rows(t.attempt_tokens) == []


def test_64_threads_at_once_are_one_first_hand_out(
    world: World, broker: TokenBroker, attempt: Attempt
) -> None:
    start = threading.Barrier(64)

    def ask() -> None:
        start.wait()
        broker.issue(attempt.key)

    threads = [threading.Thread(target=ask) for _ in range(64)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    broker.close()
    assert len(world.events("token:issue")) == 1
    (row,) = world.rows(t.attempt_tokens)
    assert row.uses == 64


def _end(world: World, _credential: CredentialView, attempt: Attempt) -> None:
    end_attempt(world, attempt)


def _lock(world: World, credential: CredentialView, _attempt: Attempt) -> None:
    credentials.lock(world.ctx, audit.OPERATOR, credential.id, "looked odd")


def _delete(world: World, credential: CredentialView, _attempt: Attempt) -> None:
    credentials.delete(world.ctx, world.owner, credential.id)


def _end_access(world: World, _credential: CredentialView, attempt: Attempt) -> None:
    access.end_access(world.ctx, world.owner, attempt.id)


@pytest.mark.promise("at-once")
@pytest.mark.parametrize("take_away", [_end, _lock, _delete, _end_access])
def test_what_is_taken_away_is_refused_by_the_next_request(
    world: World,
    credential: CredentialView,
    broker: TokenBroker,
    attempt: Attempt,
    take_away: Callable[[World, CredentialView, Attempt], None],
) -> None:
    broker.issue(attempt.key)
    take_away(world, credential, attempt)
    with pytest.raises(KeyRefusedError):
        broker.issue(attempt.key)


@pytest.mark.promise("at-once")
def test_what_another_process_takes_away_is_refused_by_the_next_request(
    broker: TokenBroker, attempt: Attempt, tmp_path: Path
) -> None:
    broker.issue(attempt.key)
    script = f"""
from datetime import UTC, datetime
from pathlib import Path
from taskcred.store import changes, tables as t
from taskcred.store.engine import Store
from taskcred.store.epoch import Epoch
from taskcred.testing import records_engine
place = Path({str(tmp_path)!r})
with Store(records_engine(place), Epoch(place / "epoch")).write() as connection:
    connection.execute(t.attempts.update().values(outcome="succeeded"))
    changes.append(connection, "attempt", {attempt.id!r}, datetime.now(UTC))
"""
    subprocess.run([sys.executable, "-c", script], check=True)
    with pytest.raises(KeyRefusedError):
        broker.issue(attempt.key)


@pytest.mark.promise("at-once")
def test_a_writer_that_dies_before_it_bumps_is_heard_at_the_next_reading(
    world: World, broker: TokenBroker, attempt: Attempt
) -> None:
    broker.issue(attempt.key)
    with world.ctx.store.engine.begin() as connection:  # past Store.write, so without a bump
        connection.execute(t.attempts.update().values(outcome="lost"))
        changes.append(connection, "attempt", attempt.id, world.clock.now())
    broker.issue(attempt.key)
    broker._poll()
    with pytest.raises(KeyRefusedError):
        broker.issue(attempt.key)


@pytest.mark.promise("at-once")
def test_an_answer_read_before_a_change_is_not_remembered_after_it(
    world: World, broker: TokenBroker, attempt: Attempt
) -> None:
    """Between the transaction that read the attempt as live and the entry made of it, the attempt ends and
    another request has this process read the change."""

    def meanwhile() -> None:
        end_attempt(world, attempt)
        broker.refresh_changes()

    cast("Outage", world.ctx.store).after_write = meanwhile
    with pytest.raises(KeyRefusedError):
        broker.issue(attempt.key)
    assert broker.known == 0


@pytest.mark.promise("dead-with-the-run")
def test_use_after_the_end_raises_one_alarm_a_minute(
    world: World, broker: TokenBroker, attempt: Attempt
) -> None:
    end_attempt(world, attempt)

    def use() -> None:
        with pytest.raises(KeyRefusedError):
            broker.issue(attempt.key)

    for _ in range(20):
        use()
    alarms = world.events("token:issue")
    assert [(alarm.outcome, alarm.details["why"]) for alarm in alarms] == [("refused", "attempt_ended")]
    world.clock.advance(timedelta(seconds=61))
    broker._poll()
    use()
    assert world.events("token:issue")[-1].details["earlier_uses"] == 19


def test_an_unknown_key_is_refused_without_a_trace(world: World, broker: TokenBroker) -> None:
    with pytest.raises(KeyRefusedError):
        broker.issue(keytext.new_key(keytext.STANDIN_KEY_PREFIX).reveal().encode())
    assert world.events("token:issue") == []


def test_each_stand_in_key_has_its_limit(world: World, attempt: Attempt) -> None:
    policy = Policy(tokens=TokenPolicy(standin_rate=2, standin_burst=3))
    broker = TokenBroker(replace(world.ctx, policy=policy))
    for _ in range(3):
        broker.issue(attempt.key)
    with pytest.raises(RateLimitedError):
        broker.issue(attempt.key)
    world.clock.advance(timedelta(seconds=1))
    broker.issue(attempt.key)
    broker.issue(attempt.key)
    with pytest.raises(RateLimitedError):
        broker.issue(attempt.key)


def test_a_slow_exchange_does_not_count_against_the_limit(
    world: World, credential: CredentialView, attempt: Attempt
) -> None:
    policy = Policy(tokens=TokenPolicy(standin_rate=2, standin_burst=3))
    broker = TokenBroker(replace(world.ctx, policy=policy))
    with world.ctx.store.write() as connection:
        connection.execute(t.access_tokens.delete().where(t.access_tokens.c.credential_id == credential.id))
    world.provider.hook = lambda _method: world.clock.advance(timedelta(seconds=5))
    broker.issue(attempt.key)


@pytest.mark.promise("at-once")
@pytest.mark.parametrize("grace", [0, 60])
def test_out_of_touch_goes_on_for_the_grace_and_then_fails_closed(
    world: World, attempt: Attempt, grace: int
) -> None:
    policy = Policy(tokens=TokenPolicy(outage_grace=timedelta(seconds=grace)))
    broker = TokenBroker(replace(world.ctx, policy=policy))
    broker.issue(attempt.key)
    store = cast("Outage", world.ctx.store)
    store.is_away = True

    for _ in range(grace):
        broker._poll()
        broker.issue(attempt.key)
        world.clock.advance(timedelta(seconds=1))
    world.clock.advance(timedelta(milliseconds=1))
    broker._poll()
    with pytest.raises(OutOfTouchError):
        broker.issue(attempt.key)

    store.is_away = False
    broker._poll()
    broker.issue(attempt.key)


@pytest.mark.promise("at-once")
def test_a_change_that_cannot_be_read_refuses(world: World, broker: TokenBroker, attempt: Attempt) -> None:
    broker.issue(attempt.key)
    cast("Outage", world.ctx.store).is_away = True
    world.ctx.store.epoch.bump()
    with pytest.raises(OutOfTouchError):
        broker.issue(attempt.key)


@pytest.mark.promise("never-interrupted")
def test_a_rotation_is_picked_up_at_the_next_request(
    world: World, credential: CredentialView, broker: TokenBroker, attempt: Attempt
) -> None:
    first = token_of(world, broker, attempt)
    credentials.rotate(world.ctx, world.owner, credential.id, source=Generated())
    second = token_of(world, broker, attempt)
    assert first != second
    assert len(world.events("token:issue")) == 2


class Gate:
    """An entry's lock at which a request that has just looked the entry up waits, until the entry was taken
    out of memory; whoever took it out goes on when the request has the lock."""

    def __init__(self, request: threading.Thread) -> None:
        self._request = request
        self._lock = threading.Lock()
        self.reached, self._out, self._has_lock = threading.Event(), threading.Event(), threading.Event()

    def __enter__(self) -> None:
        if threading.current_thread() is self._request and not self.reached.is_set():
            self.reached.set()
            assert self._out.wait(30)
            self._lock.acquire()
            self._has_lock.set()
        else:
            self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()
        if threading.current_thread() is not self._request and not self._out.is_set():
            self._out.set()
            assert self._has_lock.wait(30)


@pytest.mark.promise("never-interrupted")
def test_a_request_caught_between_look_up_and_change_stops_nobody(
    world: World, credential: CredentialView, broker: TokenBroker, attempt: Attempt
) -> None:
    broker.issue(attempt.key)
    request = threading.Thread(target=lambda: broker.issue(attempt.key), daemon=True)
    gate = Gate(request)
    (entry,) = broker._entries.values()
    entry.lock = gate  # type: ignore[assignment,misc]  # a lock in all that matters
    request.start()
    assert gate.reached.wait(30)
    with world.ctx.store.write() as connection:
        changes.append(connection, "credential", credential.id, world.clock.now())
    poll = threading.Thread(target=broker._poll, daemon=True)
    poll.start()
    poll.join(10)
    request.join(10)
    assert not poll.is_alive()
    assert not request.is_alive()


@pytest.mark.promise("never-interrupted")
def test_a_refreshed_token_is_picked_up_and_costs_no_query_before_its_time(
    world: World, broker: TokenBroker, attempt: Attempt
) -> None:
    first = token_of(world, broker, attempt)
    life = jwt.decode(first, options={"verify_signature": False})
    assert tokens.refresh_due(world.ctx, "keeper") == 0
    world.clock.advance(timedelta(seconds=0.8 * (life["exp"] - life["iat"]) + 1))
    broker._poll()
    assert tokens.refresh_due(world.ctx, "keeper") == 1
    assert token_of(world, broker, attempt) != first
    cast("Outage", world.ctx.store).is_away = True
    broker.issue(attempt.key)  # from memory


@pytest.mark.promise("never-interrupted")
def test_with_the_provider_away_the_old_token_serves_to_its_end(
    world: World, broker: TokenBroker, attempt: Attempt
) -> None:
    first = token_of(world, broker, attempt)
    world.provider.script("exchange", Failure.UNAVAILABLE, times=None)
    for _ in range(3599):
        world.clock.advance(timedelta(seconds=1))
        broker._poll()
        if world.clock.now().second == 0:
            tokens.refresh_due(world.ctx, "keeper")
        assert broker.issue(attempt.key).body(0).find(first.encode()) > 0
    world.clock.advance(timedelta(seconds=2))
    broker._poll()
    with pytest.raises(UnavailableError):
        broker.issue(attempt.key)


def test_a_hung_provider_leaves_the_other_keys_alone(world: World, attempt: Attempt) -> None:
    """With every permit taken by requests that wait, the next one is told so, and cached keys serve."""
    broker = TokenBroker(world.ctx, exchanges=1)
    broker.issue(attempt.key)
    hung, release = threading.Event(), threading.Event()

    def hang(method: str) -> None:
        if method == "exchange":
            hung.set()
            release.wait(30)

    other_owner = world.provider.add_person(world.account_id)
    principal = world.principal(other_owner)
    other = credentials.create(world.ctx, principal, name="b", source=Generated()).credential
    waiting, refused = add_attempt(world, other.id), add_attempt(world, other.id)
    with world.ctx.store.write() as connection:
        connection.execute(t.access_tokens.delete().where(t.access_tokens.c.credential_id == other.id))
    world.provider.hook = hang
    thread = threading.Thread(target=lambda: broker.issue(waiting.key))
    thread.start()
    assert hung.wait(30)
    broker.issue(attempt.key)
    with pytest.raises(UnavailableError):
        broker.issue(refused.key)
    release.set()
    thread.join()
    broker.issue(refused.key)


def test_the_threads_read_and_count_by_themselves(
    world: World, broker: TokenBroker, attempt: Attempt
) -> None:
    broker.start()
    broker.issue(attempt.key)
    assert broker.is_in_touch
    broker.close()
    (row,) = world.rows(t.attempt_tokens)
    assert row.uses == 1


def test_a_token_answer_shows_nothing_in_its_repr(broker: TokenBroker, attempt: Attempt) -> None:
    assert "ey" not in repr(broker.issue(attempt.key))
