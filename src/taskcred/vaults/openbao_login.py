"""Who we are to an OpenBao or HashiCorp Vault: logins, and the token that is kept good.

A token is looked after by the calls that use it: in the last third of its life one of them renews it, and
logs in anew where renewing gives little or nothing, while the others go on with it. A vault that does not
know the token any more (expired, revoked, restored from a snapshot) is logged in to at once.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Protocol

import structlog
from hvac import exceptions as refusals
from hvac.adapters import JSONAdapter
from hvac.api import auth_methods

from taskcred.domain.secret import Secret
from taskcred.errors import UnavailableError, VaultRefusedError, VaultUnreachableError
from taskcred.vaults.openbao_http import answered, not_a_vault, translated

_AGAIN: Final = 5.0  # seconds until a failed renewal is tried again

log = structlog.get_logger("vault")

Speaking = Callable[[Secret | None], JSONAdapter]  # hvac's adapter with a token


@dataclass(frozen=True, slots=True)
class Issued:
    """A token, and for how many seconds (inf: for good) it is good from now on."""

    token: Secret
    ttl: float
    is_renewable: bool


class Login(Protocol):
    """A way to get a token. `name` is for people."""

    @property
    def name(self) -> str:
        """What proves who we are."""
        ...

    def log_in(self, speaking: Speaking) -> Issued:
        """A token. Raises hvac's exceptions where the vault refuses, VaultRefusedError where a file cannot
        be read."""
        ...


@dataclass(frozen=True, slots=True)
class AppRoleLogin:
    """A role id and a secret id, which is read at each login."""

    role_id: str
    secret_id_file: Path
    mount: str = "approle"
    name = "AppRole"

    def log_in(self, speaking: Speaking) -> Issued:
        """See `Login`."""
        return _issued(
            auth_methods.AppRole(speaking(None)).login(
                self.role_id,
                # The vault needs the secret id: it is what we prove ourselves with.
                _read(self.secret_id_file).reveal(),
                use_token=False,
                mount_point=self.mount,
            )
        )


@dataclass(frozen=True, slots=True)
class KubernetesLogin:
    """The pod's service-account token, which is read at each login: Kubernetes replaces it."""

    role: str
    jwt_file: Path
    mount: str = "kubernetes"
    name = "Kubernetes service account"

    def log_in(self, speaking: Speaking) -> Issued:
        """See `Login`."""
        return _issued(
            auth_methods.Kubernetes(speaking(None)).login(
                self.role,
                # The vault needs the token, to have the cluster review it.
                _read(self.jwt_file).reveal(),
                use_token=False,
                mount_point=self.mount,
            )
        )


@dataclass(frozen=True, slots=True)
class TokenFileLogin:
    """A token that somebody else gets, such as the vault's agent, and writes to a file."""

    path: Path
    name = "token file"

    def log_in(self, speaking: Speaking) -> Issued:
        """See `Login`."""
        token = _read(self.path)
        found = _field(answered(auth_methods.Token(speaking(token)).lookup_self()), "data")
        # Tokens that never end, such as a root token, have a life of 0.
        return Issued(token, float(found.get("ttl") or math.inf), bool(found.get("renewable")))


@dataclass(frozen=True, slots=True)
class _Held:
    issued: Issued
    due_at: float  # look after it from then on; by the monotonic clock, as is the next
    ends_at: float


class HeldToken:
    """The token of this process, for many threads. Where it is not at hand, nobody waits longer than
    `patience` seconds for another thread to get it."""

    def __init__(
        self, login: Login, speaking: Speaking, monotonic: Callable[[], float], patience: float
    ) -> None:
        self._login: Final = login
        self._speaking: Final = speaking
        self._monotonic: Final = monotonic
        self._patience: Final = patience
        self._lock: Final = threading.Lock()
        self._held: _Held | None = None

    def get(self) -> Secret:
        """A token that is good by the clock. Raises VaultRefusedError (`vault_login_refused`)."""
        held, now = self._held, self._monotonic()
        if held is not None and now < held.due_at:
            return held.issued.token
        if held is not None and now < held.ends_at:
            if self._lock.acquire(blocking=False):
                try:
                    if self._held is held:  # else another thread was here first
                        self._held = self._looked_after(held)
                finally:
                    self._lock.release()
            return (self._held or held).issued.token
        return self._replaced(held)

    def instead_of(self, token: Secret) -> Secret | None:
        """Another token, where the vault does not know `token` any more; None where it does, so that what it
        denied is denied to us."""
        try:
            auth_methods.Token(self._speaking(token)).lookup_self()
        except refusals.Forbidden:
            held = self._held
            if held is None or held.issued.token != token:
                return self.get()
            return self._replaced(held)
        return None

    def _replaced(self, held: _Held | None) -> Secret:
        """A token in place of the one that `held` has, by whichever thread is first."""
        with self._exclusively():
            if self._held is held or self._held is None:
                self._held = self._keep(self._log_in())
            return self._held.issued.token

    @contextmanager
    def _exclusively(self) -> Iterator[None]:
        if not self._lock.acquire(timeout=self._patience):
            raise VaultUnreachableError("The vault takes long to let us in.", hint="Try again.")
        try:
            yield
        finally:
            self._lock.release()

    def _looked_after(self, held: _Held) -> _Held:
        try:
            with translated():
                return self._keep(self._renewed(held.issued) or self._log_in())
        except UnavailableError as error:
            # Good for a while yet. When it has ended, the calls that need it say so.
            log.warning("the vault's token could not be renewed", reason=error.error_code, hint=error.hint)
            return replace(held, due_at=self._monotonic() + _AGAIN)

    def _renewed(self, issued: Issued) -> Issued | None:
        """The same token with a longer life; None where it cannot be had, or is near its longest."""
        if not issued.is_renewable:
            return None
        try:
            renewed = _issued(auth_methods.Token(self._speaking(issued.token)).renew_self())
        except (refusals.Forbidden, refusals.InvalidRequest):
            return None
        return renewed if renewed.ttl > issued.ttl / 2 else None

    def _log_in(self) -> Issued:
        try:
            return self._login.log_in(self._speaking)
        except (refusals.Forbidden, refusals.Unauthorized, refusals.InvalidRequest):
            raise _refused(f"The vault refuses our login ({self._login.name}).") from None
        except refusals.InvalidPath as error:
            if not error.errors:
                raise not_a_vault() from None
            raise _refused(f"The vault knows no login by {self._login.name} where we look for it.") from None

    def _keep(self, issued: Issued) -> _Held:
        now = self._monotonic()
        return _Held(issued, due_at=now + issued.ttl * 2 / 3, ends_at=now + issued.ttl)


def _refused(what: str) -> VaultRefusedError:
    return VaultRefusedError(
        what,
        hint="Check role, secret id or token, and their expiry, with the vault's administrator; "
        "docs/howto/openbao.md has the commands. A changed file is read at the next call.",
        code="vault_login_refused",
    )


def _issued(answer: Any) -> Issued:
    auth = _field(answered(answer), "auth")
    token, ttl = auth.get("client_token"), auth.get("lease_duration")
    if not isinstance(token, str) or not isinstance(ttl, int):
        raise not_a_vault()
    return Issued(Secret(token), float(ttl or math.inf), bool(auth.get("renewable")))


def _field(answer: Any, name: str) -> dict[str, Any]:
    found = answer.get(name)
    if not isinstance(found, dict):
        raise not_a_vault()
    return found


def _read(path: Path) -> Secret:
    try:
        text = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        text = ""
    if not text:
        raise _refused(f"There is nothing to log in to the vault with: {path} cannot be read, or is empty.")
    return Secret(text)
