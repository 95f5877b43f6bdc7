"""The accounts a person may switch to, as the page header shows them."""

from __future__ import annotations

import threading
from typing import Final

from taskcred.domain.permissions import Principal
from taskcred.errors import TaskcredError
from taskcred.ports import Account, Clock, IdentityProvider

_KEEP: Final = 60.0  # seconds; also after a failure, so that a provider that is away slows no page twice
_MOST: Final = 1000  # people remembered


class AccountBook:
    """Asks the identity provider at most once a minute for each person."""

    def __init__(self, provider: IdentityProvider, clock: Clock) -> None:
        self._provider: Final = provider
        self._clock: Final = clock
        self._known: dict[str, tuple[float, list[Account]]] = {}
        self._lock: Final = threading.Lock()

    def of(self, principal: Principal) -> list[Account]:
        """The person's accounts, the present one included; only that one where the provider is away."""
        now = self._clock.monotonic()
        with self._lock:
            known = self._known.get(principal.iam_id)
        if known is None or known[0] <= now:
            known = (now + _KEEP, self._ask(principal))
            with self._lock:
                if len(self._known) >= _MOST:
                    self._known.clear()
                self._known[principal.iam_id] = known
        accounts = known[1]
        if any(account.id == principal.account_id for account in accounts):
            return accounts
        return [Account(principal.account_id, principal.account_id), *accounts]

    def _ask(self, principal: Principal) -> list[Account]:
        if principal.token is None:
            return []
        try:
            return self._provider.accounts(principal.token)
        except TaskcredError:
            return []  # the header then names the present account only; pages stay whole
