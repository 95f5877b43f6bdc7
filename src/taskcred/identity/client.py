"""The client of an IBM-shaped IAM: IBM Cloud IAM, or the local IAM, over HTTP or in this process."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final, NoReturn
from urllib.parse import quote, urlencode

import httpx

from taskcred.domain.secret import Secret
from taskcred.errors import (
    InvalidTokenError,
    KeyRefusedError,
    ProviderRefusedError,
    UpstreamUnavailableError,
)
from taskcred.identity import claims as claims_of
from taskcred.identity.jwks import PublishedKeys
from taskcred.identity.tokens import TokenVerifier
from taskcred.identity.upstream import Refusal, Upstream
from taskcred.ports import AccessToken, Account, ActFor, Clock, ProviderKey, SignIn
from taskcred.wsgi import WsgiApp

_TOKEN: Final = "/identity/token"  # noqa: S105 - a path
_KEYS: Final = "/v1/apikeys"
_ACT_FOR: Final = "/identity/act-for"  # the local IAM's; others do not know it
# Not allowed to this person, to no program, or to nobody; or the token has ended meanwhile.
_MAY_NOT: Final = frozenset({401, 403, 404})
_GRANT_APIKEY: Final = "urn:ibm:params:oauth:grant-type:apikey"
_NO_REFRESH: Final = "not_supported"  # what IBM's IAM says in place of a refresh token
# IBM's codes for "your request lacks something" and "wrong method": our mistake, never the key's.
_OUR_MISTAKE: Final = frozenset({"BXNIM0109E", "BXNIM0060E"})


class IamClient:
    """Implements `ports.IdentityProvider` for the provider at `url` (no trailing slash).

    `client_id` and `client_secret` are ours there. At most `permits` calls are under way at once. A provider
    in this process is given as its WSGI application, `app`: no network and no limit then, for what it waits
    for is our own disk.
    """

    def __init__(
        self,
        url: str,
        *,
        client_id: str,
        client_secret: Secret,
        clock: Clock,
        timeout: timedelta,
        permits: int = 16,
        app: WsgiApp | None = None,
    ) -> None:
        self._url: Final = url
        self._us: Final = (client_id, client_secret)
        self._upstream: Final = Upstream(
            url,
            timeout=timeout,
            permits=None if app else permits,
            transport=httpx.WSGITransport(app) if app else None,
        )
        self._published: Final = PublishedKeys(self._fetch_keys, clock)
        self._verifier: Final = TokenVerifier(f"{url}/identity", self._published, clock)

    def close(self) -> None:
        """Give the connections back."""
        self._upstream.close()

    def exchange(self, api_key: Secret, *, for_run: bool) -> AccessToken:
        """See `ports.IdentityProvider`; likewise the methods below."""
        form = {
            "grant_type": _GRANT_APIKEY,
            # The provider needs the key: this exchange is the one place a user's key goes to.
            "apikey": api_key.reveal(),
            "response_type": "cloud_iam",
        }
        answer = self._upstream.call("POST", _TOKEN, form=form, basic=self._us if for_run else None)
        if not isinstance(answer, Refusal):
            return self._issued(answer)
        if answer.status == 401 or answer.code in _OUR_MISTAKE:
            _refuse("exchange an API key", answer, api_key)
        raise KeyRefusedError(
            f"The identity provider does not accept this API key ({answer.code}).",
            hint="The key is unknown, disabled or expired there, or its owner left the account. Provide another key.",
        )

    def verify(self, raw_token: str) -> AccessToken:
        return self._verifier.verify(raw_token)

    def key_details(self, api_key: Secret, authority: Secret) -> ProviderKey:
        # The provider needs the key to tell which it is.
        text = api_key.reveal()
        if not (text.isascii() and text.isprintable()):
            raise KeyRefusedError(
                "This API key has characters that no header can carry.", hint="Check what was pasted."
            )
        answer = self._upstream.call(
            "GET", f"{_KEYS}/details", bearer=authority, headers={"IAM-ApiKey": text}
        )
        return _provider_key(_accepted("describe the key", answer, api_key))

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
        body = {
            "name": name,
            "iam_id": iam_id,
            "account_id": account_id,
            # The provider needs the value: it is to accept exactly this key from now on.
            "apikey": value.reveal(),
        }
        if expires_at is not None:
            body["expires_at"] = expires_at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S+0000")
        answer = self._upstream.call("POST", _KEYS, bearer=authority, json=body)
        return _provider_key(_accepted("create the key", answer, value))

    def disable_key(self, authority: Secret, provider_key_id: str) -> None:
        self._end("disable the key", authority, "POST", provider_key_id, "/disable")

    def delete_key(self, authority: Secret, provider_key_id: str) -> None:
        self._end("delete the key", authority, "DELETE", provider_key_id, "")

    def _end(self, what: str, authority: Secret, method: str, key_id: str, action: str) -> None:
        answer = self._upstream.call(method, f"{_KEYS}/{quote(key_id, safe='')}{action}", bearer=authority)
        if not (isinstance(answer, Refusal) and answer.status == 404):
            _accepted(what, answer)

    def sign_in_url(self, *, redirect_uri: str, state: str, code_challenge: str, fresh: bool) -> str:
        query = {
            "response_type": "code",
            "client_id": self._us[0],
            "redirect_uri": redirect_uri,
            "scope": "openid",
            "state": state,
            "code_challenge": code_challenge,
            "code_challenge_method": "S256",
        }
        if fresh:
            query["prompt"] = "login"
        return f"{self._url}/identity/authorize?{urlencode(query)}"

    def sign_out_url(self) -> str:
        return f"{self._url}/identity/sign-out"

    def finish_sign_in(self, *, code: str, redirect_uri: str, code_verifier: str) -> SignIn:
        return self._sign_in(
            {
                "grant_type": "authorization_code",
                "code": code,
                "redirect_uri": redirect_uri,
                "code_verifier": code_verifier,
            }
        )

    def refresh_sign_in(self, refresh_token: Secret, *, account_id: str | None = None) -> SignIn:
        # The provider needs the refresh token: it is its own.
        form = {"grant_type": "refresh_token", "refresh_token": refresh_token.reveal()}
        if account_id is not None:
            form["bss_account"] = account_id
        return self._sign_in(form)

    def _sign_in(self, form: Mapping[str, str]) -> SignIn:
        secrets = [Secret(form[name]) for name in ("code", "code_verifier", "refresh_token") if name in form]
        answer = self._upstream.call("POST", _TOKEN, form=form, basic=self._us)
        body = _accepted("finish the sign-in", answer, *secrets)
        access = self._issued(body)
        refresh = str(body.get("refresh_token", _NO_REFRESH))
        auth_time = claims_of.auth_time(access.claims) or access.issued_at
        return SignIn(access, Secret(refresh) if refresh != _NO_REFRESH else None, auth_time)

    def accounts(self, authority: Secret) -> list[Account]:
        body = _accepted("list accounts", self._upstream.call("GET", "/v1/accounts", bearer=authority))
        try:
            return [Account(str(item["id"]), str(item["name"])) for item in body["accounts"]]
        except (KeyError, TypeError):
            raise _strange() from None

    def may_act(self, authority: Secret, iam_id: str) -> ActFor | None:
        path = f"{_ACT_FOR}/{quote(iam_id, safe='')}"
        answer = self._upstream.call("GET", path, bearer=authority)
        if isinstance(answer, Refusal) and answer.status in _MAY_NOT:
            return None
        return _act_for(_accepted("say whom you may act for", answer))

    def acts_for(self, authority: Secret) -> list[ActFor]:
        answer = self._upstream.call("GET", _ACT_FOR, bearer=authority)
        if isinstance(answer, Refusal) and answer.status in _MAY_NOT:
            return []
        body = _accepted("say whom you may act for", answer)
        try:
            return [_act_for(item) for item in body["service_ids"]]
        except (KeyError, TypeError):
            raise _strange() from None

    def check(self) -> None:
        self._published.refresh()

    def _fetch_keys(self) -> Mapping[str, Any]:
        return _accepted("show its keys", self._upstream.call("GET", "/identity/keys"))

    def _issued(self, body: Mapping[str, Any]) -> AccessToken:
        raw_token = body.get("access_token")
        if not isinstance(raw_token, str):
            raise _strange()
        try:
            return self._verifier.verify(raw_token)
        except InvalidTokenError:
            # Not the caller's token: one that the provider gave us this moment.
            raise UpstreamUnavailableError(
                "The identity provider gave out an access token that does not verify.",
                hint="Compare its issuer with the configured URL, its clock with ours, and look at /identity/keys.",
            ) from None


def _accepted(what: str, answer: Mapping[str, Any] | Refusal, *secrets: Secret) -> Mapping[str, Any]:
    if isinstance(answer, Refusal):
        _refuse(what, answer, *secrets)
    return answer


def _refuse(what: str, refusal: Refusal, *secrets: Secret) -> NoReturn:
    """The provider's sentence helps its reader; not if it repeats a secret we sent."""
    # The texts are needed to look for them.
    is_safe = not any(secret.reveal() in refusal.message for secret in secrets)
    sentence = f": {refusal.message}" if refusal.message and is_safe else "."
    raise ProviderRefusedError(
        f"The identity provider refused to {what} ({refusal.status} {refusal.code}){sentence}",
        status=refusal.status,
        hint="The sign-in may lack the right, or the provider's limits are reached.",
        provider_code=refusal.code,
    )


def _provider_key(body: Mapping[str, Any]) -> ProviderKey:
    try:
        expires_at = body.get("expires_at")
        return ProviderKey(
            id=str(body["id"]),
            name=str(body["name"]),
            iam_id=str(body["iam_id"]),
            account_id=str(body["account_id"]),
            locked=bool(body.get("locked", False)),
            disabled=bool(body.get("disabled", False)),
            created_at=_instant(body["created_at"]),
            expires_at=_instant(expires_at) if expires_at else None,
        )
    except (KeyError, TypeError, ValueError):
        raise _strange() from None


def _act_for(body: Mapping[str, Any]) -> ActFor:
    try:
        return ActFor(str(body["iam_id"]), str(body["account_id"]), str(body["name"]))
    except (KeyError, TypeError):
        raise _strange() from None


def _instant(text: str) -> datetime:
    """IBM writes "2024-10-04T12:28+0000"."""
    at = datetime.fromisoformat(text)
    return (at if at.tzinfo else at.replace(tzinfo=UTC)).astimezone(UTC)


def _strange() -> UpstreamUnavailableError:
    return UpstreamUnavailableError(
        "The identity provider answered something we do not understand.", hint="Check the configured URL."
    )
