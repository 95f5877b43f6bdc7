"""What a process keeps in memory about a stand-in key: its token, ready to be sent, and its limit."""

from __future__ import annotations

import threading
from typing import Final

from taskcred.domain import networks
from taskcred.services import tokens
from taskcred.store import audit
from taskcred.store import tokens as token_store


class AddressNeededError(Exception):
    """The key is bound to networks: ask again with the address of the request. For the token endpoint only."""


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
        "_networks",
        "allowance",
        "attempt_id",
        "check_at",
        "credential_id",
        "due_at",
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
        self._networks: Final = None if holder.addresses is None else networks.read(holder.addresses)
        self.check_at = 0.0
        self.look_again_at(check_at)
        self.uses = 0
        self.is_out = False  # taken out of the broker's memory: whoever still has it must look again

    def look_again_at(self, due_at: float) -> None:
        """The records are looked at from then on (monotonic), once a second."""
        self.due_at = due_at
        # A key that is bound to networks takes the long way at each request, so that others need not be asked
        # whether they are.
        self.check_at = due_at if self._networks is None else 0.0

    def admits(self, address: str | None) -> bool:
        """Whether a request may come from `address`. Raises AddressNeededError where that matters and is None."""
        if self._networks is None:
            return True
        if address is None:
            raise AddressNeededError("This stand-in key is bound to networks.")
        return networks.admit(self._networks, address)


def hand_out_event(holder: token_store.Holder, token: tokens.Token) -> audit.Event:
    """The first hand-out of a token to an attempt."""
    return audit.Event(
        "token:issue",
        "success",
        audit.Actor(f"run:{holder.run_id}", "run"),
        holder.account_id,
        holder.iam_id,
        "attempt",
        holder.attempt_id,
        holder.run_id,
        {
            "credential": holder.credential_id,
            "key": token.key_id,
            "expires_at": token.expires_at.isoformat(),
        },
    )
