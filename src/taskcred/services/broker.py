"""The broker: stand-in keys in, access tokens out, from memory wherever that is safe.

A request costs a digest, a look-up and the comparison of the epoch. What a process keeps in memory is
right because everything that takes something away writes a `changes` row and bumps the epoch before it
answers; readers look at the rows once a second anyway. A process that cannot read them goes on for at most
`outage_grace` and then refuses (OutOfTouchError).

The first hand-out of a token to an attempt commits its audit event before the token leaves; repeats are
counted in memory and written once a second.
"""

from __future__ import annotations

import hashlib
import logging
import threading
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Final

from taskcred.errors import (
    ConflictError,
    OutOfTouchError,
    RateLimitedError,
    StoreBusyError,
    UnavailableError,
    UpstreamUnavailableError,
)
from taskcred.services import tokens
from taskcred.services.alarm import Alarm
from taskcred.services.context import Context
from taskcred.services.issued import Entry, IssuedToken, hand_out_event
from taskcred.store import audit, changes
from taskcred.store import tokens as token_store

_log: Final = logging.getLogger(__name__)

_PERIOD: Final = 1.0  # seconds between readings of the changes, and between writings of the counts
_SLACK: Final = 2.0  # seconds a reading may take before this process counts as out of touch
_AT_ONCE: Final = 16  # exchanges that requests may wait for at once; fewer than a server has threads
_AT_LAST: Final = 0.05  # part of a token's life left when a request exchanges inline
_AT_LAST_LONGEST: Final = timedelta(seconds=10)
_TRIES: Final = 10


class TokenBroker:
    """One for each web process. `start` begins its threads, `close` ends them and writes the last counts.
    The limit for a stand-in key is kept in each process."""

    def __init__(self, ctx: Context, *, exchanges: int = _AT_ONCE) -> None:
        self._ctx: Final = ctx
        self._entries: Final[dict[bytes, Entry]] = {}
        self._lock: Final = threading.Lock()  # over _entries' writers, _seen, _last, _uncounted
        self._cell: Final = ctx.store.epoch.cell
        self._monotonic: Final = ctx.clock.monotonic
        self._rate: Final = float(ctx.policy.tokens.standin_rate)
        self._burst: Final = float(ctx.policy.tokens.standin_burst)
        self._grace: Final = ctx.policy.tokens.outage_grace.total_seconds()
        self._exchanges: Final = threading.BoundedSemaphore(exchanges)
        self._alarm: Final = Alarm(ctx)
        self._uncounted: dict[tuple[str, bytes, str], int] = {}
        self._stop: Final = threading.Event()
        self._threads: Final[list[threading.Thread]] = []
        self._seen = self._cell[0]
        with ctx.store.read() as connection:
            self._last = changes.newest(connection)
        self._offset = 0.0  # wall clock less monotonic clock
        self._in_touch_at = 0.0
        self._good_until = 0.0
        self._now_in_touch(self._monotonic())

    # Life.

    def start(self) -> None:
        """Read the changes and write the counts once a second from now on."""
        # Two threads: a write may have to wait for other writers, and reading must not wait with it.
        for name, work in (("token-changes", self._poll), ("token-counts", self._flush)):
            thread = threading.Thread(target=self._repeat, args=(work,), name=name, daemon=True)
            self._threads.append(thread)
            thread.start()

    def close(self) -> None:
        """Stop the threads and write the last counts."""
        self._stop.set()
        for thread in self._threads:
            thread.join()
        self._flush()

    def _repeat(self, work: Callable[[], None]) -> None:
        while not self._stop.wait(_PERIOD):
            try:
                work()
            except Exception as error:  # noqa: BLE001 - without its thread a broker would refuse for ever
                _log.error("token broker: %s", type(error).__name__)

    @property
    def is_in_touch(self) -> bool:
        """Whether the changes were read lately; for health and metrics."""
        return self._monotonic() - self._in_touch_at <= _PERIOD + _SLACK

    @property
    def known(self) -> int:
        """How many stand-in keys this process answers from memory; for metrics."""
        return len(self._entries)

    def wall(self) -> float:
        """Seconds since 1970, as of the last reading and the monotonic clock since."""
        return self._monotonic() + self._offset

    # The hot path.

    def issue(self, standin: bytes, address: str | None = None) -> IssuedToken:
        """The access token for a stand-in key. `address` is where the request comes from: only a key that
        is bound to networks asks for it (AddressNeededError), so that others need not find it out.

        Raises KeyRefusedError where the key is unknown, its attempt has ended, its credential is out of
        use or it is bound to other networks, RateLimitedError, and UnavailableError where a token cannot be had at present.
        """
        digest = hashlib.sha256(standin).digest()
        if self._cell[0] != self._seen:
            self.refresh_changes()
        entry = self._entries.get(digest)
        now = self._monotonic()
        if now > self._good_until:
            raise OutOfTouchError(
                "This server cannot reach its records and has stopped giving out tokens.",
                hint="Try again in a few seconds; the operator sees why in /readyz.",
            )
        if entry is None or now >= entry.check_at:
            entry = self._look(digest, entry, address)
            now = self._monotonic()  # an exchange may have taken its time
        with entry.lock:
            if not entry.is_out:
                allowance = min(entry.allowance + (now - entry.filled_at) * self._rate, self._burst)
                entry.filled_at = now
                if allowance < 1.0:
                    entry.allowance = allowance
                    raise RateLimitedError(
                        "This stand-in key asks for tokens too often.",
                        hint="Keep a token until shortly before it expires; IBM's SDKs do.",
                    )
                entry.allowance = allowance - 1.0
                entry.uses += 1
                return entry.issued
        # Not under the entry's lock: looking again may wait for somebody who waits for that.
        return self.issue(standin, address)

    # Changes.

    def refresh_changes(self) -> None:
        """Drop what was taken away since the last reading. Raises OutOfTouchError where that cannot be
        read: something was taken away, and we do not know what."""
        with self._lock:
            if self._cell[0] == self._seen:
                return  # another thread was faster
            try:
                self._read_changes()
            except UnavailableError as error:
                raise OutOfTouchError(
                    "This server cannot read what was taken away just now.", hint="Try again in a second."
                ) from error

    def _read_changes(self) -> None:
        """Under the lock. The epoch is read first: what is bumped later is read next time."""
        epoch = self._cell[0]
        now = self._monotonic()
        with self._ctx.store.read() as connection:
            news = changes.since(connection, self._last)
        if news:
            self._drop(news)
            self._last = news[-1].id
        self._seen = epoch
        self._now_in_touch(now)

    def _drop(self, news: list[changes.Change]) -> None:
        taken: dict[str, set[str]] = {}
        for change in news:
            taken.setdefault(change.kind, set()).add(change.ref)
        attempts = taken.get("attempt", set())
        credentials = taken.get("credential", set())
        for digest, entry in list(self._entries.items()):
            if entry.attempt_id in attempts or entry.credential_id in credentials:
                self._take_out(digest)

    def _take_out(self, digest: bytes) -> None:
        """Under the lock: forget an entry, but not its uncounted uses."""
        entry = self._entries.pop(digest, None)
        if entry is not None:
            with entry.lock:
                entry.is_out = True
            self._collect(entry)

    def _collect(self, entry: Entry) -> None:
        with entry.lock:
            uses, entry.uses = entry.uses, 0
        if uses:
            counted = (entry.attempt_id, entry.token_digest, entry.key_id)
            self._uncounted[counted] = self._uncounted.get(counted, 0) + uses

    def _now_in_touch(self, now: float) -> None:
        """Under the lock. A gap longer than what we may go on for (an outage, a host that slept) makes
        everything we remember doubtful."""
        offset = self._ctx.clock.now().timestamp() - self._monotonic()
        if now > self._good_until or abs(offset - self._offset) > _SLACK:
            for digest in list(self._entries):
                self._take_out(digest)
        self._offset = offset
        self._in_touch_at = now
        self._good_until = now + max(self._grace, _SLACK)

    def _poll(self) -> None:
        with self._lock:
            try:
                self._read_changes()
            except UnavailableError:
                # The slack was for a slow answer; this is none. outage_grace counts from the last reading.
                self._good_until = min(self._good_until, self._in_touch_at + self._grace)
                _log.warning("out of touch with the records", extra={"since": self._in_touch_at})

    # Counting.

    def _flush(self) -> None:
        with self._lock:
            for entry in self._entries.values():
                self._collect(entry)
            batch, self._uncounted = self._uncounted, {}
        if not batch:
            return
        now = self._ctx.clock.now()
        try:
            # Rows in one order, whoever counts: two processes at it must not wait for one another.
            with self._ctx.store.write(shared=True) as connection:
                uses = [
                    {"attempt": attempt, "digest_": digest, "n": n, "at": now}
                    for (attempt, digest, _key), n in sorted(batch.items())
                ]
                token_store.count_uses(connection, uses)
                used = {key for _attempt, _digest, key in batch}
                token_store.touch_keys(connection, [{"key": key, "at": now} for key in sorted(used)])
        except StoreBusyError:
            with self._lock:
                for counted, n in batch.items():
                    self._uncounted[counted] = self._uncounted.get(counted, 0) + n

    # Looking at the records.

    def _look(self, digest: bytes, entry: Entry | None, address: str | None) -> Entry:
        """A current entry for this key: a new key, an entry that was dropped, or a token due for
        refreshing. While the token at hand is good, trouble is no reason to refuse."""
        if entry is None:
            self._alarm.repeat(digest)
            return self._load(digest, None, address)
        is_welcome = entry.admits(address)
        if is_welcome:
            now = self._monotonic()
            if now < entry.due_at:
                return entry
            entry.look_again_at(now + _PERIOD)  # the others go on with what there is
        try:
            return self._load(digest, entry, address)
        except UnavailableError:
            if entry.issued.expires_at <= self.wall() or not is_welcome:
                raise
            return entry

    def _load(self, digest: bytes, entry: Entry | None, address: str | None) -> Entry:
        for _ in range(_TRIES):
            with self._ctx.store.read() as connection:
                holder = token_store.holder_of(connection, digest)
                token = tokens.get(self._ctx, connection, holder.credential_id) if holder else None
            if holder is None or not holder.may_have_tokens:
                self._alarm.refuse(digest, holder)
            self._alarm.verify_address(digest, holder, address)
            if token is None or self._ctx.clock.now() >= _last_call(token):
                self._exchange(holder.credential_id)
            elif entry is not None and entry.token_digest == token.digest:
                return entry
            else:
                found = self._hand_out(digest, entry)
                if found is not None:
                    return found
        raise UpstreamUnavailableError("There is no token that lasts.", hint="Try again in a second.")

    def _exchange(self, credential_id: str) -> None:
        if not self._exchanges.acquire(blocking=False):
            raise UpstreamUnavailableError(
                "Too many requests wait for the identity provider.", hint="Try again in a few seconds."
            )
        try:
            tokens.ensure(self._ctx, credential_id)
        except ConflictError:
            return  # the credential is out of use: the caller reads its state and refuses
        finally:
            self._exchanges.release()

    def _hand_out(self, digest: bytes, entry: Entry | None) -> Entry | None:
        """Record the first hand-out of the current token and remember it; None where things moved on."""
        # The attempt's row is held, so that of two processes one records the first hand-out.
        with self._ctx.store.write(shared=True) as connection:
            now = self._ctx.clock.now()
            holder = token_store.holder_of(connection, digest, for_change=True)
            if holder is None or not holder.may_have_tokens:
                return None
            token = tokens.get(self._ctx, connection, holder.credential_id)
            if token is None:
                return None
            newest = changes.newest(connection)
            if not token_store.has_handed_out(connection, holder.attempt_id, token.digest):
                token_store.hand_out(
                    connection, holder.attempt_id, token.digest, token.key_id, token.expires_at, now
                )
                audit.append(connection, hand_out_event(holder, token), now)
        monotonic = self._monotonic()
        until_refresh = (token.refresh_at - now).total_seconds()
        fresh = Entry(
            holder,
            token,
            entry.allowance if entry else self._burst,
            monotonic,
            monotonic + max(until_refresh, _PERIOD),
        )
        with self._lock:
            if self._last > newest:
                return None  # changes this snapshot did not have were read meanwhile: look again
            known = self._entries.get(digest)
            if known is not None and known.token_digest == fresh.token_digest:
                return known
            self._take_out(digest)
            self._entries[digest] = fresh
        return fresh


def _last_call(token: tokens.Token) -> datetime:
    """From here on a request exchanges inline: the background refresh has not come in time."""
    return token.expires_at - min((token.expires_at - token.issued_at) * _AT_LAST, _AT_LAST_LONGEST)
