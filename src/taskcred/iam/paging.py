"""Lists: page size, sorting, filters, and page tokens that say where the page before ended.

A page token is the last row's sort value and id, so a page begins right after it whatever was created or
deleted in between. It is no authority: the same filters and the same checks apply to every page.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from urllib.parse import urlencode

import sqlalchemy as sa
from werkzeug.datastructures import MultiDict

from taskcred.iam.fields import invalid, is_plain, parse_instant
from taskcred.store.types import Instant

_DEFAULT_SIZE: Final = 20
_MAX_SIZE: Final = 100
_MAX_OFFSET: Final = 2**53
_FILTER: Final = re.compile(r'\s*(name|description)\s+(co|sw|eq)\s+"([^"]{0,128})"\s*')


@dataclass(frozen=True, slots=True)
class Page:
    """One page that was asked for."""

    size: int
    offset: int
    after: tuple[Any, str] | None
    sort: str
    is_descending: bool
    where: tuple[sa.ColumnElement[bool], ...]


def read_page(query: MultiDict[str, str], table: sa.Table, sortable: frozenset[str]) -> Page:
    """The page a query asks for. Raises InvalidRequestError."""
    raw_size = query.get("pagesize", "")
    if raw_size and not re.fullmatch(r"[0-9]{1,3}", raw_size, re.ASCII):
        raise invalid("pagesize", f"It must be 1 to {_MAX_SIZE}.")
    size = int(raw_size or _DEFAULT_SIZE)
    if not 1 <= size <= _MAX_SIZE:
        raise invalid("pagesize", f"It must be 1 to {_MAX_SIZE}.")
    sort = query.get("sort", "") or "created_at"
    if sort not in sortable:
        raise invalid("sort", f"It must be one of: {', '.join(sorted(sortable))}.")
    order = query.get("order", "") or "asc"
    if order not in {"asc", "desc"}:
        raise invalid("order", "It must be asc or desc.")
    raw_filter = query.get("filter", "")
    where = (_condition(raw_filter, table),) if raw_filter else ()
    raw_token = query.get("pagetoken", "")
    offset, after = _read_token(raw_token, table.c[sort]) if raw_token else (0, None)
    return Page(size, offset, after, sort, order == "desc", where)


def fetch(
    connection: sa.Connection, table: sa.Table, page: Page, *where: sa.ColumnElement[bool]
) -> list[sa.Row[Any]]:
    """The page's rows, and one more where there is a next page."""
    column = table.c[page.sort]
    place = sa.tuple_(column, table.c.id)
    query = sa.select(table).where(*where, *page.where)
    if page.after:
        end = sa.tuple_(sa.literal(page.after[0], column.type), sa.literal(page.after[1]))
        query = query.where(place < end if page.is_descending else place > end)
    query = query.order_by(*(part.desc() if page.is_descending else part.asc() for part in place.clauses))
    return list(connection.execute(query.limit(page.size + 1)))


def as_json(
    page: Page,
    rows: list[sa.Row[Any]],
    items: list[dict[str, Any]],
    *,
    field: str,
    url: str,
    query: Mapping[str, str],
) -> dict[str, Any]:
    """IBM's list: `next` is there only where there is a next page."""
    filters = {name: value for name, value in query.items() if name != "pagetoken"}
    answer: dict[str, Any] = {"offset": page.offset, "limit": page.size, "first": _url(url, filters)}
    if len(rows) > page.size:
        last = rows[page.size - 1]
        token = _token(page, last)
        answer["next"] = _url(url, {**filters, "pagetoken": token})
    answer[field] = items
    return answer


def read_flag(query: Mapping[str, str], name: str) -> bool:
    """A boolean of the query, as IBM's SDK writes it."""
    raw = query.get(name, "").lower()
    if raw not in {"", "true", "false"}:
        raise invalid(name, "It must be true or false.")
    return raw == "true"


def read_text(query: Mapping[str, str], name: str, *, at_most: int = 128) -> str:
    """A short text of the query; "" where it was not sent."""
    value = query.get(name, "")
    if len(value) > at_most or not is_plain(value):
        raise invalid(name, f"It must be a text of at most {at_most} characters.")
    return value


def _condition(raw: str, table: sa.Table) -> sa.ColumnElement[bool]:
    match = _FILTER.fullmatch(raw)
    if match is None or not is_plain(match[3]):
        raise invalid(
            "filter", 'Write it like: name co "text". Fields: name, description; operators: co, sw, eq.'
        )
    column, operator, text = table.c[match[1]], match[2], match[3]
    if operator == "eq":
        return column == text
    return (
        column.contains(text, autoescape=True)
        if operator == "co"
        else column.startswith(text, autoescape=True)
    )


def _token(page: Page, last: sa.Row[Any]) -> str:
    value = getattr(last, page.sort)
    text = value.isoformat() if isinstance(value, datetime) else value
    raw = json.dumps([page.offset + page.size, text, last.id]).encode()
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


def _read_token(raw: str, column: sa.Column[Any]) -> tuple[int, tuple[Any, str]]:
    refused = invalid("pagetoken", "Send it as it stood in `next`, with the same filters, or leave it out.")
    try:
        padded = raw + "=" * (-len(raw) % 4)
        offset, value, key_id = json.loads(base64.b64decode(padded, altchars=b"-_", validate=True))
    except (binascii.Error, ValueError, TypeError, RecursionError):
        raise refused from None
    if (
        type(offset) is not int
        or not 0 <= offset <= _MAX_OFFSET
        or not isinstance(value, str)
        or not is_plain(value, lines=True)
        or not isinstance(key_id, str)
        or not is_plain(key_id)
    ):
        raise refused
    if isinstance(column.type, Instant):
        return offset, (parse_instant("pagetoken", value), key_id)
    return offset, (value, key_id)


def _url(url: str, query: Mapping[str, str]) -> str:
    return f"{url}?{urlencode(query)}" if query else url
