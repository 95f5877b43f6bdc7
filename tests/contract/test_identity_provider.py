"""What every IdentityProvider does: one suite over the in-memory one and over our client of the real local IAM."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import re
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Protocol
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest

from taskcred.domain import keytext
from taskcred.domain.secret import Secret
from taskcred.errors import InvalidTokenError, KeyRefusedError, ProviderRefusedError
from taskcred.iam.app import create_app
from taskcred.iam.operator import Operator
from taskcred.iam.service import IamConfig, LocalIam
from taskcred.identity.claims import is_interactive
from taskcred.identity.client import IamClient
from taskcred.ports import ActFor, IdentityProvider, SignIn
from taskcred.testing import FrozenClock, InMemoryIdentityProvider, InMemoryVault, RecordingRevocations

URL = "https://taskcred.test"
CALLBACK = f"{URL}/auth/callback"
PASSWORD = secrets.token_urlsafe(20)


@dataclass
class Owner:
    """A member of two accounts with a key in the first; another person there, with one too."""

    iam_id: str
    account_id: str
    other_account_id: str
    key: Secret
    other_iam_id: str
    other_key: Secret
    service_id: str  # in the first account; nobody may act for it yet
    service_key: Secret


class World(Protocol):
    provider: IdentityProvider
    clock: FrozenClock
    owner: Owner

    def approve(self, url: str) -> tuple[str, str]:
        """The person signs in at `url`; code and state that come back."""
        ...

    def set_may_act(self, allowed: bool) -> None:
        """Give the owner the permission to act for the service id, or take it away."""
        ...


class MemoryWorld:
    def __init__(self, _directory: Path) -> None:
        self.clock = FrozenClock()
        self.provider = provider = InMemoryIdentityProvider(self.clock, url=URL)
        first, second = provider.add_account("first"), provider.add_account("second")
        ada, bob = provider.add_person(first, second), provider.add_person(first)
        robot = provider.add_service_id(first)
        self.owner = Owner(
            ada,
            first,
            second,
            provider.add_key(ada, first),
            bob,
            provider.add_key(bob, first),
            robot,
            provider.add_key(robot, first),
        )

    def approve(self, url: str) -> tuple[str, str]:
        return self.provider.approve(url, self.owner.iam_id, self.owner.account_id)

    def set_may_act(self, allowed: bool) -> None:
        change = self.provider.allow_act if allowed else self.provider.disallow_act
        change(self.owner.iam_id, self.owner.service_id)

    def close(self) -> None:
        pass


class LocalIamWorld:
    def __init__(self, directory: Path) -> None:
        self.clock = FrozenClock()
        vault = InMemoryVault()
        config = IamConfig(database=directory / "iam.db", issuer=f"{URL}/identity")
        self.iam = LocalIam(config, vault, self.clock, RecordingRevocations())
        self.iam.prepare()
        with Operator(config.database, self.clock) as operator:
            # The first member of an account administers it, which would let her do more than the port asks for.
            operator.create_user(account="first", email="first@example.test")
            ada = operator.create_user(
                account="first", email="ada@example.test", password=Secret(PASSWORD), with_api_key=True
            )
            bob = operator.create_user(account="first", email="bob@example.test", with_api_key=True)
            robot = operator.create_service_id(account="first", name="robot", with_api_key=True)
            second = operator.create_account("second")
            operator.add_member(account="second", user=ada.iam_id)
        assert ada.api_key
        assert bob.api_key
        assert robot.api_key
        self.owner = Owner(
            ada.iam_id,
            ada.account_id,
            second.id,
            ada.api_key,
            bob.iam_id,
            bob.api_key,
            robot.iam_id,
            robot.api_key,
        )
        self._app = create_app(self.iam)
        self.provider = IamClient(
            URL,
            client_id="taskcred",
            client_secret=vault.open("iam/clients/taskcred"),
            clock=self.clock,
            timeout=timedelta(seconds=5),
            app=self._app,
        )

    def approve(self, url: str) -> tuple[str, str]:
        with httpx.Client(transport=httpx.WSGITransport(self._app), headers={"Origin": URL}) as browser:
            page = browser.get(url)
            form_token = re.search(r'name="form_token" value="([^"]+)"', page.text)
            assert form_token, page.text
            form = {"form_token": form_token[1], "email": "ada@example.test", "password": PASSWORD}
            back = browser.post(url, data=form)
        query = parse_qs(urlsplit(back.headers["Location"]).query)
        return query["code"][0], query["state"][0]

    def set_may_act(self, allowed: bool) -> None:
        with Operator(self.iam.config.database, self.clock) as operator:
            change = operator.allow_act if allowed else operator.disallow_act
            change(service_id=self.owner.service_id, user=self.owner.iam_id)

    def close(self) -> None:
        self.provider.close()
        self.iam.close()


@pytest.fixture(params=[MemoryWorld, LocalIamWorld])
def world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    made = request.param(tmp_path)
    yield made
    made.close()


def sign_in(world: World, *, fresh: bool = False) -> SignIn:
    verifier = secrets.token_urlsafe(40)
    challenge = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()
    url = world.provider.sign_in_url(
        redirect_uri=CALLBACK, state="the-state", code_challenge=challenge, fresh=fresh
    )
    code, state = world.approve(url)
    assert state == "the-state"
    return world.provider.finish_sign_in(code=code, redirect_uri=CALLBACK, code_verifier=verifier)


def sign_in_to_first(world: World) -> SignIn:
    """Signed in to the account in which the keys are; which one a sign-in begins with is the provider's."""
    refresh_token = sign_in(world, fresh=True).refresh_token
    assert refresh_token
    return world.provider.refresh_sign_in(refresh_token, account_id=world.owner.account_id)


def authority(world: World, key: Secret | None = None) -> Secret:
    return world.provider.exchange(key or world.owner.key, for_run=False).token


def create(
    world: World, with_authority: Secret, value: Secret | None = None, iam_id: str = ""
) -> tuple[Secret, str]:
    value = value or keytext.new_key(keytext.USER_KEY_PREFIX)
    key = world.provider.create_key(
        with_authority,
        name="made by taskcred",
        iam_id=iam_id or world.owner.iam_id,
        account_id=world.owner.account_id,
        value=value,
        expires_at=None,
    )
    return value, key.id


def test_a_key_is_exchanged_for_its_owners_token(world: World) -> None:
    token = world.provider.exchange(world.owner.key, for_run=False)
    assert (token.iam_id, token.account_id) == (world.owner.iam_id, world.owner.account_id)
    assert token.issued_at == world.clock.now()
    assert token.expires_at == world.clock.now() + timedelta(hours=1)
    assert not is_interactive(token.claims)
    # The verifier needs the text.
    assert world.provider.verify(token.token.reveal()) == token


def test_an_unknown_key_is_refused(world: World) -> None:
    with pytest.raises(KeyRefusedError):
        world.provider.exchange(keytext.new_key(keytext.USER_KEY_PREFIX), for_run=False)


@pytest.mark.promise("dead-with-the-run")
def test_a_token_for_a_run_manages_no_keys(world: World) -> None:
    token = world.provider.exchange(world.owner.key, for_run=True)
    assert token.claims["client_id"] == "taskcred"
    with pytest.raises(ProviderRefusedError) as refused:
        create(world, token.token)
    assert refused.value.status == 403
    value, key_id = create(world, authority(world))
    with pytest.raises(ProviderRefusedError):
        world.provider.delete_key(token.token, key_id)
    with pytest.raises(ProviderRefusedError):
        world.provider.disable_key(token.token, key_id)
    assert world.provider.exchange(value, for_run=True).iam_id == world.owner.iam_id


def test_a_key_is_made_with_the_value_we_chose(world: World) -> None:
    value, key_id = create(world, authority(world))
    assert world.provider.exchange(value, for_run=True).iam_id == world.owner.iam_id
    described = world.provider.key_details(value, authority(world))
    assert (described.id, described.name) == (key_id, "made by taskcred")
    assert (described.iam_id, described.account_id) == (world.owner.iam_id, world.owner.account_id)
    assert (described.locked, described.disabled, described.expires_at) == (False, False, None)


def test_a_key_may_expire(world: World) -> None:
    value = keytext.new_key(keytext.USER_KEY_PREFIX)
    expires_at = world.clock.now() + timedelta(minutes=30)
    key = world.provider.create_key(
        authority(world),
        name="short",
        iam_id=world.owner.iam_id,
        account_id=world.owner.account_id,
        value=value,
        expires_at=expires_at,
    )
    assert key.expires_at == expires_at
    world.provider.exchange(value, for_run=True)
    world.clock.advance(timedelta(minutes=31))
    with pytest.raises(KeyRefusedError):
        world.provider.exchange(value, for_run=True)


def test_a_value_is_made_once_and_long_enough(world: World) -> None:
    value, _ = create(world, authority(world))
    for refused_value in (value, Secret(secrets.token_hex(8))):
        with pytest.raises(ProviderRefusedError) as refused:
            create(world, authority(world), refused_value)
        assert 400 <= refused.value.status < 500
        # What it says must not repeat the key.
        assert refused_value.reveal() not in str(refused.value)


def test_nobody_makes_or_ends_keys_of_somebody_else(world: World) -> None:
    value, key_id = create(world, authority(world))
    stranger = authority(world, world.owner.other_key)
    with pytest.raises(ProviderRefusedError):
        create(world, stranger)
    # The second person is no administrator: what they ask for is refused or, hidden from them, not there.
    with pytest.raises(ProviderRefusedError):
        world.provider.key_details(world.owner.key, stranger)
    with contextlib.suppress(ProviderRefusedError):
        world.provider.delete_key(stranger, key_id)
    assert world.provider.key_details(value, authority(world)).id == key_id


@pytest.mark.parametrize("how", ["disable_key", "delete_key"])
def test_an_ended_key_gets_no_token_while_its_tokens_live_on(world: World, how: str) -> None:
    value, key_id = create(world, authority(world))
    token = world.provider.exchange(value, for_run=True)
    getattr(world.provider, how)(authority(world), key_id)
    with pytest.raises(KeyRefusedError):
        world.provider.exchange(value, for_run=True)
    assert world.provider.verify(token.token.reveal()).iam_id == world.owner.iam_id


@pytest.mark.parametrize("how", ["disable_key", "delete_key"])
def test_ending_a_key_that_is_gone_does_nothing(world: World, how: str) -> None:
    _, key_id = create(world, authority(world))
    world.provider.delete_key(authority(world), key_id)
    getattr(world.provider, how)(authority(world), key_id)


def test_a_key_can_end_itself_with_its_own_token(world: World) -> None:
    value, key_id = create(world, authority(world))
    world.provider.delete_key(authority(world, value), key_id)
    with pytest.raises(KeyRefusedError):
        world.provider.exchange(value, for_run=False)


@pytest.mark.parametrize("raw_token", ["", "x", "a.b.c", "." * 3, "é", "x" * 100_000])
def test_what_is_no_token_is_not_verified(world: World, raw_token: str) -> None:
    with pytest.raises(InvalidTokenError):
        world.provider.verify(raw_token)


def test_a_token_dies_at_its_time_and_with_any_change(world: World) -> None:
    raw_token = authority(world).reveal()
    head, payload, signature = raw_token.split(".")
    altered = payload[:-4] + ("AAAA" if payload[-4:] != "AAAA" else "BBBB")
    with pytest.raises(InvalidTokenError):
        world.provider.verify(f"{head}.{altered}.{signature}")
    world.clock.advance(timedelta(minutes=59))
    world.provider.verify(raw_token)
    world.clock.advance(timedelta(minutes=2))
    with pytest.raises(InvalidTokenError):
        world.provider.verify(raw_token)


def test_a_person_signs_in(world: World) -> None:
    signed_in = sign_in(world)
    assert signed_in.access.iam_id == world.owner.iam_id
    assert is_interactive(signed_in.access.claims)
    assert signed_in.auth_time == world.clock.now()
    assert world.provider.verify(signed_in.access.token.reveal()) == signed_in.access


def test_the_token_of_a_sign_in_manages_keys(world: World) -> None:
    value, key_id = create(world, sign_in_to_first(world).access.token)
    world.provider.delete_key(sign_in_to_first(world).access.token, key_id)
    with pytest.raises(KeyRefusedError):
        world.provider.exchange(value, for_run=False)


def test_a_code_needs_its_verifier(world: World) -> None:
    digest = hashlib.sha256(b"the verifier that the pages kept to themselves").digest()
    challenge = base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
    url = world.provider.sign_in_url(redirect_uri=CALLBACK, state="s", code_challenge=challenge, fresh=False)
    code, _ = world.approve(url)
    with pytest.raises(ProviderRefusedError) as refused:
        world.provider.finish_sign_in(
            code=code, redirect_uri=CALLBACK, code_verifier=secrets.token_urlsafe(40)
        )
    assert code not in str(refused.value)


def test_a_sign_in_is_refreshed_and_keeps_its_proof(world: World) -> None:
    first = sign_in(world)
    assert first.refresh_token
    world.clock.advance(timedelta(minutes=50))
    again = world.provider.refresh_sign_in(first.refresh_token)
    assert again.auth_time == first.auth_time
    assert is_interactive(again.access.claims)
    assert again.access.expires_at == world.clock.now() + timedelta(hours=1)


def test_a_refresh_switches_to_another_account_of_the_person(world: World) -> None:
    first = sign_in(world)
    own = {world.owner.account_id, world.owner.other_account_id}
    (wanted,) = own - {first.access.account_id}
    assert first.refresh_token
    switched = world.provider.refresh_sign_in(first.refresh_token, account_id=wanted)
    assert switched.access.account_id == wanted


def test_a_refresh_never_leads_into_a_strange_account(world: World) -> None:
    refresh_token = sign_in(world).refresh_token
    assert refresh_token
    with pytest.raises(ProviderRefusedError):
        world.provider.refresh_sign_in(refresh_token, account_id=secrets.token_hex(16))
    with pytest.raises(ProviderRefusedError):
        world.provider.refresh_sign_in(Secret(secrets.token_urlsafe(32)))


def test_the_accounts_of_a_person_are_told(world: World) -> None:
    accounts = world.provider.accounts(sign_in(world).access.token)
    assert {account.id for account in accounts} == {world.owner.account_id, world.owner.other_account_id}
    assert {account.name for account in accounts} == {"first", "second"}


@pytest.mark.promise("at-once")
def test_a_person_may_act_for_a_service_id_as_long_as_they_are_let(world: World) -> None:
    token = sign_in_to_first(world).access.token
    assert world.provider.may_act(token, world.owner.service_id) is None
    assert world.provider.acts_for(token) == []
    world.set_may_act(True)
    service_id = ActFor(world.owner.service_id, world.owner.account_id, "robot")
    assert world.provider.may_act(token, world.owner.service_id) == service_id
    assert world.provider.acts_for(token) == [service_id]
    assert world.provider.may_act(token, world.owner.other_iam_id) is None
    assert world.provider.may_act(token, f"iam-ServiceId-{secrets.token_hex(8)}") is None
    world.set_may_act(False)
    assert world.provider.may_act(token, world.owner.service_id) is None
    assert world.provider.acts_for(token) == []


@pytest.mark.promise("only-what-the-user-started")
def test_only_a_person_who_signed_in_to_the_account_acts_for_a_service_id(world: World) -> None:
    world.set_may_act(True)
    first = sign_in_to_first(world)
    assert first.refresh_token
    elsewhere = world.provider.refresh_sign_in(
        first.refresh_token, account_id=world.owner.other_account_id
    ).access.token
    programs = [world.provider.exchange(world.owner.key, for_run=for_run).token for for_run in (True, False)]
    strangers = [authority(world, key) for key in (world.owner.other_key, world.owner.service_key)]
    for token in (elsewhere, *programs, *strangers):
        assert world.provider.may_act(token, world.owner.service_id) is None
        assert world.provider.acts_for(token) == []


def test_who_acts_for_a_service_id_makes_and_ends_its_keys(world: World) -> None:
    token = sign_in_to_first(world).access.token
    with pytest.raises(ProviderRefusedError):
        create(world, token, iam_id=world.owner.service_id)
    world.set_may_act(True)
    value, key_id = create(world, token, iam_id=world.owner.service_id)
    assert world.provider.exchange(value, for_run=True).iam_id == world.owner.service_id
    assert world.provider.key_details(value, token).id == key_id
    world.provider.disable_key(token, key_id)
    world.provider.delete_key(token, key_id)
    with pytest.raises(KeyRefusedError):
        world.provider.exchange(value, for_run=True)
    # Her API key's token is a program's: it acts for nobody.
    with pytest.raises(ProviderRefusedError):
        create(world, authority(world), iam_id=world.owner.service_id)


def test_a_service_id_renews_its_own_key_unattended(world: World) -> None:
    own = authority(world, world.owner.service_key)
    value, key_id = create(world, own, iam_id=world.owner.service_id)
    world.provider.delete_key(authority(world, value), key_id)


def test_a_healthy_provider_passes_its_check(world: World) -> None:
    world.provider.check()
