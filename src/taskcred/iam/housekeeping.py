"""Forgetting what nobody can need any more."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

import sqlalchemy as sa

from taskcred.iam import tables
from taskcred.iam.database import NOBODY, Database
from taskcred.iam.throttle import FORGET_AFTER

_EXPIRED_KEYS_STAY: Final = timedelta(days=90)  # as IBM documents it
_CODES_STAY: Final = timedelta(days=1)  # long enough to notice that one is presented twice, or too late


def sweep(database: Database, now: datetime) -> None:
    """Delete expired sign-ins, codes, links and refresh tokens, failures that no longer count, the
    history of nobody, and API keys whose expiry and last change are both 90 days ago."""
    t = tables
    stale_key = now - _EXPIRED_KEYS_STAY
    with database.write() as connection:
        for table in (t.sign_ins, t.refresh_tokens, t.sign_in_links):
            connection.execute(sa.delete(table).where(table.c.expires_at <= now))
        for codes in (t.authorization_codes, t.device_codes):
            connection.execute(sa.delete(codes).where(codes.c.expires_at <= now - _CODES_STAY))
        connection.execute(
            sa.delete(t.password_tries).where(
                t.password_tries.c.last_at <= now - FORGET_AFTER, t.password_tries.c.blocked_until <= now
            )
        )
        connection.execute(
            sa.delete(t.history).where(t.history.c.target == NOBODY, t.history.c.at <= now - FORGET_AFTER)
        )
        connection.execute(
            sa.delete(t.api_keys).where(
                t.api_keys.c.expires_at <= stale_key, t.api_keys.c.modified_at <= stale_key
            )
        )
