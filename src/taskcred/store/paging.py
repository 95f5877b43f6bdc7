"""Keyset paging: lists that go on after the row they ended with, whatever was added meanwhile."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import sqlalchemy as sa

from taskcred.store.types import Instant


def is_older(
    at: sa.Column[Any], row_id: sa.Column[Any], than: tuple[datetime, str]
) -> sa.ColumnElement[bool]:
    """Rows that follow `than` in a list of newest first. The types are named since SQLAlchemy does not
    carry a column's type over to the values of a tuple, and SQLite compares anything with anything."""
    return sa.tuple_(at, row_id) < sa.tuple_(sa.literal(than[0], Instant), sa.literal(than[1], sa.String))
