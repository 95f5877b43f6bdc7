"""HTTP to an OpenBao or HashiCorp Vault by hvac: TLS, time-outs, and what goes wrong in our words.

Requests' and hvac's exceptions are translated here and nowhere else; what depends on the call (a record that
is not there, a login that is refused) its caller takes out first. Their texts quote URLs and headers, so
none is passed on.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import requests
from hvac import exceptions as refusals
from hvac.adapters import JSONAdapter
from hvac.api.system_backend.health import Health
from requests.adapters import HTTPAdapter

from taskcred.domain.secret import Secret
from taskcred.errors import TaskcredError, VaultRefusedError, VaultSealedError, VaultUnreachableError


@dataclass(frozen=True, slots=True)
class Place:
    """Where the vault is. `ca_file`: who vouches for it, None for the public authorities; `timeout` bounds
    each wait of a call: for the connection, and for each part of the answer."""

    address: str
    namespace: str
    ca_file: Path | None
    timeout: timedelta


class Connections:
    """Connections to one place, for many threads; at most `number` are kept."""

    def __init__(self, place: Place, number: int) -> None:
        self._place: Final = place
        self._session: Final = requests.Session()
        # Settings only: no proxy, .netrc or authority from somebody's environment.
        self._session.trust_env = False
        self._session.verify = str(place.ca_file) if place.ca_file else True
        pool = HTTPAdapter(pool_connections=1, pool_maxsize=number, max_retries=0)
        self._session.mount("https://", pool)
        self._session.mount("http://", pool)

    def close(self) -> None:
        """Give the connections back."""
        self._session.close()

    def speaking_as(self, token: Secret | None) -> JSONAdapter:
        """hvac's adapter with `token`, or with none for a login. A redirection is not followed: it could
        carry the token to another host."""
        # The vault needs the token to know who asks.
        return self._adapter(token.reveal() if token else None, self._place.namespace)

    def verify_active(self) -> None:
        """Raise VaultUnreachableError where a standby answers. One that serves reads by itself (OpenBao since
        2.5, Vault Enterprise) lags behind: what it lacks may be there, and what it would not destroy too."""
        asked = Health(self._adapter(None, ""))
        # Each of these states has a status of its own unless we name another.
        said = asked.read_health_status(standby_ok=True, sealed_code=200, uninit_code=200, method="GET")
        health = answered(said)
        if health.get("sealed"):
            raise _sealed()
        if health.get("standby", True):
            raise VaultUnreachableError(
                "A standby of the vault answered, which may lag behind.",
                hint="Let `vault.openbao.address` reach the active server only: docs/howto/openbao.md, step 3.",
            )

    def _adapter(self, token: str | None, namespace: str) -> JSONAdapter:
        return JSONAdapter(
            base_uri=self._place.address,
            token=token,
            timeout=self._place.timeout.total_seconds(),
            allow_redirects=False,
            session=self._session,
            namespace=namespace or None,
        )


@contextmanager
def translated() -> Iterator[None]:
    """Around everything that calls hvac."""
    try:
        yield
    except requests.exceptions.SSLError:
        raise VaultUnreachableError(
            "The vault's TLS certificate is not one that we can trust.",
            hint="Name its authority in `vault.openbao.ca_file`; the address must be a name in the certificate.",
        ) from None
    except requests.exceptions.Timeout:
        raise VaultUnreachableError("The vault did not answer in time.", hint=_LOOK) from None
    except requests.exceptions.RequestException:
        raise VaultUnreachableError("The vault cannot be reached.", hint=_LOOK) from None
    except refusals.VaultError as error:
        raise _in_our_words(error) from None
    except OSError as error:  # what requests raises where the file of authorities is not there
        raise VaultUnreachableError(
            f"The vault's authority cannot be read: {error.strerror or 'no such file'}.",
            hint="Check `vault.openbao.ca_file`.",
        ) from None


def answered(answer: Any) -> Mapping[str, Any]:
    """The object that a vault answers with. Raises VaultUnreachableError where it is none."""
    if not isinstance(answer, dict):
        raise not_a_vault()
    return answer


def not_a_vault() -> VaultUnreachableError:
    """Something else answers at the address."""
    return VaultUnreachableError(
        "What answers at the vault's address is no vault, or one that sends us elsewhere.",
        hint="Check `vault.openbao.address`, and proxies on the way; name the active server or its balancer.",
    )


def _in_our_words(error: refusals.VaultError) -> TaskcredError:
    said = " ".join(error.errors or ()).lower()
    match error:
        case refusals.VaultDown() if "sealed" in said:
            return _sealed()
        case refusals.VaultNotInitialized():
            return VaultSealedError(
                "The vault has not been set up.", hint="`bao operator init`, then unseal it."
            )
        case refusals.Forbidden() | refusals.Unauthorized():
            return VaultRefusedError(
                "The vault knows us and denies this call.",
                hint="Give our login the policy deploy/openbao/taskcred.hcl, with the mount's name in it; "
                "check `vault.openbao.mount` and `vault.openbao.namespace`.",
                code="vault_denied",
            )
        case refusals.InvalidPath():
            return wrong_mount("has no such mount or namespace") if error.errors else not_a_vault()
        case refusals.RateLimitExceeded():
            return VaultUnreachableError("The vault asks us to slow down.", hint="Look at its quotas.")
        case refusals.InvalidRequest():
            return VaultRefusedError(
                "The vault takes a call of ours for malformed.",
                hint="Check that `vault.openbao.mount` is of KV version 2; the vault's log may say more.",
            )
    return VaultUnreachableError("The vault is ill: it cannot answer a call.", hint=_LOOK)


def _sealed() -> VaultSealedError:
    return VaultSealedError(
        "The vault is sealed.", hint="Unseal it: `bao operator unseal`. Running jobs go on meanwhile."
    )


def wrong_mount(why: str, hint: str = "") -> VaultRefusedError:
    """The mount is not what we can keep keys in."""
    return VaultRefusedError(
        f"The vault {why}.",
        hint=hint
        or "Check `vault.openbao.mount` and `vault.openbao.namespace`; docs/howto/openbao.md sets a mount up.",
        code="vault_wrong_mount",
    )


_LOOK: Final = "Look at the vault and at `vault.openbao.address`; try again. Running jobs go on meanwhile."
