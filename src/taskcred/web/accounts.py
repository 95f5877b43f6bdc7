"""The accounts a person may switch to, and the service ids they may act for, as the page header shows them."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Final

from taskcred.domain.permissions import Principal
from taskcred.errors import TaskcredError
from taskcred.ports import Account, ActFor, Clock, IdentityProvider

_KEEP: Final = 60.0  # seconds; also after a failure, so that a provider that is away slows no page twice
_MOST: Final = 1000  # people remembered


@dataclass(frozen=True, slots=True)
class Choices:
    """What the header offers: accounts, the present one included, and service ids of the present one."""

    accounts: list[Account]
    service_ids: list[ActFor]


class AccountBook:
    """Asks the identity provider at most once a minute for each person and account. The list may be that
    old; whether a choice is theirs is asked when they make it."""

    def __init__(self, provider: IdentityProvider, clock: Clock) -> None:
        self._provider: Final = provider
        self._clock: Final = clock
        self._known: dict[tuple[str, str], tuple[float, Choices]] = {}
        self._lock: Final = threading.Lock()

    def of(self, principal: Principal) -> Choices:
        """The person's choices, also while they act for a service id; only where they are now where the
        provider is away."""
        now = self._clock.monotonic()
        who = (principal.actor_id, principal.account_id)
        with self._lock:
            known = self._known.get(who)
        if known is None or known[0] <= now:
            known = (now + _KEEP, self._ask(principal))
            with self._lock:
                if len(self._known) >= _MOST:
                    self._known.clear()
                self._known[who] = known
        return _with_present(principal, known[1])

    def _ask(self, principal: Principal) -> Choices:
        if principal.token is None:
            return Choices([], [])
        try:
            return Choices(self._provider.accounts(principal.token), self._provider.acts_for(principal.token))
        except TaskcredError:
            return Choices([], [])  # the header then names where they are only; pages stay whole


def _with_present(principal: Principal, choices: Choices) -> Choices:
    accounts, service_ids = choices.accounts, choices.service_ids
    if all(account.id != principal.account_id for account in accounts):
        accounts = [Account(principal.account_id, principal.account_id), *accounts]
    if principal.acting_iam_id and all(each.iam_id != principal.iam_id for each in service_ids):
        service_ids = [
            ActFor(principal.iam_id, principal.account_id, principal.owner_name),
            *service_ids,
        ]
    return Choices(accounts, service_ids)
