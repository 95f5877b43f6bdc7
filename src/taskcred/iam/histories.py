"""History and activity of keys and service ids, in IBM's shape (`include_history`, `include_activity`)."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final

import sqlalchemy as sa

from taskcred.iam import tables
from taskcred.iam.fields import format_instant

_MOST: Final = 100

_h = tables.history


def history_of(connection: sa.Connection, target: str) -> list[dict[str, Any]]:
    """What was done to `target`, the latest hundred entries, oldest first."""
    rows = connection.execute(
        sa.select(_h).where(_h.c.target == target).order_by(_h.c.id.desc()).limit(_MOST)
    ).all()
    return [
        {
            "timestamp": format_instant(row.at),
            "iam_id": row.iam_id,
            "iam_id_account": row.account_id,
            "action": row.action,
            "params": [f"{name}={value}" for name, value in row.params.items()],
            "message": row.action,
        }
        for row in reversed(rows)
    ]


def activity_as_json(count: int, last_at: datetime | None) -> dict[str, Any]:
    """How often it was used to get a token, and when last."""
    activity: dict[str, Any] = {"authn_count": count}
    if last_at:
        activity["last_authn"] = format_instant(last_at)
    return activity
