"""The accounts in the page header."""

from __future__ import annotations

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
    assert [account.name for account in book.of(principal)] == ["One", "Two"]
    assert [account.name for account in book.of(principal)] == ["One", "Two"]
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
    assert [known.id for known in book.of(principal)] == [account]
    # Nor is it asked again for each page while it is away.
    assert [known.id for known in book.of(principal)] == [account]
    assert provider.calls["accounts"] == 1
