"""OpenBao or HashiCorp Vault as the vault: records in a KV mount of version 2.

A record is a KV secret with two fields, `value` and `path`; the second binds the first to its path. Every
write is a check-and-set, so that of two writers one is told. The mount keeps one version of each secret:
what is replaced is gone with the write that replaces it, and what is destroyed goes with its metadata, so
there is no moment at which a crash of ours leaves something behind. `check` holds the mount to that.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from http.client import NO_CONTENT
from typing import Final, TypeVar
from urllib.parse import quote, unquote

from hvac import exceptions as refusals
from hvac.api.secrets_engines import KvV2

from taskcred.bulkhead import Bulkhead
from taskcred.domain.secret import Secret
from taskcred.errors import (
    IntegrityError,
    RecordNotFoundError,
    VaultRefusedError,
    VaultUnreachableError,
)
from taskcred.ports import Clock
from taskcred.vaults.failures import Failures
from taskcred.vaults.openbao_http import Connections, Place, answered, not_a_vault, translated, wrong_mount
from taskcred.vaults.openbao_login import HeldToken, Login

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class _Record:
    version: int
    secret: Secret


class OpenBaoVault:
    """Implements `ports.Vault` on the KV mount `mount`, which is this installation's alone. At most
    `permits` calls are under way at once, the next is refused at once."""

    def __init__(self, place: Place, login: Login, *, mount: str, permits: int, clock: Clock) -> None:
        self._connections: Final = Connections(place, permits)
        self._token: Final = HeldToken(
            login, self._connections.speaking_as, clock.monotonic, place.timeout.total_seconds()
        )
        self._mount: Final = mount
        self._bulkhead: Final = Bulkhead(permits)
        self._failures: Final = Failures()

    def close(self) -> None:
        """Give the connections back."""
        self._connections.close()

    def store(self, path: str, secret: Secret) -> None:
        """See `ports.Vault`; likewise the methods below."""
        self._call(lambda kv: self._store(kv, path, secret))

    def store_once(self, path: str, secret: Secret) -> Secret:
        return self._call(lambda kv: self._store_once(kv, path, secret))

    def open(self, path: str) -> Secret:
        found = self._call(lambda kv: self._find_or_miss(kv, path))
        if found is None:
            raise RecordNotFoundError(f"The vault holds no record {path!r}.")
        return found.secret

    def destroy(self, path: str) -> None:
        self._call(lambda kv: self._destroy(kv, path))

    def paths(self, prefix: str = "") -> list[str]:
        return sorted(self._call(lambda kv: list(self._walk(kv, prefix))))

    def check(self) -> None:
        self._call(self._verify_mount)

    def failures(self) -> Mapping[str, int]:
        return self._failures.read()

    def _call(self, act: Callable[[KvV2], _T]) -> _T:
        busy = VaultUnreachableError(
            "As many calls to the vault are under way as are allowed at once.",
            hint="Try again in a moment; `vault.openbao.bulkhead` is the limit.",
        )
        with self._failures.counted(), self._bulkhead.permit(busy), translated():
            token = self._token.get()
            try:
                return act(KvV2(self._connections.speaking_as(token)))
            except refusals.Forbidden:
                other = self._token.instead_of(token)
                if other is None:
                    raise
                # From its beginning: each act may be repeated.
                return act(KvV2(self._connections.speaking_as(other)))

    def _store(self, kv: KvV2, path: str, secret: Secret) -> None:
        if self._write(kv, path, secret, over=0):
            return
        found = self._find(kv, path)
        if found is not None and found.secret == secret:  # a write of ours whose answer was lost
            return
        if not self._write(kv, path, secret, over=found.version if found else 0):
            raise _overtaken(path)

    def _store_once(self, kv: KvV2, path: str, secret: Secret) -> Secret:
        if self._write(kv, path, secret, over=0):
            return secret
        found = self._find(kv, path)
        if found is None:
            raise _overtaken(path)
        return found.secret

    def _write(self, kv: KvV2, path: str, secret: Secret, *, over: int) -> bool:
        """Whether the record was written over version `over` of it (0: over none)."""
        # The vault needs the text: it is what it keeps.
        fields = {"path": path, "value": secret.reveal()}
        try:
            answer = kv.create_or_update_secret(_name(path), fields, cas=over, mount_point=self._mount)
        except refusals.InvalidRequest as error:
            if any("check-and-set" in sentence for sentence in error.errors or ()):
                return False
            raise
        written = answered(answer).get("data")
        if not isinstance(written, dict) or "version" not in written:
            raise wrong_mount("has no KV mount of version 2 there")
        if written.get("deletion_time"):
            raise wrong_mount("deletes the mount's records after a time", _KEEP_ALL)
        return True

    def _find(self, kv: KvV2, path: str) -> _Record | None:
        try:
            answer = kv.read_secret_version(
                _name(path), mount_point=self._mount, raise_on_deleted_version=True
            )
        except refusals.InvalidPath as error:
            if error.errors or error.json is None:
                raise  # the mount is not there, or whoever answers is no vault
            if error.json.get("data"):
                raise IntegrityError(
                    f"The vault record {path!r} was deleted by somebody else.",
                    hint=f"`bao kv undelete` may bring it back; its name in the mount is {_name(path)}.",
                ) from None
            return None
        try:
            held, version = answer["data"]["data"], int(answer["data"]["metadata"]["version"])
            is_ours, value = held["path"] == path, held["value"]
        except (KeyError, TypeError, ValueError):
            is_ours, value, version = False, None, 0
        if not is_ours or not isinstance(value, str):
            raise IntegrityError(
                f"The vault record {path!r} was altered or moved.",
                hint="Somebody or something else wrote to our mount; restore the vault's last good snapshot.",
            )
        return _Record(version, Secret(value))

    def _destroy(self, kv: KvV2, path: str) -> None:
        # A standby that has not heard of the record would answer as if it were destroyed.
        self._connections.verify_active()
        # All versions, and that there ever was such a record.
        answer = kv.delete_metadata_and_all_versions(_name(path), mount_point=self._mount)
        if getattr(answer, "status_code", None) != NO_CONTENT:
            raise not_a_vault()

    def _find_or_miss(self, kv: KvV2, path: str) -> _Record | None:
        """As `_find`; None where it is missing for sure. Who is told so takes the key for lost."""
        found = self._find(kv, path)
        if found is None:
            self._connections.verify_active()
        return found

    def _walk(self, kv: KvV2, prefix: str) -> Iterator[str]:
        folders = [prefix[: prefix.rfind("/") + 1]]
        while folders:
            folder = folders.pop()
            for name in self._list(kv, folder):
                path = folder + _part(name)
                if name.endswith("/"):
                    if path.startswith(prefix) or prefix.startswith(path):
                        folders.append(path)
                elif path.startswith(prefix):
                    yield path

    def _list(self, kv: KvV2, folder: str) -> list[str]:
        """The names in `folder` ("" or with "/" at its end), those of folders with "/" at theirs."""
        try:
            name = "/".join(_escaped(part) for part in folder.split("/")[:-1])
            answer = kv.list_secrets(name, mount_point=self._mount)
        except refusals.InvalidPath as error:
            if error.errors or error.json is None:
                raise
            return []
        try:
            return [str(name) for name in answer["data"]["keys"]]
        except (KeyError, TypeError):
            raise not_a_vault() from None

    def _verify_mount(self, kv: KvV2) -> None:
        try:
            answer = kv.read_configuration(mount_point=self._mount)
        except refusals.InvalidPath as error:
            if error.json is None:
                raise
            raise wrong_mount("has no KV mount of version 2 there") from None
        config = answered(answer).get("data") or {}
        if str(config.get("delete_version_after", "0s")) not in {"0s", "0"}:
            raise wrong_mount("deletes the mount's records after a time", _KEEP_ALL)
        if config.get("max_versions") != 1:
            raise wrong_mount(
                "would keep keys that were replaced: the mount holds more than one version",
                f"bao write {self._mount}/config max_versions=1",
            )


def _name(path: str) -> str:
    """The record's name in the mount: "/" parts it, everything else that is not a letter, a digit or one of
    `-._~` is written as `=` and two hexadecimal digits; so are parts that a URL would lose."""
    return "/".join(_escaped(part) for part in path.split("/"))


def _escaped(part: str) -> str:
    if part in {".", ".."}:
        return part.replace(".", "=2E")
    return quote(part, safe="").replace("%", "=") or "="


def _part(name: str) -> str:
    """What was escaped; a folder's "/" stays at its end."""
    end = "/" if name.endswith("/") else ""
    name = name.removesuffix("/")
    return end if name == "=" else unquote(name.replace("=", "%")) + end


def _overtaken(path: str) -> VaultRefusedError:
    return VaultRefusedError(
        f"Somebody else wrote or destroyed the vault record {path!r} at the same moment.",
        hint="Try again.",
        code="vault_conflict",
    )


_KEEP_ALL: Final = "Turn that off (`delete_version_after=0s` in the mount's config): it destroys keys."
