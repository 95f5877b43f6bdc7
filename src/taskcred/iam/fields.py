"""Reading what callers send: JSON bodies, field by field, with the refusal that names the field.

Nothing a caller can send gets past here with the wrong type, a lone surrogate, a control character or an
unbounded size; so nothing behind here needs to be afraid of it.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Collection
from datetime import UTC, datetime
from typing import Any, Final

from flask import Request

from taskcred.errors import InvalidRequestError
from taskcred.iam.errors import PROPERTY_INVALID, PROPERTY_MISSING

MAX_BODY: Final = 256 * 1024
NAME_LENGTH: Final = 128
DESCRIPTION_LENGTH: Final = 1024
_MAX_CRNS: Final = 64


def missing(field: str) -> InvalidRequestError:
    """IBM's words for a property that is not there."""
    return InvalidRequestError(
        "Property missing or empty.",
        hint=f"Property '{field}' either missing or empty.",
        bxnim=PROPERTY_MISSING,
        field=field,
    )


def invalid(field: str, cure: str) -> InvalidRequestError:
    """A property whose value will not do; `cure` says what will."""
    return InvalidRequestError(
        f"Validation of property '{field}' failed.", hint=cure, bxnim=PROPERTY_INVALID, field=field
    )


def is_plain(text: str, *, lines: bool = False) -> bool:
    """Whether `text` can be stored and shown: no lone surrogates, no control characters (`lines` allows
    line ends and tabs)."""
    allowed = "\n\r\t" if lines else ""
    return all(
        (character >= " " or character in allowed)
        and character != "\x7f"
        and not "\ud800" <= character <= "\udfff"
        for character in text
    )


def parse_instant(field: str, raw: str) -> datetime:
    """An ISO 8601 time with an offset, as IBM's clients write it (`2049-01-02T18:30+0000`)."""
    refused = invalid(field, "Write a time with its offset, as in 2049-01-02T18:30+0000.")
    try:
        at = datetime.fromisoformat(raw)
        in_utc = at.astimezone(UTC)
    except (ValueError, OverflowError):
        raise refused from None
    if at.tzinfo is None:
        raise refused
    return in_utc


def format_instant(at: datetime) -> str:
    """IBM's form of a time: minutes, always UTC."""
    return f"{at:%Y-%m-%dT%H:%M}+0000"


class Fields:
    """A JSON object as a caller sent it."""

    def __init__(self, body: dict[str, Any], within: str = "") -> None:
        self._body: Final = body
        self._within: Final = within

    @classmethod
    def of(cls, request: Request) -> Fields:
        """The request's body, plain or gzip. Raises InvalidRequestError where it is not a JSON object."""
        raw = request.get_data(cache=False)
        if request.headers.get("Content-Encoding", "").strip().lower() == "gzip":
            raw = _unpacked(raw)
        try:
            body = json.loads(raw)
        except (ValueError, RecursionError):
            body = None
        if not isinstance(body, dict):
            raise InvalidRequestError(
                "The body is not a JSON object.", hint="Send a JSON object, in UTF-8.", bxnim=PROPERTY_INVALID
            )
        return cls(body)

    def has(self, name: str) -> bool:
        """Whether the field was sent; null counts as not sent."""
        return self._body.get(name) is not None

    def text(
        self,
        name: str,
        *,
        required: bool = False,
        at_least: int = 0,
        at_most: int = NAME_LENGTH,
        lines: bool = False,
    ) -> str:
        """A text; "" where it was not sent and is not required."""
        value = self._body.get(name)
        label = self._within + name
        if value is None or value == "":
            if required:
                raise missing(label)
            return ""
        if not isinstance(value, str) or not at_least <= len(value) <= at_most:
            raise invalid(label, f"It must be a text of {at_least or 1} to {at_most} characters.")
        if not is_plain(value, lines=lines):
            raise invalid(label, "It must not hold control characters.")
        if required and not value.strip():
            raise missing(label)
        return value

    def boolean(self, name: str) -> bool:
        """true or false; false where it was not sent."""
        value = self._body.get(name)
        if value is None:
            return False
        if not isinstance(value, bool):
            raise invalid(self._within + name, "It must be true or false.")
        return value

    def choice(self, name: str, choices: Collection[str], default: str) -> str:
        """One of `choices`."""
        value = self._body.get(name)
        if value is None:
            return default
        if not isinstance(value, str) or value not in choices:
            raise invalid(self._within + name, f"It must be one of: {', '.join(choices)}.")
        return value

    def instant(self, name: str) -> datetime | None:
        """A time; None where it was not sent or is empty."""
        raw = self.text(name, at_most=64)
        return parse_instant(self._within + name, raw) if raw else None

    def texts(self, name: str) -> list[str]:
        """A short list of texts; empty where it was not sent."""
        value = self._body.get(name)
        if value is None:
            return []
        if (
            not isinstance(value, list)
            or len(value) > _MAX_CRNS
            or not all(isinstance(item, str) and len(item) <= 512 and is_plain(item) for item in value)
        ):
            raise invalid(self._within + name, f"It must be a list of at most {_MAX_CRNS} texts.")
        return value

    def object(self, name: str) -> Fields | None:
        """A JSON object inside; None where it was not sent."""
        value = self._body.get(name)
        if value is None:
            return None
        if not isinstance(value, dict):
            raise invalid(self._within + name, "It must be a JSON object.")
        return Fields(value, f"{self._within}{name}.")


def _unpacked(raw: bytes) -> bytes:
    unpacker = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)
    try:
        text = unpacker.decompress(raw, MAX_BODY)
    except zlib.error:
        raise InvalidRequestError(
            "The body is not gzip.", hint="Send what Content-Encoding says.", bxnim=PROPERTY_INVALID
        ) from None
    if unpacker.unconsumed_tail:
        raise InvalidRequestError(
            "The unpacked body is too large.", hint=f"Send at most {MAX_BODY} bytes.", bxnim=PROPERTY_INVALID
        )
    return text
