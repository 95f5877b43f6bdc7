"""Refusing a stand-in key, and raising the alarm where one is used after its end.

The caller always hears the same; the true cause goes to the audit. A key used again and again raises one
event a minute, with the number of uses since the last.
"""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass
from typing import Final, NoReturn

from taskcred.domain import networks
from taskcred.errors import KeyRefusedError
from taskcred.services.context import Context
from taskcred.services.issued import AddressNeededError
from taskcred.store import audit, tokens

_log: Final = logging.getLogger(__name__)

_QUIET: Final = 60.0  # seconds between two events about one key
_REMEMBERED: Final = 10_000  # refused keys; beyond this the memory of them starts afresh


@dataclass(slots=True)
class _Refused:
    quiet_until: float  # monotonic
    has_ended: bool  # for good: no need to look again
    uses: int = 0


class Alarm:
    """What one process knows of refused stand-in keys."""

    def __init__(self, ctx: Context) -> None:
        self._ctx: Final = ctx
        self._lock: Final = threading.Lock()
        self._refused: Final[dict[bytes, _Refused]] = {}

    def repeat(self, digest: bytes) -> None:
        """Raise KeyRefusedError at once where the key is known to have ended and was reported lately;
        such a key costs no look at the records."""
        with self._lock:
            known = self._refused.get(digest)
            if known is None or not known.has_ended or self._ctx.clock.monotonic() >= known.quiet_until:
                return
            known.uses += 1
        _refuse()

    def refuse(self, digest: bytes, holder: tokens.Holder | None, address: str = "") -> NoReturn:
        """Refuse a key that belongs to nobody (None), or to an attempt that gets no tokens now; or, with
        the `address`, one that is bound to other networks."""
        if holder is None:
            _refuse()
        why = f"credential_{holder.credential_state}" if holder.is_live else "attempt_ended"
        if address:
            why = "other_network"
        with self._lock:
            now = self._ctx.clock.monotonic()
            known = self._refused.get(digest)
            if known is not None and now < known.quiet_until:
                known.uses += 1
                _refuse()
            if len(self._refused) >= _REMEMBERED:
                self._refused.clear()
            self._refused[digest] = _Refused(now + _QUIET, not holder.is_live)
        self._report(holder, why, known.uses if known else 0, address)
        _refuse()

    def verify_address(self, digest: bytes, holder: tokens.Holder, address: str | None) -> None:
        """Refuse a key that is bound to networks in none of which `address` lies. Raises AddressNeededError
        where that matters and is None."""
        if holder.addresses is None:
            return
        if address is None:
            raise AddressNeededError("This stand-in key is bound to networks.")
        if not networks.admit(networks.read(holder.addresses), address):
            self.refuse(digest, holder, address or "unknown")

    def _report(self, holder: tokens.Holder, why: str, uses: int, address: str) -> None:
        event = audit.Event(
            "token:issue",
            "refused",
            audit.Actor(f"run:{holder.run_id}", "run", address=address[:64]),
            holder.account_id,
            holder.iam_id,
            "attempt",
            holder.attempt_id,
            holder.run_id,
            {"why": why, "earlier_uses": uses},
        )
        with self._ctx.store.write(shared=True) as connection:
            audit.append(connection, event, self._ctx.clock.now())
        _log.warning("stand-in key refused: %s", why, extra={"attempt": holder.attempt_id})


def _refuse() -> NoReturn:
    raise KeyRefusedError("Provided API key could not be found.")
