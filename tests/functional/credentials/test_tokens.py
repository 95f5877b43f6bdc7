"""The token cache: single flight, back-off, background refresh."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from taskcred.clock import SystemClock
from taskcred.domain.credentials import CredentialState, CredentialView, Generated, KeyState
from taskcred.errors import ConflictError, IntegrityError, UnavailableError
from taskcred.services import credentials, tokens
from taskcred.store import tables as t
from taskcred.testing import Failure, InMemoryIdentityProvider, InMemoryVault, interactive, make_context

from .conftest import World, add_attempt


@pytest.fixture
def credential(world: World) -> CredentialView:
    return credentials.create(world.ctx, world.owner, name="work", source=Generated()).credential


def empty_cache(world: World) -> None:
    with world.ctx.store.write() as connection:
        connection.execute(t.access_tokens.delete())


def test_a_cached_token_needs_no_exchange(world: World, credential: CredentialView) -> None:
    before = world.provider.exchanges
    tokens.ensure(world.ctx, credential.id)
    assert world.provider.exchanges == before


def test_a_token_with_little_life_left_is_replaced(world: World, credential: CredentialView) -> None:
    before = world.provider.exchanges
    world.clock.advance(timedelta(minutes=55))
    tokens.ensure(world.ctx, credential.id)
    assert world.provider.exchanges == before + 1


def test_threads_at_once_make_one_exchange(tmp_path: Path) -> None:
    clock = SystemClock()  # waiters look at the row again and again, so time has to pass
    provider = InMemoryIdentityProvider(clock)
    account_id = provider.add_account()
    iam_id = provider.add_person(account_id)
    ctx = make_context(tmp_path, clock=clock, provider=provider)
    owner = interactive(
        iam_id, account_id, auth_time=clock.now(), token=provider.token(iam_id, account_id).token
    )
    credential = credentials.create(ctx, owner, name="work", source=Generated()).credential
    with ctx.store.write() as connection:
        connection.execute(t.access_tokens.delete())
    before = provider.exchanges
    start = threading.Barrier(32)

    def ask() -> None:
        start.wait()
        tokens.ensure(ctx, credential.id)

    threads = [threading.Thread(target=ask) for _ in range(32)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    ctx.store.engine.dispose()
    assert provider.exchanges == before + 1


_ASK = """
import json, sys, threading
from pathlib import Path
from taskcred.clock import SystemClock
from taskcred.domain.secret import Secret
from taskcred.services import tokens
from taskcred.testing import InMemoryIdentityProvider, InMemoryVault, make_context

given = json.loads(sys.stdin.readline())
clock = SystemClock()
vault = InMemoryVault()
for path, text in given["vault"].items():
    vault.records[path] = Secret(text)
provider = InMemoryIdentityProvider(clock)
provider.add_account()
provider._add(given["iam_id"], (given["account_id"],), "Ada", "")
def answer(key, *, for_run):
    provider.exchanges += 1
    return provider.token(given["iam_id"], given["account_id"])
provider.exchange = answer
ctx = make_context(Path(given["directory"]), clock=clock, vault=vault, provider=provider)
print("ready", flush=True)
sys.stdin.readline()  # until everybody is there
threads = [threading.Thread(target=tokens.ensure, args=(ctx, given["credential_id"])) for _ in range(16)]
for thread in threads: thread.start()
for thread in threads: thread.join()
print(provider.exchanges)
"""


def test_processes_at_once_make_one_exchange(tmp_path: Path) -> None:
    clock = SystemClock()
    vault = InMemoryVault()
    provider = InMemoryIdentityProvider(clock)
    account_id = provider.add_account()
    iam_id = provider.add_person(account_id)
    ctx = make_context(tmp_path, clock=clock, provider=provider, vault=vault)
    owner = interactive(
        iam_id, account_id, auth_time=clock.now(), token=provider.token(iam_id, account_id).token
    )
    credential = credentials.create(ctx, owner, name="work", source=Generated()).credential
    with ctx.store.write() as connection:
        connection.execute(t.access_tokens.delete())
    ctx.store.engine.dispose()
    given = {
        "directory": str(tmp_path),
        "vault": {path: secret.reveal() for path, secret in vault.records.items()},
        "iam_id": iam_id,
        "account_id": account_id,
        "credential_id": credential.id,
    }
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", _ASK], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for _ in range(3)
    ]
    for process in processes:
        assert process.stdin is not None
        process.stdin.write(json.dumps(given) + "\n")
        process.stdin.flush()
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    exchanges = 0
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    for process in processes:
        answer, _nothing = process.communicate()
        assert process.returncode == 0
        exchanges += int(answer)
    assert exchanges == 1


@pytest.mark.promise("parked-not-failed")
def test_a_refused_key_makes_the_credential_unusable(world: World, credential: CredentialView) -> None:
    empty_cache(world)
    world.provider.script("exchange", Failure.REFUSE)
    with pytest.raises(ConflictError) as caught:
        tokens.ensure(world.ctx, credential.id)
    assert caught.value.error_code == "credential_unusable"
    view = credentials.get(world.ctx, world.owner, credential.id)
    assert view.state is CredentialState.UNUSABLE
    assert view.active_key is None
    assert [key.state for key in credentials.keys(world.ctx, world.owner, credential.id)] == [
        KeyState.REVOKED
    ]
    assert [row.kind for row in world.rows(t.notices)] == ["key_refused"]
    assert world.keys_in_vault()  # kept until the key is replaced


def test_failures_back_off(world: World, credential: CredentialView) -> None:
    empty_cache(world)
    world.provider.script("exchange", Failure.UNAVAILABLE, times=2)
    calls = world.provider.calls["exchange"]
    for _ in range(5):
        with pytest.raises(UnavailableError):
            tokens.ensure(world.ctx, credential.id)
    assert world.provider.calls["exchange"] == calls + 1
    world.clock.advance(timedelta(seconds=0.6))
    with pytest.raises(UnavailableError):
        tokens.ensure(world.ctx, credential.id)
    world.clock.advance(timedelta(seconds=1.1))
    tokens.ensure(world.ctx, credential.id)
    (row,) = world.rows(t.access_tokens)
    assert (row.failures, row.retry_at) == (0, None)


def test_a_dead_exchangers_lease_runs_out(world: World, credential: CredentialView) -> None:
    empty_cache(world)
    now = world.clock.now()
    with world.ctx.store.write() as connection:
        connection.execute(
            t.access_tokens.insert().values(
                credential_id=credential.id, lease_holder="dead", lease_until=now + timedelta(seconds=15)
            )
        )
    world.clock.advance(timedelta(seconds=15))
    tokens.ensure(world.ctx, credential.id)


def test_only_credentials_with_a_live_attempt_are_refreshed(world: World, credential: CredentialView) -> None:
    world.clock.advance(timedelta(minutes=49))
    assert tokens.refresh_due(world.ctx, "keeper") == 0
    add_attempt(world, credential.id)
    before = world.provider.exchanges
    assert tokens.refresh_due(world.ctx, "keeper") == 1
    assert tokens.refresh_due(world.ctx, "keeper") == 0
    assert world.provider.exchanges == before + 1


def test_an_exchange_that_a_rotation_overtook_is_not_cached(world: World, credential: CredentialView) -> None:
    """The answer of the old key arrives after the new one is active."""
    empty_cache(world)
    done = threading.Event()

    def rotate_meanwhile(method: str) -> None:
        if method == "exchange" and not done.is_set():
            done.set()
            credentials.rotate(world.ctx, world.owner, credential.id, source=Generated())

    world.provider.hook = rotate_meanwhile
    tokens.ensure(world.ctx, credential.id)
    (row,) = world.rows(t.access_tokens)
    view = credentials.get(world.ctx, world.owner, credential.id)
    assert view.active_key is not None
    assert row.key_id == view.active_key.id
    assert row.sealed is not None


def test_digests_of_run_tokens_are_forgotten_after_they_expired(
    world: World, credential: CredentialView
) -> None:
    (row,) = world.rows(t.run_tokens)
    assert row.credential_id == credential.id
    world.clock.advance(timedelta(minutes=64))
    tokens.refresh_due(world.ctx, "keeper")
    assert tokens.is_run_token(world.ctx, row.digest)
    world.clock.advance(timedelta(minutes=2))
    tokens.refresh_due(world.ctx, "keeper")
    assert not tokens.is_run_token(world.ctx, row.digest)


def test_a_cached_token_is_bound_to_its_credential(world: World, credential: CredentialView) -> None:
    other = world.principal(world.provider.add_person(world.account_id))
    theirs = credentials.create(world.ctx, other, name="b", source=Generated()).credential
    (row,) = world.rows(t.access_tokens, credential_id=theirs.id)
    with world.ctx.store.write() as connection:
        connection.execute(
            t.access_tokens.update()
            .where(t.access_tokens.c.credential_id == credential.id)
            .values(sealed=row.sealed)
        )
    with pytest.raises(IntegrityError):
        tokens.ensure(replace(world.ctx), credential.id)
