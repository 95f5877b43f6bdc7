"""Signing in from a terminal: authorization code with PKCE (RFC 7636) over a loopback redirect (RFC 8252),
and the refresh of what it gave."""

from __future__ import annotations

import base64
import hashlib
import http.server
import json
import os
import secrets
import sys
import threading
import time
import webbrowser
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import parse_qs, urlencode, urlsplit

import httpx

from taskcred.cli import output, state, transport
from taskcred.cli.where import Server
from taskcred.domain.secret import Secret
from taskcred.errors import ForbiddenError, InvalidTokenError, UnavailableError

CLIENT_ID: Final = "taskcred-cli"
_DISCOVERY: Final = "/identity/.well-known/openid-configuration"
_PATIENCE: Final = 300.0  # seconds a person has to sign in
_PAGE: Final = b"""<!doctype html><html lang="en"><meta charset="utf-8"><title>taskcred</title>
<h1>%s</h1><p>You can close this page and go back to the terminal.</p></html>"""


def sign_in(server: Server, *, account: str | None, browser: bool) -> state.SignedIn:
    """Lead a person through the sign-in and keep what it gave. Raises ForbiddenError where it was refused
    or nobody came."""
    with transport.open_client(server) as client, transport.translated(server.url):
        provider = _discover(client)
        code, redirect_uri, verifier = _ask_person(provider, account, browser=browser)
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": redirect_uri,
            "code_verifier": verifier,
            "client_id": CLIENT_ID,
        }
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
    body = answer.json()
    refresh = body.get("refresh_token")
    return state.SignedIn(
        server.url,
        Secret(body["access_token"]),
        Secret(refresh) if refresh else None,
        int(time.time()) + int(body["expires_in"]),
        server.ca_file,
    )


def _ask_person(provider: Mapping[str, str], account: str | None, *, browser: bool) -> tuple[str, str, str]:
    """Send a person's browser to the identity provider; the code it comes back with, the redirect URI and
    the PKCE verifier."""
    verifier = secrets.token_urlsafe(48)
    challenge = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()
    loopback = _Loopback(expected_state=secrets.token_urlsafe(24), issuer=provider["issuer"])
    query = {
        "response_type": "code",
        "client_id": CLIENT_ID,
        "redirect_uri": loopback.redirect_uri,
        "scope": "openid",
        "state": loopback.expected_state,
        "code_challenge": challenge,
        "code_challenge_method": "S256",
        "prompt": "login",  # acts on keys need a sign-in that is fresh, which a remembered one is not
    } | ({"account": account} if account else {})
    link = f"{provider['authorization_endpoint']}?{urlencode(query)}"
    output.note(f"To sign in, open this page in a browser on this machine:\n\n  {link}\n")
    if browser and _has_browser():
        webbrowser.open(link)
    return loopback.wait(_PATIENCE), loopback.redirect_uri, verifier


def _has_browser() -> bool:
    """Whether a browser would get a window of its own; one in the terminal would hide what we print."""
    return sys.platform == "darwin" or any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY"))


class _Loopback:
    """Listens on a free port of the loopback address for one redirect (RFC 8252, 7.3)."""

    def __init__(self, expected_state: str, issuer: str) -> None:
        self.expected_state = expected_state
        self._issuer = issuer
        self._arrived = threading.Event()
        self._answer: dict[str, str] = {}
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                heading = outer.receive(self.path)
                self.send_response(200 if heading else 404)
                self.send_header("Content-Type", "text/html; charset=utf-8")
                self.send_header("Cache-Control", "no-store")
                self.end_headers()
                self.wfile.write(_PAGE % (heading or b"This is not the sign-in that was asked for"))

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
                """Nothing: the request line holds the authorization code."""

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._server.serve_forever, name="loopback", daemon=True).start()

    @property
    def redirect_uri(self) -> str:
        """Where the identity provider sends the browser back to."""
        return f"http://127.0.0.1:{self._server.server_port}/callback"

    def receive(self, target: str) -> bytes | None:
        """Take the redirect; the page's heading, or None for a request that is not ours."""
        parts = urlsplit(target)
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        if parts.path != "/callback" or not secrets.compare_digest(
            query.get("state", ""), self.expected_state
        ):
            return None
        self._answer = query
        self._arrived.set()
        return b"You are signed in" if "code" in query else b"You were not signed in"

    def wait(self, patience: float) -> str:
        """The authorization code. Raises ForbiddenError where the person refused or did not come."""
        arrived = self._arrived.wait(patience)
        self._server.shutdown()
        self._server.server_close()
        if not arrived:
            raise ForbiddenError(
                f"Nobody signed in within {patience / 60:g} minutes.", hint="Run `taskcred login` again."
            )
        if self._answer.get("iss", self._issuer) != self._issuer:  # RFC 9207: another provider answered
            raise ForbiddenError(
                "The sign-in came from another identity provider.", hint="Try again; check --url."
            )
        if "code" not in self._answer:
            reason = self._answer.get("error_description") or self._answer.get("error", "no reason given")
            raise ForbiddenError(f"The sign-in was refused: {reason}.", hint="Run `taskcred login` again.")
        return self._answer["code"]
