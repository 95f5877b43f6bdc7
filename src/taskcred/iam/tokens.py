"""Access tokens: the claims IBM's clients read, signing them, and reading them back.

An access token is a JWT with IBM's claim names. An ID token (OpenID Connect Core, 2) is signed by the same
keys and is no access token: it has an audience and lacks `iam_id`, and `verify_access_token` refuses it.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from joserfc import jwt
from joserfc.errors import JoseError

from taskcred.domain.secret import Secret
from taskcred.errors import InvalidTokenError
from taskcred.iam.errors import TOKEN_MALFORMED, TOKEN_REFUSED
from taskcred.iam.signing import ALGORITHM, SigningKeys
from taskcred.ports import Clock

SCOPE: Final = "ibm openid"
GRANT_API_KEY: Final = "urn:ibm:params:oauth:grant-type:apikey"
GRANT_CODE: Final = "authorization_code"
GRANT_DEVICE: Final = "urn:ietf:params:oauth:grant-type:device_code"
GRANT_REFRESH: Final = "refresh_token"
INTERACTIVE: Final = frozenset({GRANT_CODE, GRANT_DEVICE})  # a person signed in
_LEEWAY: Final = 5  # seconds between the clocks of two hosts
_MAX_TOKEN: Final = 8192


@dataclass(frozen=True, slots=True)
class Subject:
    """Whom a token speaks for, in which account. `email` is empty for a service id."""

    iam_id: str
    account_id: str
    name: str
    email: str = ""

    @property
    def is_person(self) -> bool:
        """Whether this is a user, not a service id."""
        return bool(self.email)


@dataclass(frozen=True, slots=True)
class Proof:
    """How the subject proved itself. `auth_time` is set where a person signed in."""

    grant_type: str
    client_id: str = ""
    auth_time: datetime | None = None
    nonce: str = ""


class Tokens:
    """Makes and reads the tokens of one issuer."""

    def __init__(self, keys: SigningKeys, clock: Clock, *, issuer: str, ttl: timedelta) -> None:
        self._keys: Final = keys
        self._clock: Final = clock
        self._issuer: Final = issuer
        self._ttl: Final = int(ttl.total_seconds())

    def answer(
        self, subject: Subject, proof: Proof, *, scope: str = SCOPE, refresh_token: Secret | None = None
    ) -> dict[str, Any]:
        """The token endpoint's answer for `subject`, in IBM's shape."""
        issued_at = int(self._clock.now().timestamp())
        claims = self._claims(subject, proof, scope, issued_at)
        answer: dict[str, Any] = {
            "access_token": self._keys.sign(claims),
            # The client that asked gets its refresh token here, and only here.
            "refresh_token": refresh_token.reveal() if refresh_token else "not_supported",
            "token_type": "Bearer",
            "expires_in": self._ttl,
            "expiration": issued_at + self._ttl,
            "scope": scope,
        }
        if proof.grant_type in INTERACTIVE and "openid" in scope.split():
            answer["id_token"] = self._keys.sign(self._id_claims(subject, proof, issued_at))
        return answer

    def verify_access_token(self, raw_token: str) -> Mapping[str, Any]:
        """The claims of an access token of ours that is still good. Raises InvalidTokenError."""
        if len(raw_token) > _MAX_TOKEN or raw_token.count(".") != 2 or not raw_token.isascii():
            raise InvalidTokenError(
                "The access token is malformed.",
                hint="Send the access token as it was given out.",
                bxnim=TOKEN_MALFORMED,
                status=400,
            )
        try:
            claims = jwt.decode(raw_token, self._keys.public_keys(), algorithms=[ALGORITHM]).claims
        except (JoseError, ValueError, TypeError, KeyError, RecursionError):
            raise _refused() from None
        now = self._clock.now().timestamp()
        account = claims.get("account")
        if (
            claims.get("iss") != self._issuer
            or not _is_before(claims.get("iat"), now + _LEEWAY)
            or not _is_before(now - _LEEWAY, claims.get("exp"))
            or not isinstance(claims.get("iam_id"), str)
            or not isinstance(claims.get("grant_type"), str)
            or not isinstance(account, dict)
            or not isinstance(account.get("bss"), str)
        ):
            raise _refused()
        return claims

    def _claims(self, subject: Subject, proof: Proof, scope: str, issued_at: int) -> dict[str, Any]:
        realm, _, identifier = subject.iam_id.partition("-")
        claims: dict[str, Any] = {
            "iam_id": subject.iam_id,
            "id": subject.iam_id,
            "realmid": realm,
            "jti": str(uuid.uuid4()),
            "identifier": identifier,
            "name": subject.name,
            "sub": subject.email or identifier,
            "account": {"valid": True, "bss": subject.account_id},
            "iat": issued_at,
            "exp": issued_at + self._ttl,
            "iss": self._issuer,
            "grant_type": proof.grant_type,
            "scope": scope,
            "client_id": proof.client_id or "default",
            "acr": 1,
            "amr": ["pwd"],
        }
        authn = {"sub": claims["sub"], "iam_id": subject.iam_id, "name": subject.name}
        if subject.is_person:
            claims["email"] = authn["email"] = subject.email
        else:
            claims["sub_type"] = "ServiceId"
        claims["authn"] = authn
        if proof.auth_time:
            claims["auth_time"] = int(proof.auth_time.timestamp())
        return claims

    def _id_claims(self, subject: Subject, proof: Proof, issued_at: int) -> dict[str, Any]:
        claims: dict[str, Any] = {
            "iss": self._issuer,
            "sub": subject.email,
            "aud": proof.client_id,
            "iat": issued_at,
            "exp": issued_at + self._ttl,
            "name": subject.name,
            "email": subject.email,
        }
        if proof.auth_time:
            claims["auth_time"] = int(proof.auth_time.timestamp())
        if proof.nonce:
            claims["nonce"] = proof.nonce
        return claims


def _is_before(earlier: object, later: object) -> bool:
    return (
        isinstance(earlier, int | float)
        and isinstance(later, int | float)
        and not isinstance(earlier, bool)
        and earlier <= later
    )


def _refused() -> InvalidTokenError:
    return InvalidTokenError(
        "The access token is not valid here, or no longer.", hint="Get a new one.", bxnim=TOKEN_REFUSED
    )
