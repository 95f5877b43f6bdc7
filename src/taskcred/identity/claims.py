"""From a provider's claims to our words. Only claims whose signature was verified come here."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

from taskcred.domain.secret import Secret
from taskcred.errors import InvalidTokenError
from taskcred.ports import AccessToken

# Our client id at every provider: a token that bears it, and that no person signed in for, was made for a run.
CLIENT_ID: Final = "taskcred"

# A person was there when such a token was made. All else, what we have never heard of included, is
# programmatic (only-what-the-user-started). The long forms are the same grants as IBM's tokens spell them.
INTERACTIVE_GRANT_TYPES: Final = frozenset(
    {
        "authorization_code",
        "passcode",
        "device_code",
        "urn:ibm:params:oauth:grant-type:passcode",
        "urn:ietf:params:oauth:grant-type:device_code",
    }
)


def is_interactive(claims: Mapping[str, Any]) -> bool:
    """Whether the token of these claims came from a person's own sign-in."""
    return claims.get("grant_type") in INTERACTIVE_GRANT_TYPES


def auth_time(claims: Mapping[str, Any]) -> datetime | None:
    """When the person last proved who they are (OpenID Connect Core, section 2); None where not told."""
    value = claims.get("auth_time")
    return _instant(value) if _is_number(value) else None


def access_token(raw_token: str, claims: Mapping[str, Any]) -> AccessToken:
    """The token in our words. Raises InvalidTokenError where a claim we live by is missing or odd."""
    account = claims.get("account")
    account_id = account.get("bss") if isinstance(account, Mapping) else None
    iam_id, issued, expires = claims.get("iam_id"), claims.get("iat"), claims.get("exp")
    if not (isinstance(iam_id, str) and iam_id and isinstance(account_id, str) and account_id):
        raise InvalidTokenError("The access token does not say whose it is.", hint="Sign in for an account.")
    if not (_is_number(issued) and _is_number(expires)):
        raise InvalidTokenError("The access token does not say how long it lives.", hint="Sign in again.")
    return AccessToken(Secret(raw_token), claims, iam_id, account_id, _instant(issued), _instant(expires))


def _is_number(value: Any) -> bool:
    # bool is an int to Python; a far future beyond what datetime holds is no time either.
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 1 << 37


def _instant(value: Any) -> datetime:
    return datetime.fromtimestamp(value, UTC)
