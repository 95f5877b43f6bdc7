"""Pages of lists: their size, and opaque keyset cursors of an instant and an id."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final, TypeVar

from taskcred.errors import InvalidRequestError

T = TypeVar("T")

MAX_LIMIT: Final = 200
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_YEAR_9999: Final = (datetime(9999, 1, 1, tzinfo=UTC) - _EPOCH) // timedelta(microseconds=1)


def write_cursor(at: datetime, row_id: str) -> str:
    """The cursor of a list that ended with the row `row_id` of instant `at`."""
    text = json.dumps([(at - _EPOCH) // timedelta(microseconds=1), row_id])
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def cut(
    found: Sequence[T], limit: int, place: Callable[[T], tuple[datetime, str]]
) -> tuple[list[T], str | None]:
    """The first `limit` of `found`, and the cursor of the next page where one more was found: None at the
    end. `place` gives an item's instant and id."""
    page = list(found[:limit])
    return page, write_cursor(*place(page[-1])) if len(found) > limit else None


def read_cursor(raw_cursor: str | None) -> tuple[datetime, str] | None:
    """What `write_cursor` was given; None for None. Raises InvalidRequestError (`invalid_cursor`).

    A cursor grants nothing, since a list is always the caller's own: it is checked, not signed.
    """
    if raw_cursor is None:
        return None
    try:
        padded = raw_cursor.encode("ascii") + b"=" * (-len(raw_cursor) % 4)
        micros, row_id = json.loads(base64.b64decode(padded, altchars=b"-_", validate=True))
        if type(micros) is int and 0 <= micros <= _YEAR_9999 and type(row_id) is str and len(row_id) <= 36:
            row_id.encode()
            return _EPOCH + timedelta(microseconds=micros), row_id
    except (ValueError, TypeError, RecursionError, binascii.Error):
        pass  # whatever is wrong with it, the answer is the same
    raise InvalidRequestError(
        "The cursor is not one that a list gave out.",
        hint="Begin again without a cursor.",
        code="invalid_cursor",
        field="after",
    )


def verify_limit(limit: int) -> int:
    """A page's size, 1 to 200. Raises InvalidRequestError."""
    if not 1 <= limit <= MAX_LIMIT:
        raise InvalidRequestError(
            f"A page has 1 to {MAX_LIMIT} entries.", hint=f"Ask for at most {MAX_LIMIT}.", field="limit"
        )
    return limit
