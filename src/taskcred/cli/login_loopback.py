"""Signing in with a browser on this machine: authorization code with PKCE (RFC 7636) over a loopback redirect
(RFC 8252)."""

from __future__ import annotations

import base64
import hashlib
import http.server
import secrets
import threading
import webbrowser
from collections.abc import Mapping
from typing import Final
from urllib.parse import parse_qs, urlencode, urlsplit

from taskcred.cli import output
from taskcred.errors import ForbiddenError

_PATIENCE: Final = 300.0  # seconds a person has to sign in
_PAGE: Final = b"""<!doctype html><html lang="en"><meta charset="utf-8"><title>taskcred</title>
<h1>%s</h1><p>You can close this page and go back to the terminal.</p></html>"""


def ask_person(
    provider: Mapping[str, str], client_id: str, account: str | None, *, open_browser: bool
) -> dict[str, str]:
    """Send a person's browser to the identity provider; the form that gets the tokens for what it comes back
    with. Raises ForbiddenError where the sign-in was refused or nobody came."""
    verifier = secrets.token_urlsafe(48)
    challenge = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()
    loopback = _Loopback(expected_state=secrets.token_urlsafe(24), issuer=provider["issuer"])
    query = {
        "response_type": "code",
        "client_id": client_id,
        "redirect_uri": loopback.redirect_uri,
        "scope": "openid",
        "state": loopback.expected_state,
        "code_challenge": challenge,
        "code_challenge_method": "S256",
        "prompt": "login",  # acts on keys need a sign-in that is fresh, which a remembered one is not
    } | ({"account": account} if account else {})
    link = f"{provider['authorization_endpoint']}?{urlencode(query)}"
    output.note(f"To sign in, open this page in a browser on this machine:\n\n  {link}\n")
    if open_browser:
        webbrowser.open(link)
    return {
        "grant_type": "authorization_code",
        "code": loopback.wait(_PATIENCE),
        "redirect_uri": loopback.redirect_uri,
        "code_verifier": verifier,
        "client_id": client_id,
    }


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
