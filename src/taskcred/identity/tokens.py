"""Verifying the provider's access tokens."""

from __future__ import annotations

import json
from typing import Any, Final

from joserfc import jws
from joserfc.errors import JoseError

from taskcred.errors import InvalidTokenError
from taskcred.identity import claims as claims_of
from taskcred.identity.jwks import PublishedKeys
from taskcred.ports import AccessToken, Clock

# The local IAM's and IBM's; never "none", never symmetric.
_REGISTRY: Final = jws.JWSRegistry(algorithms=["ES256", "RS256"])
_LONGEST: Final = 16_384  # characters; IBM's tokens have about 1,500
_LEEWAY: Final = 60  # seconds that the provider's clock may be ahead of ours


class TokenVerifier:
    """Verifies tokens of one issuer against its published keys."""

    def __init__(self, issuer: str, keys: PublishedKeys, clock: Clock) -> None:
        self._issuer: Final = issuer
        self._keys: Final = keys
        self._clock: Final = clock

    def verify(self, raw_token: str) -> AccessToken:
        """The token in our words. Checked: form, algorithm, key id, signature, issuer, times, and the
        claims we live by. Not checked: whether it was revoked or handed to a run.

        Raises InvalidTokenError, whatever is wrong with it; UpstreamUnavailableError where the keys are
        needed and cannot be had.
        """
        claims = signed_claims(raw_token, self._keys)
        if claims.get("iss") != self._issuer:
            raise _invalid()
        token = claims_of.access_token(raw_token, claims)
        self._check_times(token, claims)
        return token

    def _check_times(self, token: AccessToken, claims: dict[str, Any]) -> None:
        now = self._clock.now().timestamp()
        not_before = claims.get("nbf", 0)
        if (
            token.expires_at.timestamp() <= now
            or token.issued_at.timestamp() > now + _LEEWAY
            or not isinstance(not_before, int | float)
            or not_before > now + _LEEWAY
        ):
            raise _invalid()


def signed_claims(raw_token: str, keys: PublishedKeys) -> dict[str, Any]:
    """The claims of a token that one of `keys` signed; form, algorithm and signature are checked, and nothing
    else. Raises as `TokenVerifier.verify`."""
    if len(raw_token) > _LONGEST or not raw_token.isascii():
        raise _invalid()
    try:
        signed = jws.extract_compact(raw_token.encode())
        key = keys.find(str(signed.headers().get("kid", "")))
        if key is None or not jws.validate_compact(signed, key, registry=_REGISTRY):
            raise _invalid()
        claims = json.loads(signed.payload)
    except (JoseError, ValueError, TypeError, AttributeError, RecursionError):
        raise _invalid() from None
    if not isinstance(claims, dict):
        raise _invalid()
    return claims


def _invalid() -> InvalidTokenError:
    # One answer for malformed, forged, foreign and expired (RFC 6750, 3.1).
    return InvalidTokenError("The access token is not valid.", hint="Sign in again, or ask for a new token.")
