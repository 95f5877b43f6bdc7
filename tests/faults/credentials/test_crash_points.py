"""Every step of create, rotate and delete, crashed before and after it; the keeper must mend each.

A step is a call of a port, or a commit. The crash is a BaseException, so that no handler of ours softens
it, and what was in memory is gone: the keeper works from the records, the vault and the provider alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal, cast

import pytest
import sqlalchemy as sa

from taskcred.domain.credentials import (
    CredentialState,
    Drain,
    Generated,
    KeySource,
    KeyState,
    Origin,
    Provided,
)
from taskcred.domain.permissions import Principal
from taskcred.ports import IdentityProvider, Vault
from taskcred.services import credentials, intents, tokens
from taskcred.services.context import Context
from taskcred.services.intent_lease import Means
from taskcred.store import tables as t
from taskcred.store.engine import Store
from taskcred.testing import (
    FrozenClock,
    InMemoryIdentityProvider,
    InMemoryVault,
    interactive,
    make_context,
)

Side = Literal["before", "after"]


class CrashError(BaseException):
    """kill -9."""


@dataclass
class Fuse:
    """Burns down at step `at`; counts the steps where it does not."""

    at: int | None = None
    side: Side = "before"
    steps: list[str] = field(default_factory=list)

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        self.steps.append(name)
        is_here = self.at is not None and len(self.steps) == self.at
        if is_here and self.side == "before":
            raise CrashError(name)
        try:
            yield
        finally:  # a step that was refused has been taken as well
            if is_here:
                raise CrashError(name)


class FusedPort:
    """A port whose calls are steps."""

    def __init__(self, inner: object, fuse: Fuse) -> None:
        self._inner = inner
        self._fuse = fuse

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._inner, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            with self._fuse.step(name):
                return method(*args, **kwargs)

        return call


class FusedStore(Store):
    """Records whose commits are steps: a crash before leaves nothing of the transaction, after all of it."""

    def __init__(self, inner: Store, fuse: Fuse) -> None:
        super().__init__(inner.engine, inner.epoch)
        self._fuse = fuse

    @contextmanager
    def write(self, *, shared: bool = False) -> Iterator[sa.Connection]:
        with self._fuse.step("commit"), super().write(shared=shared) as connection:
            yield connection


@dataclass
class Setting:
    """One context for all crash points of a test; each crash point has an owner of its own."""

    ctx: Context
    clock: FrozenClock
    vault: InMemoryVault
    provider: InMemoryIdentityProvider
    owner: Principal

    def next_owner(self) -> None:
        """Somebody new, who signed in just now."""
        account_id = self.owner.account_id
        iam_id = self.provider.add_person(account_id)
        token = self.provider.token(iam_id, account_id).token
        self.owner = interactive(iam_id, account_id, auth_time=self.clock.now(), token=token)

    def sign_in_again(self) -> None:
        """The same owner, after time has passed."""
        self.owner = replace(self.owner, auth_time=self.clock.now())

    def fused(self, fuse: Fuse) -> Context:
        return replace(
            self.ctx,
            store=FusedStore(self.ctx.store, fuse),
            vault=cast("Vault", FusedPort(self.ctx.vault, fuse)),
            provider=cast("IdentityProvider", FusedPort(self.ctx.provider, fuse)),
        )

    def source(self, origin: Origin) -> KeySource:
        if origin is Origin.GENERATED:
            return Generated()
        return Provided(self.provider.add_key(self.owner.iam_id, self.owner.account_id, name="pasted"))


def settle(setting: Setting) -> None:
    for _ in range(40):
        intents.advance_due(setting.ctx, "keeper")
        with setting.ctx.store.read() as connection:
            if not connection.execute(sa.select(t.intents.c.id).where(t.intents.c.state == "open")).all():
                return
        setting.clock.advance(timedelta(seconds=31))
    raise AssertionError("the keeper did not come to an end")


def check(setting: Setting) -> None:
    """What must be true after any crash and the keeper's work."""
    with setting.ctx.store.read() as connection:
        c = t.task_credentials.c
        mine = c.iam_id == setting.owner.iam_id
        own = connection.execute(
            sa.select(t.task_credentials).where(mine, c.state != CredentialState.ENDED)
        ).one_or_none()
        keys = connection.execute(
            sa.select(t.keys).join(t.task_credentials, c.id == t.keys.c.credential_id).where(mine)
        ).all()
        others = set(connection.execute(sa.select(c.id).where(~mine)).scalars())
        states = set(connection.execute(sa.select(t.intents.c.state)).scalars())
    assert states <= {"done", "rolled_back"}
    active = [key for key in keys if key.state == KeyState.ACTIVE]
    # A usable credential has exactly one active key, any other none.
    assert len(active) == (1 if own is not None and own.state == CredentialState.USABLE else 0)
    # No vault record without a row that still needs it; no such row without its record.
    held = {f"credentials/{key.credential_id}/{key.id}" for key in keys if key.state != KeyState.DESTROYED}
    assert {
        path
        for path in setting.vault.records
        if path.startswith("credentials/") and path.split("/")[1] not in others
    } == held
    # No key that we made is alive at the provider without a record here.
    ours = {
        key.id
        for key in setting.provider.keys_of(setting.owner.iam_id, setting.owner.account_id)
        if key.name.startswith("taskcred ")
    }
    assert ours == {
        key.provider_key_id
        for key in keys
        if key.origin == Origin.GENERATED and key.state != KeyState.DESTROYED
    }
    # The key that is called active works, and a token of it can be had.
    if own is not None and own.state == CredentialState.USABLE:
        value = setting.vault.records[f"credentials/{own.id}/{active[0].id}"]
        assert setting.provider.exchange(value, for_run=True).iam_id == setting.owner.iam_id
        tokens.ensure(setting.ctx, own.id)


def make_setting(directory: Path) -> Setting:
    clock = FrozenClock()
    vault = InMemoryVault()
    provider = InMemoryIdentityProvider(clock)
    account_id = provider.add_account()
    iam_id = provider.add_person(account_id)
    ctx = make_context(directory, clock=clock, vault=vault, provider=provider)
    return Setting(ctx, clock, vault, provider, interactive(iam_id, account_id))


@pytest.fixture
def setting(tmp_path: Path) -> Iterator[Setting]:
    made = make_setting(tmp_path)
    engine = made.ctx.store.engine

    @sa.event.listens_for(engine, "connect")
    def _no_sync(connection: Any, _record: Any) -> None:
        # Our crashes are of a process, not of power, and a thousand waits for the disk add nothing.
        if engine.dialect.name == "sqlite":
            connection.execute("PRAGMA synchronous=OFF")

    engine.dispose()
    yield made
    made.ctx.store.engine.dispose()


def enumerate_crashes(
    setting: Setting,
    prepare: Callable[[Setting], Any],
    act: Callable[[Setting, Context, Any], None],
    verify: Callable[[Setting, Any], None],
) -> None:
    """Run `act` whole, to learn its steps; then once for every step and side, crashed there."""
    crash_points: list[tuple[int | None, Side]] = [(None, "before")]
    for at, side in crash_points:
        setting.next_owner()
        prepared = prepare(setting)
        fuse = Fuse(at, side)
        if at is None:
            act(setting, setting.fused(fuse), prepared)
            assert len(fuse.steps) >= 4
            for step in range(1, len(fuse.steps) + 1):
                crash_points += [(step, "before"), (step, "after")]
        else:
            with pytest.raises(CrashError):
                act(setting, setting.fused(fuse), prepared)
        settle(setting)
        setting.sign_in_again()
        try:
            check(setting)
            verify(setting, prepared)
        except AssertionError as error:
            error.add_note(f"crashed {side} step {at}: {fuse.steps}")
            raise


@pytest.mark.promise("last-good-key")
@pytest.mark.parametrize("origin", list(Origin))
def test_create(setting: Setting, origin: Origin) -> None:
    def act(setting: Setting, ctx: Context, source: KeySource) -> None:
        credentials.create(ctx, setting.owner, name="work", source=source)

    def verify(setting: Setting, source: KeySource) -> None:
        own = credentials.list_own(setting.ctx, setting.owner)
        if not own:  # nothing of it is left, and it can be made anew
            credentials.create(setting.ctx, setting.owner, name="work", source=source)
            check(setting)

    enumerate_crashes(setting, lambda setting: setting.source(origin), act, verify)


def _a_credential(setting: Setting, old: Origin, new: Origin) -> tuple[str, KeySource]:
    created = credentials.create(setting.ctx, setting.owner, name="work", source=setting.source(old))
    return created.credential.id, setting.source(new)


@pytest.mark.promise("last-good-key")
@pytest.mark.parametrize("new", list(Origin))
@pytest.mark.parametrize("old", list(Origin))
@pytest.mark.parametrize("how", ["tokens", "now"])
def test_rotate(setting: Setting, old: Origin, new: Origin, how: Literal["tokens", "now"]) -> None:
    def act(setting: Setting, ctx: Context, prepared: tuple[str, KeySource]) -> None:
        credentials.rotate(ctx, setting.owner, prepared[0], source=prepared[1], drain=Drain(how))

    def verify(setting: Setting, prepared: tuple[str, KeySource]) -> None:
        # The old key, or the new one: there is one that works at every point.
        (own,) = credentials.list_own(setting.ctx, setting.owner)
        assert own.id == prepared[0]
        assert own.state is CredentialState.USABLE
        # After the longest life of a token nothing but the active key is left.
        setting.clock.advance(timedelta(hours=2))
        settle(setting)
        setting.sign_in_again()
        check(setting)
        living = [
            key.state
            for key in credentials.keys(setting.ctx, setting.owner, own.id)
            if key.state is not KeyState.DESTROYED
        ]
        assert living == [KeyState.ACTIVE]

    enumerate_crashes(setting, lambda setting: _a_credential(setting, old, new), act, verify)


@pytest.mark.promise("last-good-key")
@pytest.mark.parametrize("new", list(Origin))
@pytest.mark.parametrize("old", list(Origin))
def test_rotate_a_leaked_key(setting: Setting, old: Origin, new: Origin) -> None:
    def act(setting: Setting, ctx: Context, prepared: tuple[str, KeySource]) -> None:
        credentials.rotate(ctx, setting.owner, prepared[0], source=prepared[1], leaked=True)

    def verify(setting: Setting, prepared: tuple[str, KeySource]) -> None:
        view = credentials.get(setting.ctx, setting.owner, prepared[0])
        leaked = credentials.keys(setting.ctx, setting.owner, prepared[0])[-1]
        if leaked.state is KeyState.ACTIVE:
            assert view.state is CredentialState.USABLE  # crashed before it was recorded at all
            return
        assert leaked.state is KeyState.DESTROYED
        at_provider = {
            key.id: key.disabled
            for key in setting.provider.keys_of(setting.owner.iam_id, setting.owner.account_id)
        }
        assert leaked.provider_key_id is not None
        assert at_provider.get(leaked.provider_key_id, True)  # deleted, or disabled

    enumerate_crashes(setting, lambda setting: _a_credential(setting, old, new), act, verify)


@pytest.mark.promise("last-good-key")
@pytest.mark.parametrize("origin", list(Origin))
def test_delete(setting: Setting, origin: Origin) -> None:
    def prepare(setting: Setting) -> str:
        credential_id, source = _a_credential(setting, origin, origin)
        credentials.rotate(setting.ctx, setting.owner, credential_id, source=source)
        return credential_id

    def act(setting: Setting, ctx: Context, credential_id: str) -> None:
        credentials.delete(ctx, setting.owner, credential_id)

    def verify(setting: Setting, credential_id: str) -> None:
        own = credentials.list_own(setting.ctx, setting.owner)
        if own:  # crashed before it was recorded at all
            assert own[0].state is CredentialState.USABLE
            return
        with setting.ctx.store.read() as connection:
            keys = connection.execute(sa.select(t.keys).where(t.keys.c.credential_id == credential_id)).all()
        assert {key.state for key in keys} == {KeyState.DESTROYED}

    enumerate_crashes(setting, prepare, act, verify)


@pytest.mark.promise("last-good-key")
@pytest.mark.parametrize("origin", list(Origin))
def test_the_keeper_itself_crashes(setting: Setting, origin: Origin) -> None:
    """A rotation postponed by an absent provider, then finished by a keeper that dies at every step."""

    def prepare(setting: Setting) -> tuple[str, str]:
        credential_id, source = _a_credential(setting, origin, Origin.GENERATED)
        fuse = Fuse(at=3, side="after")  # the intent, the sealed value, its commit
        with pytest.raises(CrashError):
            credentials.rotate(setting.fused(fuse), setting.owner, credential_id, source=source)
        setting.clock.advance(timedelta(seconds=31))
        with setting.ctx.store.read() as connection:
            query = sa.select(t.intents.c.id).where(
                t.intents.c.credential_id == credential_id, t.intents.c.state == "open"
            )
            return credential_id, connection.execute(query).scalar_one()

    def act(_setting: Setting, ctx: Context, prepared: tuple[str, str]) -> None:
        intent = intents.take_up(ctx, prepared[1], "keeper one")
        assert intent is not None
        intents.drive(ctx, intent, "keeper one", Means())

    def verify(setting: Setting, prepared: tuple[str, str]) -> None:
        view = credentials.get(setting.ctx, setting.owner, prepared[0])
        assert view.active_key is not None
        assert view.active_key.origin is Origin.GENERATED
        assert len(credentials.keys(setting.ctx, setting.owner, prepared[0])) == 2

    enumerate_crashes(setting, prepare, act, verify)
