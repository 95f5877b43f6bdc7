"""Signing in with a browser elsewhere: the device authorization grant (RFC 8628), for terminals without a
display and over SSH."""

from __future__ import annotations

import time
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Final

import httpx

from taskcred.cli import output, transport
from taskcred.errors import ForbiddenError, InvalidRequestError, RateLimitedError, UnavailableError

ENDPOINT: Final = "device_authorization_endpoint"  # in the discovery document of a provider that can do this
_GRANT: Final = "urn:ietf:params:oauth:grant-type:device_code"
_INTERVAL: Final = 5  # seconds, where the provider names none (RFC 8628, 3.2)
_SLOWER: Final = 5  # seconds more each time the provider says slow_down (RFC 8628, 3.5)
_LONGEST: Final = 60  # seconds; the pause doubles up to it while nobody answers us
_AGAIN: Final = "Run `taskcred login` again."


def ask_person(
    http: httpx.Client, provider: Mapping[str, str], client_id: str, account: str | None
) -> dict[str, Any]:
    """Show a code to type elsewhere and wait for the answer: what the token endpoint gives. Raises
    ForbiddenError where the person said no or did not come."""
    if ENDPOINT not in provider:
        raise InvalidRequestError(
            "This identity provider has no sign-in for devices.",
            hint="Leave --device out, where a browser is.",
        )
    form = {"client_id": client_id, "scope": "openid"} | ({"account": account} if account else {})
    answer = http.post(provider[ENDPOINT], data=form)
    if not answer.is_success:
        raise _refused(answer)
    asked: dict[str, Any] = answer.json()
    minutes = int(asked["expires_in"]) // 60
    output.note(
        "To sign in, open this page in a browser, on any device:\n\n"
        f"  {asked['verification_uri']}\n\nand type this code there:\n\n  {asked['user_code']}\n"
    )
    if "verification_uri_complete" in asked:
        output.note(f"Or open it with the code filled in:\n\n  {asked['verification_uri_complete']}\n")
    output.note(f"Waiting; the code is good for {minutes} minutes.")
    question = {"grant_type": _GRANT, "device_code": asked["device_code"], "client_id": client_id}
    return _poll(http, provider["token_endpoint"], question, asked)


def _poll(
    http: httpx.Client, endpoint: str, question: Mapping[str, str], asked: Mapping[str, Any]
) -> dict[str, Any]:
    interval = int(asked.get("interval", _INTERVAL))
    lives_until = time.monotonic() + int(asked["expires_in"])
    pause = interval
    while True:
        time.sleep(pause)
        try:
            answer = http.post(endpoint, data=question)
        except httpx.TransportError:
            answer = None
        if answer is not None and answer.is_success:
            body: dict[str, Any] = answer.json()
            return body
        if answer is None or answer.status_code >= HTTPStatus.INTERNAL_SERVER_ERROR:
            pause = min(pause * 2, _LONGEST)  # RFC 8628, 3.5: no answer, so ask less often
        else:
            match _error_of(answer):
                case "authorization_pending":
                    pass
                case "slow_down":
                    interval += _SLOWER
                case _:
                    raise _refused(answer)
            pause = interval
        if time.monotonic() > lives_until + pause:
            raise UnavailableError("The server stopped answering while you signed in.", hint=_AGAIN)


def _refused(answer: httpx.Response) -> Exception:
    """What the end of it means, in a sentence."""
    match _error_of(answer):
        case "access_denied":
            return ForbiddenError("The sign-in was denied on the page.", hint=f"If not meant: {_AGAIN}")
        case "expired_token":
            return ForbiddenError("Nobody signed in while the code was good.", hint=_AGAIN)
        case "temporarily_unavailable" if answer.status_code == HTTPStatus.TOO_MANY_REQUESTS:
            wait = answer.headers.get("Retry-After", "")
            return RateLimitedError(
                "Too many sign-ins wait for an answer at this server.",
                retry_after=int(wait) if wait.isdecimal() else 60,
            )
        case "invalid_grant":
            return ForbiddenError("The sign-in ended before it was finished.", hint=_AGAIN)
        case _:
            return transport.error_of(answer)


def _error_of(answer: httpx.Response) -> str:
    """The error's name (RFC 6749, 5.2); "" where the answer has another shape."""
    try:
        body = answer.json()
    except ValueError:
        return ""
    return str(body.get("error", "")) if isinstance(body, dict) else ""
