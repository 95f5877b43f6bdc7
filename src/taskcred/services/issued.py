"""What a process keeps in memory about a stand-in key: its token, ready to be sent, and its limit."""

from __future__ import annotations

import threading
from typing import Final

from taskcred.services import tokens
from taskcred.store import tokens as token_store


class IssuedToken:
    """The answer for one token. Holds its text: has no repr that shows it."""

    __slots__ = ("_head", "_tail", "expires_at")

    def __init__(self, token: tokens.Token) -> None:
        self.expires_at: Final = int(token.expires_at.timestamp())
        # The text is needed for the answer, which is the one place it goes to.
        text = token.token.reveal()
        self._head: Final = (
            f'{{"access_token":"{text}","refresh_token":"not_supported","token_type":"Bearer","expires_in":'
        ).encode("ascii")
        self._tail: Final = f',"expiration":{self.expires_at},"scope":"ibm openid"}}'.encode("ascii")

    def body(self, now: float) -> bytes:
        """IBM's JSON for a token, at `now` (seconds since 1970)."""
        return b"%b%d%b" % (self._head, max(self.expires_at - now, 0), self._tail)


class Entry:
    """What this process knows of one stand-in key."""

    __slots__ = (
        "allowance",
        "attempt_id",
        "check_at",
        "credential_id",
        "filled_at",
        "is_out",
        "issued",
        "key_id",
        "lock",
        "token_digest",
        "uses",
    )

    def __init__(
        self, holder: token_store.Holder, token: tokens.Token, allowance: float, now: float, check_at: float
    ) -> None:
        self.attempt_id: Final = holder.attempt_id
        self.credential_id: Final = holder.credential_id
        self.key_id: Final = token.key_id
        self.token_digest: Final = token.digest
        self.issued: Final = IssuedToken(token)
        self.lock: Final = threading.Lock()
        self.allowance = allowance
        self.filled_at = now
        self.check_at = check_at  # monotonic; from then on the records are looked at, once a second
        self.uses = 0
        self.is_out = False  # taken out of the broker's memory: whoever still has it must look again
