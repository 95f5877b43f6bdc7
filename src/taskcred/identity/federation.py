"""Tokens of other platforms: their issuers' keys by OpenID Connect Discovery 1.0, or at a URL that is given.

Only issuers that the operator trusts come here, so nobody can make us call an address by inventing an issuer.
Redirects are not followed and proxies of the environment not used: what vouches for the keys is the https
connection to the very host that the operator named.
"""

from __future__ import annotations

import json
import ssl
import threading
from collections.abc import Mapping
from datetime import timedelta
from typing import Any, Final, TypeGuard

import httpx

from taskcred.bulkhead import Bulkhead
from taskcred.domain.services import TrustView, refuse_url
from taskcred.errors import InvalidTokenError, UpstreamUnavailableError
from taskcred.identity.jwks import PublishedKeys
from taskcred.identity.tokens import signed_claims
from taskcred.ports import Clock

_DISCOVERY: Final = "/.well-known/openid-configuration"
_LONGEST: Final = 1 << 20  # bytes; a set of keys has a few thousand
_LEEWAY: Final = 60  # seconds that an issuer's clock may be ahead of ours
_PERMITS: Final = 8  # calls to issuers under way at once; fewer than a server has threads
_FITTING: Final = frozenset({"RSA", "EC"})

_Where = tuple[str, str, str]  # issuer, where its keys are, who vouches for that host


class WorkloadIssuers:
    """Implements `ports.TrustedIssuers` over HTTP."""

    def __init__(
        self, clock: Clock, *, timeout: timedelta = timedelta(seconds=5), permits: int = _PERMITS
    ) -> None:
        self._clock: Final = clock
        self._timeout: Final = timeout.total_seconds()
        self._bulkhead: Final = Bulkhead(permits)
        self._published: dict[_Where, PublishedKeys] = {}
        self._lock: Final = threading.Lock()

    def verify(self, raw_token: str, trust: TrustView) -> Mapping[str, Any]:
        """See `ports.TrustedIssuers`."""
        try:
            claims = signed_claims(raw_token, self._keys(trust))
        except InvalidTokenError:
            raise _invalid() from None
        except UpstreamUnavailableError as error:
            if error.error_code == "issuer_unavailable":
                raise
            raise _away(trust.issuer, "has not shown its keys yet") from None
        now = self._clock.now().timestamp()
        expires, not_before, issued = claims.get("exp"), claims.get("nbf", 0), claims.get("iat", 0)
        is_timely = (
            _is_number(expires)
            and _is_number(not_before)
            and _is_number(issued)
            and expires > now
            and not_before <= now + _LEEWAY
            and issued <= now + _LEEWAY
        )
        if claims.get("iss") != trust.issuer or not is_timely:
            raise _invalid()
        return claims

    def check(self, trust: TrustView) -> None:
        """Raise UpstreamUnavailableError where the issuer's keys cannot be read now; for `taskcred doctor`."""
        self._keys(trust).refresh()

    def _keys(self, trust: TrustView) -> PublishedKeys:
        where = (trust.issuer, trust.jwks_url, trust.ca_file)
        with self._lock:
            if where not in self._published:
                self._published[where] = PublishedKeys(lambda: self._fetch(where), self._clock)
            return self._published[where]

    def _fetch(self, where: _Where) -> Mapping[str, Any]:
        issuer, jwks_url, ca_file = where
        busy = _away(issuer, "has too many calls of ours under way")
        with self._bulkhead.permit(busy), self._client(issuer, ca_file) as client:
            if not jwks_url:
                jwks_url = _discovered(issuer, _get(client, issuer, issuer.rstrip("/") + _DISCOVERY))
            keys = _get(client, issuer, jwks_url).get("keys")
        if not isinstance(keys, list):
            raise _away(issuer, "published no keys")
        # A set may hold keys for other purposes, of kinds we do not take.
        fitting = [
            key
            for key in keys
            if isinstance(key, dict) and key.get("kty") in _FITTING and key.get("use", "sig") == "sig"
        ]
        return {"keys": fitting}

    def _client(self, issuer: str, ca_file: str) -> httpx.Client:
        try:
            context = ssl.create_default_context(cafile=ca_file or None)
        except (OSError, ssl.SSLError):
            raise _away(issuer, f"cannot be checked, since {ca_file} holds no certificates") from None
        return httpx.Client(
            timeout=self._timeout,
            verify=context,
            follow_redirects=False,
            trust_env=False,
            # Whatever media type: kube-apiserver shows keys as application/jwk-set+json alone (RFC 7517), others
            # as application/json, and either answers 406 where asked for the other.
            headers={"Accept": "*/*", "User-Agent": "taskcred"},
        )


def _get(client: httpx.Client, issuer: str, url: str) -> Mapping[str, Any]:
    raw = b""
    try:
        with client.stream("GET", url) as answer:
            if answer.status_code != 200:
                raise _away(issuer, f"answered with status {answer.status_code}")
            for part in answer.iter_bytes():
                raw += part
                if len(raw) > _LONGEST:
                    raise _away(issuer, "answered more than a set of keys has")
        body = json.loads(raw)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        # `from None`: the library's texts quote URLs.
        raise _away(issuer, f"cannot be reached ({type(error).__name__})") from None
    except (ValueError, RecursionError):
        raise _away(issuer, "answered something that is not JSON") from None
    if not isinstance(body, dict):
        raise _away(issuer, "answered something that is not an object")
    return body


def _discovered(issuer: str, configuration: Mapping[str, Any]) -> str:
    """Where the issuer says its keys are. OpenID Connect Discovery 1.0, section 4.3: it must be the issuer
    that was asked."""
    url = configuration.get("jwks_uri")
    if configuration.get("issuer") != issuer or not isinstance(url, str) or refuse_url(url) is not None:
        raise _away(issuer, "published a configuration that is not its own, or names no keys")
    return url


def _is_number(value: Any) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _invalid() -> InvalidTokenError:
    return InvalidTokenError(
        "The token is not valid for a service.",
        hint="Its issuer is trusted; its signature, its times, or who it is for are not what the trust says.",
    )


def _away(issuer: str, what: str) -> UpstreamUnavailableError:
    return UpstreamUnavailableError(
        f"The issuer {issuer} {what}.",
        hint="Tokens of it are accepted again once its keys can be read. The operator may name where they are: "
        "`taskcred admin service trust --jwks-url`.",
        code="issuer_unavailable",
    )
