"""The authorization endpoint's decisions: whom a request comes from, whether it may be answered, where to.

RFC 6749, 4.1, with PKCE (RFC 7636) for every client and the issuer in the answer (RFC 9207).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final
from urllib.parse import urlencode

from taskcred.errors import InvalidRequestError
from taskcred.iam.clients import COMMAND_LINE, Clients
from taskcred.iam.fields import is_plain
from taskcred.iam.signins import CodeRequest, SignIn
from taskcred.iam.tokens import SCOPE

_CHALLENGE: Final = re.compile(r"[A-Za-z0-9_-]{43}")  # base64url of 32 bytes
_LONGEST: Final = {"state": 512, "nonce": 255, "account": 64, "login_hint": 254, "prompt": 64, "max_age": 9}


@dataclass(frozen=True, slots=True)
class AuthorizationRequest:
    """A request whose client and redirect address are known to belong together."""

    code: CodeRequest
    state: str
    account_id: str
    login_hint: str
    is_silent: bool
    is_fresh: bool
    max_age: timedelta | None

    @property
    def client_id(self) -> str:
        """Who asks."""
        return self.code.client_id


class RedirectError(Exception):
    """The client is told what is wrong with its request, at its redirect address (RFC 6749, 4.1.2.1)."""

    def __init__(self, location: str) -> None:
        super().__init__("the client is told by redirect")
        self.location = location


def read_request(parameters: Mapping[str, str], clients: Clients, issuer: str) -> AuthorizationRequest:
    """The request behind `parameters`.

    Raises InvalidRequestError where client and redirect address do not belong together: nobody is
    redirected then (RFC 6749, 3.1.2.4). Raises RedirectError for what else is wrong.
    """
    client_id = parameters.get("client_id", "")
    redirect_uri = parameters.get("redirect_uri", "")
    if not clients.may_redirect(client_id, redirect_uri):
        raise InvalidRequestError(
            "This sign-in was asked for by a program or an address we do not know.",
            hint="Go back to where you came from and start again. "
            "If you administer this server: its public URL must be the one you use in the browser.",
            code="unknown_client",
        )
    given = {name: parameters.get(name, "") for name in _LONGEST}
    state = given["state"] if len(given["state"]) <= _LONGEST["state"] else ""

    def refuse(error: str, description: str) -> RedirectError:
        return RedirectError(
            redirect_with(redirect_uri, error=error, error_description=description, state=state, iss=issuer)
        )

    if parameters.get("response_type") != "code":
        raise refuse("unsupported_response_type", "response_type must be code")
    challenge = parameters.get("code_challenge", "")
    if parameters.get("code_challenge_method") != "S256" or not _CHALLENGE.fullmatch(challenge):
        raise refuse("invalid_request", "PKCE with code_challenge_method S256 is required")
    scope = parameters.get("scope", "") or SCOPE
    if set(scope.split()) - set(SCOPE.split()):
        raise refuse("invalid_scope", f"scope must be of: {SCOPE}")
    for name, value in given.items():
        if len(value) > _LONGEST[name] or not is_plain(value):
            raise refuse("invalid_request", f"{name} is too long or holds control characters")
    if given["max_age"] and not (given["max_age"].isascii() and given["max_age"].isdigit()):
        raise refuse("invalid_request", "max_age must be a number of seconds")
    return AuthorizationRequest(
        code=CodeRequest(client_id, redirect_uri, challenge, " ".join(scope.split()), given["nonce"]),
        state=state,
        account_id=given["account"],
        login_hint=given["login_hint"],
        is_silent=given["prompt"] == "none",
        is_fresh=given["prompt"] == "login",
        max_age=timedelta(seconds=int(given["max_age"])) if given["max_age"] else None,
    )


def needs_proof(request: AuthorizationRequest, sign_in: SignIn | None, now: datetime) -> bool:
    """Whether the person must show their password now.

    The command line always asks for it: any program on the person's machine can pretend to be the
    command line, so a remembered browser must not answer it unseen (RFC 8252, 8.6).
    """
    if sign_in is None or request.is_fresh or request.client_id == COMMAND_LINE:
        return True
    return request.max_age is not None and now - sign_in.auth_time > request.max_age


def redirect_with(redirect_uri: str, **parameters: str) -> str:
    """The redirect address with an answer in its query; empty parameters are left out."""
    return f"{redirect_uri}?{urlencode({name: value for name, value in parameters.items() if value})}"
