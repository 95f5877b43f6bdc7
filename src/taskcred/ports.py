"""What we need from outside, by role: a vault, an identity provider, a clock, the revocation log.

No transaction or connection of the records database may be open while a Vault or IdentityProvider method
runs (`taskcred.testing` enforces it). Adapters translate their library's exceptions into `errors`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from taskcred.domain.secret import Secret
from taskcred.domain.services import TrustView


class Clock(Protocol):
    """Time as an argument."""

    def now(self) -> datetime:
        """The present instant, aware, UTC."""
        ...

    def monotonic(self) -> float:
        """Seconds that never go back; only differences mean something."""
        ...


class RevocationLog(Protocol):
    """The log outside every backup that says what must stay ended after a restore."""

    def append(self, kind: str, ref: str, account_id: str, iam_id: str) -> None:
        """Durable when it returns; ids and times only. Raises StoreBusyError where it cannot be written."""
        ...


class Vault(Protocol):
    """Where key material lives. A path ("credentials/<credential>/<key>") is a record's identity and is
    bound to its ciphertext: a record cannot be moved to another path.

    Every method raises VaultSealedError, VaultUnreachableError or VaultRefusedError (503) when the vault is
    away or does not let us in, and IntegrityError when a record does not authenticate.
    """

    def store(self, path: str, secret: Secret) -> None:
        """Seal `secret` durably under `path`; replaces what was there, of which nothing is left."""
        ...

    def store_once(self, path: str, secret: Secret) -> Secret:
        """Seal `secret` under `path` unless something is there already; what is there now. However many
        call this at once, all are answered the same."""
        ...

    def open(self, path: str) -> Secret:
        """The secret under `path`. Raises RecordNotFoundError."""
        ...

    def destroy(self, path: str) -> None:
        """Erase the record under `path`; nothing happens where there is none."""
        ...

    def paths(self, prefix: str = "") -> list[str]:
        """The paths that begin with `prefix`, sorted."""
        ...

    def check(self) -> None:
        """Raise what a call would raise now; for health."""
        ...

    def failures(self) -> Mapping[str, int]:
        """How many calls failed in this process, by the error's code; for metrics."""
        ...


class TrustedIssuers(Protocol):
    """The platforms whose workloads are services by tokens of their own. Calls have time-outs and pass a
    bulkhead; keys are kept."""

    def verify(self, raw_token: str, trust: TrustView) -> Mapping[str, Any]:
        """The claims of a token whose signature (RS256 or ES256), issuer and times are good by `trust`; who
        and for whom it is, is the caller's to see.

        Raises InvalidTokenError, and UpstreamUnavailableError where the issuer's keys cannot be had.
        """
        ...


@dataclass(frozen=True, slots=True)
class AccessToken:
    """A short-lived bearer token (a JWT) of the provider, with its claims as we verified them."""

    token: Secret
    claims: Mapping[str, Any]
    iam_id: str
    account_id: str
    issued_at: datetime
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class SignIn:
    """Result of an interactive sign-in: an access token, a refresh token, when the person proved identity."""

    access: AccessToken
    refresh_token: Secret | None
    auth_time: datetime


@dataclass(frozen=True, slots=True)
class ProviderKey:
    """An API key as the provider describes it; never its value."""

    id: str
    name: str
    iam_id: str
    account_id: str
    locked: bool
    disabled: bool
    created_at: datetime
    expires_at: datetime | None


@dataclass(frozen=True, slots=True)
class Account:
    """An account the signed-in person is a member of."""

    id: str
    name: str


@dataclass(frozen=True, slots=True)
class ActFor:
    """A service id that a person may act for, in its account."""

    iam_id: str
    account_id: str
    name: str


class IdentityProvider(Protocol):
    """IBM Cloud IAM or the local IAM. Calls have time-outs and pass a bulkhead.

    Raises UpstreamUnavailableError where the provider is away or too busy, KeyRefusedError where it
    refuses an API key, ProviderRefusedError (with `status`) where it refuses a management call,
    InvalidTokenError where a token does not verify.
    """

    def exchange(self, api_key: Secret, *, for_run: bool) -> AccessToken:
        """Turn an API key into an access token. `for_run` sends our client id with it, so that the local
        IAM refuses key writes to the token; without it the token can manage keys."""
        ...

    def verify(self, raw_token: str) -> AccessToken:
        """Signature, issuer, expiry and shape of a token against the provider's published keys."""
        ...

    def key_details(self, api_key: Secret, authority: Secret) -> ProviderKey:
        """Describe the key whose value is given; `authority` is an access token of the same identity."""
        ...

    def create_key(
        self,
        authority: Secret,
        *,
        name: str,
        iam_id: str,
        account_id: str,
        value: Secret,
        expires_at: datetime | None,
    ) -> ProviderKey:
        """Create an API key with the value given (32 characters or more)."""
        ...

    def disable_key(self, authority: Secret, provider_key_id: str) -> None:
        """Stop a key from getting tokens; nothing happens where it is gone."""
        ...

    def delete_key(self, authority: Secret, provider_key_id: str) -> None:
        """Delete a key; nothing happens where it is gone."""
        ...

    def sign_out_url(self) -> str:
        """Where to send a browser so that the provider forgets its sign-in too (OpenID Connect
        RP-Initiated Logout 1.0)."""
        ...

    def sign_in_url(self, *, redirect_uri: str, state: str, code_challenge: str, fresh: bool) -> str:
        """Where to send a browser (authorization code with PKCE, RFC 7636). `fresh` asks for a new proof
        of identity even if the provider remembers the browser."""
        ...

    def finish_sign_in(self, *, code: str, redirect_uri: str, code_verifier: str) -> SignIn:
        """Redeem an authorization code."""
        ...

    def refresh_sign_in(self, refresh_token: Secret, *, account_id: str | None = None) -> SignIn:
        """A new access token for the same sign-in, for another account of the person where one is named."""
        ...

    def accounts(self, authority: Secret) -> list[Account]:
        """The accounts the token's owner is a member of."""
        ...

    def may_act(self, authority: Secret, iam_id: str) -> ActFor | None:
        """The service id, where the person who signed in for this token may act for it in the token's
        account (`serviceid:act`), else None. The answer is of this moment: never keep it."""
        ...

    def acts_for(self, authority: Secret) -> list[ActFor]:
        """All service ids that `may_act` answers; none where the provider knows no such permission."""
        ...

    def check(self) -> None:
        """Raise what a call would raise now; for health."""
        ...
