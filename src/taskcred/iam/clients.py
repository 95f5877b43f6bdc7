"""The programs that may ask this IAM for tokens on somebody's behalf: a short, fixed list."""

from __future__ import annotations

import re
import secrets
from dataclasses import dataclass
from typing import Final

from taskcred.domain.secret import Secret
from taskcred.errors import InvalidTokenError
from taskcred.iam.errors import PROPERTY_INVALID
from taskcred.ports import Vault

PAGES: Final = "taskcred"  # the server itself: pages, and exchanges for runs
COMMAND_LINE: Final = "taskcred-cli"
_WELL_KNOWN: Final = "bx"  # what IBM's own programs send (bx:bx); public, so it proves nothing

SECRET_PATH: Final = f"iam/clients/{PAGES}"  # in the vault
# RFC 8252, 7.3: a native application listens on a loopback port of its choice.
_LOOPBACK: Final = re.compile(r"http://(127\.0\.0\.1|\[::1\]):([1-9][0-9]{0,4})/[A-Za-z0-9/_-]{0,128}")


@dataclass(frozen=True, slots=True)
class Client:
    """A program that is known here. A public one has no secret to prove itself with."""

    id: str
    is_confidential: bool


class Clients:
    """The list. The one client secret is a vault record, read when first needed."""

    def __init__(self, vault: Vault, callback: str) -> None:
        self._vault: Final = vault
        self._callback: Final = callback
        self._secret: Secret | None = None

    def prepare(self) -> None:
        """Make the client secret; nothing happens where there is one."""
        self._vault.store_once(SECRET_PATH, Secret(secrets.token_urlsafe(32)))

    def verify(self, client_id: str, secret: Secret | None) -> Client:
        """The client that presents itself. Raises InvalidTokenError (401) where it is unknown or its
        secret is wrong; a public client needs none."""
        if client_id in {COMMAND_LINE, _WELL_KNOWN}:
            return Client(client_id, is_confidential=False)
        if client_id == PAGES and secret is not None and secret == self._client_secret():
            return Client(client_id, is_confidential=True)
        raise InvalidTokenError(
            "The client id or client secret is wrong.",
            hint="Send no client id and secret, or the right ones.",
            code="invalid_client",
            bxnim=PROPERTY_INVALID,
        )

    def may_redirect(self, client_id: str, redirect_uri: str) -> bool:
        """Whether an authorization code for this client may be sent to this address."""
        if client_id == PAGES:
            return redirect_uri == self._callback
        if client_id == COMMAND_LINE:
            return _LOOPBACK.fullmatch(redirect_uri) is not None
        return False

    def _client_secret(self) -> Secret:
        if self._secret is None:
            self._secret = self._vault.open(SECRET_PATH)
        return self._secret
