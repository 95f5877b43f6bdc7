"""A vault in memory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from taskcred.domain.secret import Secret
from taskcred.errors import (
    RecordNotFoundError,
    VaultSealedError,
    VaultUnreachableError,
)
from taskcred.testing.scripted import Scripted
from taskcred.vaults.failures import Failures


class InMemoryVault(Scripted):
    """A vault that forgets everything with the process. REFUSE makes it answer as sealed."""

    def __init__(self) -> None:
        super().__init__()
        self.records: dict[str, Secret] = {}
        self._failures = Failures()

    @contextmanager
    def _vault_call(self, method: str) -> Iterator[None]:
        sealed = VaultSealedError("scripted: the vault is sealed", hint="Try again.")
        with self._failures.counted(), self._call(method, VaultUnreachableError, lambda: sealed):
            yield

    def store(self, path: str, secret: Secret) -> None:
        """See `ports.Vault`; likewise the methods below."""
        with self._vault_call("store"):
            self.records[path] = secret

    def store_once(self, path: str, secret: Secret) -> Secret:
        with self._vault_call("store"):  # a storing like any other to what a test scripts
            return self.records.setdefault(path, secret)

    def open(self, path: str) -> Secret:
        with self._vault_call("open"):
            if path not in self.records:
                raise RecordNotFoundError(f"The vault holds no record {path!r}.")
            return self.records[path]

    def destroy(self, path: str) -> None:
        with self._vault_call("destroy"):
            self.records.pop(path, None)

    def paths(self, prefix: str = "") -> list[str]:
        with self._vault_call("paths"):
            return sorted(path for path in self.records if path.startswith(prefix))

    def check(self) -> None:
        with self._vault_call("check"):
            pass

    def failures(self) -> Mapping[str, int]:
        return self._failures.read()
