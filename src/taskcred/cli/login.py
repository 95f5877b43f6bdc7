"""Signing in from a terminal, with a browser here or elsewhere, and the refresh of what that gave."""

from __future__ import annotations

import base64
import json
import os
import sys
import time
from collections.abc import Mapping
from typing import Any, Final

import httpx

from taskcred.cli import login_device, login_loopback, state, transport
from taskcred.cli.where import Server
from taskcred.domain.secret import Secret
from taskcred.errors import ForbiddenError, InvalidTokenError, UnavailableError

CLIENT_ID: Final = "taskcred-cli"
_DISCOVERY: Final = "/identity/.well-known/openid-configuration"


def sign_in(server: Server, *, account: str | None, browser: bool | None, device: bool) -> state.SignedIn:
    """Lead a person through the sign-in and keep what it gave. `device`: with a browser elsewhere;
    `browser`: with one here, which is opened or not; neither: as it fits this terminal.

    Raises ForbiddenError where it was refused or nobody came.
    """
    with transport.open_client(server) as client, transport.translated(server.url):
        provider = _discover(client)
        is_elsewhere = browser is None and not _has_browser() and login_device.ENDPOINT in provider
        if device or is_elsewhere:
            entry = _entry(login_device.ask_person(client, provider, CLIENT_ID, account), server)
        else:
            opens = browser is not False and _has_browser()
            form = login_loopback.ask_person(provider, CLIENT_ID, account, open_browser=opens)
            entry = _redeem(client, provider["token_endpoint"], form, server)
    with state.locked():
        state.remember(entry, make_current=True)
    return entry


def refreshed(server: Server, *, seen: Secret) -> state.SignedIn:
    """The sign-in with a new access token in place of `seen`; another command may have fetched it already.
    Raises InvalidTokenError where the sign-in has ended."""
    with state.locked():
        entry = state.signed_in(server.url)
        if entry is not None and entry.access_token != seen:
            return entry
        if entry is None or entry.refresh_token is None:
            raise ended(server.url)
        with transport.open_client(server) as client, transport.translated(server.url):
            # The identity provider needs the text.
            token = entry.refresh_token.reveal()
            form = {"grant_type": "refresh_token", "refresh_token": token, "client_id": CLIENT_ID}
            try:
                fresh = _redeem(client, _discover(client)["token_endpoint"], form, server)
            except ForbiddenError:
                raise ended(server.url) from None
        state.remember(fresh)
        return fresh


def ended(url: str) -> InvalidTokenError:
    """What to raise where a command needs a sign-in that is not there."""
    return InvalidTokenError(f"You are not signed in at {url}.", hint="Sign in with `taskcred login`.")


def unverified_claims(token: Secret) -> dict[str, Any]:
    """The claims of our own access token, to tell its holder who they are; nothing is decided by them."""
    # The text is needed to read it.
    payload = token.reveal().split(".")[1]
    claims: dict[str, Any] = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    return claims


def _discover(client: httpx.Client) -> Mapping[str, str]:
    answer = client.get(_DISCOVERY, follow_redirects=True)
    if not answer.is_success:
        raise transport.error_of(answer)
    found: Mapping[str, str] = answer.json()
    return found


def _redeem(client: httpx.Client, endpoint: str, form: Mapping[str, str], server: Server) -> state.SignedIn:
    answer = client.post(endpoint, data=form)
    if not answer.is_success:
        problem = transport.error_of(answer)
        if isinstance(problem, UnavailableError):
            raise problem
        raise ForbiddenError(
            problem.message, hint="Sign in again with `taskcred login`.", code=problem.error_code
        )
    return _entry(answer.json(), server)


def _entry(body: Mapping[str, Any], server: Server) -> state.SignedIn:
    refresh = body.get("refresh_token")
    return state.SignedIn(
        server.url,
        Secret(body["access_token"]),
        Secret(refresh) if refresh else None,
        int(time.time()) + int(body["expires_in"]),
        server.ca_file,
    )


def _has_browser() -> bool:
    """Whether a browser would get a window in front of the person: not over SSH, and one in the terminal
    would hide what we print."""
    if any(os.environ.get(name) for name in ("SSH_CONNECTION", "SSH_TTY")):
        return False
    return sys.platform == "darwin" or any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY"))
