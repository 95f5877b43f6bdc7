"""The fakes that ship: what other tests rely on them for."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from taskcred.domain.secret import Secret
from taskcred.errors import KeyRefusedError, UpstreamUnavailableError, VaultUnreachableError
from taskcred.services.context import Context
from taskcred.testing import Failure, FrozenClock, InMemoryIdentityProvider, InMemoryVault, make_context


@pytest.fixture
def ctx(tmp_path: Path) -> Iterator[Context]:
    made = make_context(tmp_path)
    yield made
    made.store.engine.dispose()


def test_a_port_called_inside_a_transaction_fails_the_test(ctx: Context) -> None:
    ctx.vault.check()
    ctx.provider.check()
    for transaction in (ctx.store.read, ctx.store.write):
        with transaction():
            for port in (ctx.vault, ctx.provider):
                with pytest.raises(AssertionError, match="while a transaction was open"):
                    port.check()
    ctx.vault.check()


def test_a_queue_remembers_what_was_committed_once(ctx: Context) -> None:
    with ctx.store.write() as connection:
        ctx.queue.enqueue(connection, "run", 1, "owner")
    with ctx.store.engine.connect() as connection, connection.begin() as transaction:
        ctx.queue.enqueue(connection, "run", 2, "owner")
        transaction.rollback()
    with ctx.store.write() as connection:
        ctx.queue.enqueue(connection, "run", 1, "owner")
    assert [(item.run_id, item.dispatch_no) for item in ctx.queue.enqueued] == [("run", 1)]


def test_a_context_made_again_opens_what_the_first_one_sealed(ctx: Context, tmp_path: Path) -> None:
    again = make_context(tmp_path, vault=ctx.vault)
    assert again.sealer.open(ctx.sealer.seal(Secret("text"), "row"), "row") == Secret("text")
    again.store.engine.dispose()


def test_scripted_failures_come_in_order_and_end() -> None:
    vault = InMemoryVault()
    vault.script("store", Failure.UNAVAILABLE)
    vault.script("store", Failure.COMMIT_THEN_DROP)
    with pytest.raises(VaultUnreachableError):
        vault.store("a", Secret("text"))
    assert vault.paths() == []
    with pytest.raises(VaultUnreachableError):
        vault.store("a", Secret("text"))
    assert vault.paths() == ["a"]
    vault.store("a", Secret("other"))
    vault.script("*", Failure.UNAVAILABLE, times=None)
    for _ in range(3):
        with pytest.raises(VaultUnreachableError):
            vault.check()
    vault.recover()
    vault.check()


def test_a_scripted_exchange_is_refused_away_or_done_without_an_answer() -> None:
    provider = InMemoryIdentityProvider(FrozenClock())
    account_id = provider.add_account()
    key = provider.add_key(provider.add_person(account_id), account_id)
    for failure, error, exchanges in (
        (Failure.UNAVAILABLE, UpstreamUnavailableError, 0),
        (Failure.REFUSE, KeyRefusedError, 0),
        (Failure.COMMIT_THEN_DROP, UpstreamUnavailableError, 1),
    ):
        provider.script("exchange", failure)
        with pytest.raises(error):
            provider.exchange(key, for_run=True)
        assert provider.exchanges == exchanges
    provider.exchange(key, for_run=True)


def test_a_hook_runs_before_the_call_takes_effect() -> None:
    provider, seen = InMemoryIdentityProvider(FrozenClock()), []
    provider.hook = lambda method: seen.append((method, provider.exchanges))
    account_id = provider.add_account()
    key = provider.add_key(provider.add_person(account_id), account_id)
    provider.exchange(key, for_run=True)
    assert seen == [("exchange", 0)]


def test_time_moves_when_told() -> None:
    clock = FrozenClock()
    before = clock.now()
    assert clock.advance(timedelta(seconds=90)) == before + timedelta(seconds=90)
    assert clock.monotonic() == 90.0
