"""The accounts in the page header."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from taskcred.testing import Failure, FrozenClock, InMemoryIdentityProvider, interactive
from taskcred.web.accounts import AccountBook


def test_the_provider_is_asked_once_a_minute() -> None:
    clock = FrozenClock()
    provider = InMemoryIdentityProvider(clock)
    first, second = provider.add_account("One"), provider.add_account("Two")
    ada = provider.add_person(first, second)
    principal = interactive(ada, first, token=provider.token(ada, first).token, session=True)
    book = AccountBook(provider, clock)
    assert [account.name for account in book.of(principal).accounts] == ["One", "Two"]
    assert [account.name for account in book.of(principal).accounts] == ["One", "Two"]
    assert provider.calls["accounts"] == 1
    clock.advance(timedelta(seconds=61))
    book.of(principal)
    assert provider.calls["accounts"] == 2


def test_the_present_account_is_named_where_the_provider_is_away() -> None:
    clock = FrozenClock()
    provider = InMemoryIdentityProvider(clock)
    account = provider.add_account("One")
    ada = provider.add_person(account)
    principal = interactive(ada, account, token=provider.token(ada, account).token, session=True)
    provider.script("accounts", Failure.UNAVAILABLE)
    book = AccountBook(provider, clock)
    assert [known.id for known in book.of(principal).accounts] == [account]
    # Nor is it asked again for each page while it is away.
    assert [known.id for known in book.of(principal).accounts] == [account]
    assert provider.calls["accounts"] == 1


def test_the_service_ids_of_the_present_account_are_offered_also_while_acting_for_one() -> None:
    clock = FrozenClock()
    provider = InMemoryIdentityProvider(clock)
    first, second = provider.add_account("One"), provider.add_account("Two")
    ada = provider.add_person(first, second)
    robot, other = provider.add_service_id(first, "robot"), provider.add_service_id(second, "other")
    for service_id in (robot, other):
        provider.allow_act(ada, service_id)
    principal = interactive(ada, first, token=provider.token(ada, first).token, session=True)
    acting = replace(principal, iam_id=robot, acting_iam_id=ada, owner_name="robot")
    book = AccountBook(provider, clock)
    for who in (principal, acting):
        assert [each.name for each in book.of(who).service_ids] == ["robot"]
    assert provider.calls["acts_for"] == 1
    # One that is acted for is named also where the list is older than the permission.
    late = replace(acting, account_id=second, iam_id="iam-ServiceId-late", owner_name="late")
    assert book.of(late).service_ids[0].name == "late"
