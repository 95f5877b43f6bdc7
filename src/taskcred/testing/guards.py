"""Guards: no port is called while a transaction of the records is open."""

from __future__ import annotations

from typing import Any

from taskcred.ports import IdentityProvider, Vault
from taskcred.store.engine import is_transaction_open


class _Guard:
    """Forwards everything; the port's methods only while this thread holds no transaction."""

    def __init__(self, inner: object, port: type) -> None:
        self._inner = inner
        self._methods = frozenset(name for name in vars(port) if not name.startswith("_"))

    def __getattr__(self, name: str) -> Any:
        attribute = getattr(self._inner, name)
        if name not in self._methods:
            return attribute

        def guarded(*args: Any, **kwargs: Any) -> Any:
            if is_transaction_open():
                raise AssertionError(f"{name}() of a port was called while a transaction was open")
            return attribute(*args, **kwargs)

        return guarded


class GuardedVault(_Guard):
    """A vault that fails the test which calls it inside a transaction."""

    def __init__(self, inner: Vault) -> None:
        super().__init__(inner, Vault)


class GuardedProvider(_Guard):
    """An identity provider that fails the test which calls it inside a transaction."""

    def __init__(self, inner: IdentityProvider) -> None:
        super().__init__(inner, IdentityProvider)
