"""Leases by name: one holder at a time, until an instant."""

from __future__ import annotations

from datetime import datetime, timedelta

import sqlalchemy as sa

from taskcred.store import tables as t


def take(connection: sa.Connection, name: str, holder: str, now: datetime, ttl: timedelta) -> bool:
    """Take or renew the lease `name`; False while another holder's has not run out."""
    c = t.leases.c
    held = connection.execute(
        sa.select(c.holder, c.until).where(c.name == name).with_for_update()
    ).one_or_none()
    if held is None:
        connection.execute(t.leases.insert().values(name=name, holder=holder, until=now + ttl))
        return True
    if held.holder != holder and held.until > now:
        return False
    connection.execute(t.leases.update().where(c.name == name).values(holder=holder, until=now + ttl))
    return True


def release(connection: sa.Connection, name: str, holder: str) -> None:
    """Give the lease up, so that another need not wait for it to run out."""
    c = t.leases.c
    connection.execute(t.leases.delete().where(c.name == name, c.holder == holder))
