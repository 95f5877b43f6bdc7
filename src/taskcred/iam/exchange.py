"""From an API key to its subject: one SELECT, and counting of uses that never waits for the disk."""

from __future__ import annotations

import threading
from collections import Counter
from datetime import datetime
from typing import Final

import sqlalchemy as sa

from taskcred.domain.secret import Secret
from taskcred.errors import KeyRefusedError, StoreBusyError
from taskcred.iam import tables
from taskcred.iam.database import Database
from taskcred.iam.tokens import Subject
from taskcred.ports import Clock

_k, _u, _m, _s = tables.api_keys, tables.users, tables.memberships, tables.service_ids

# A user's key works while the user is a member of the key's account, a service id's while that exists.
_SELECT: Final = (
    sa.select(
        _k.c.id,
        _k.c.iam_id,
        _k.c.account_id,
        _k.c.disabled,
        _k.c.expires_at,
        _u.c.email,
        sa.func.coalesce(_u.c.name, _s.c.name).label("name"),
        sa.or_(_m.c.iam_id.is_not(None), _s.c.iam_id.is_not(None)).label("is_known"),
    )
    .join_from(_k, _m, sa.and_(_m.c.iam_id == _k.c.iam_id, _m.c.account_id == _k.c.account_id), isouter=True)
    .join(_u, _u.c.iam_id == _m.c.iam_id, isouter=True)
    .join(_s, sa.and_(_s.c.iam_id == _k.c.iam_id, _s.c.account_id == _k.c.account_id), isouter=True)
    .where(_k.c.digest == sa.bindparam("digest"))
)

_COUNT: Final = (
    sa.update(_k)
    .where(_k.c.id == sa.bindparam("key_id"))
    .values(authn_count=_k.c.authn_count + sa.bindparam("uses"), last_authn_at=sa.bindparam("last"))
)


class Exchange:
    """Looks API keys up by digest, and counts their uses in memory until `flush`."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database: Final = database
        self._clock: Final = clock
        self._lock: Final = threading.Lock()
        self._uses: Counter[str] = Counter()
        self._last: dict[str, datetime] = {}

    def subject_of(self, api_key: Secret) -> Subject:
        """Whose key this is. Raises KeyRefusedError, one answer for unknown, disabled and expired keys
        and for keys of people who left; a locked key works, for a lock is about changes."""
        with self._database.read() as connection:
            row = connection.execute(_SELECT, {"digest": api_key.digest()}).first()
        now = self._clock.now()
        if (
            row is None
            or not row.is_known
            or row.disabled
            or (row.expires_at is not None and row.expires_at <= now)
        ):
            raise KeyRefusedError(
                "Provided API key could not be found.",
                hint="Check the key: it is unknown, disabled, expired, or its owner left the account.",
            )
        with self._lock:
            self._uses[row.id] += 1
            self._last[row.id] = now
        return Subject(row.iam_id, row.account_id, row.name, row.email or "")

    def flush(self) -> None:
        """Write the counts down. A crash before loses them, and nothing else. Raises StoreBusyError where
        they cannot be written now; they are kept for the next time."""
        with self._lock:
            uses, last = self._uses, self._last
            self._uses, self._last = Counter(), {}
        if not uses:
            return
        try:
            with self._database.write() as connection:
                connection.execute(
                    _COUNT,
                    [
                        {"key_id": key_id, "uses": count, "last": last[key_id]}
                        for key_id, count in uses.items()
                    ],
                )
        except StoreBusyError:
            with self._lock:
                self._uses.update(uses)
                self._last = last | self._last
            raise
