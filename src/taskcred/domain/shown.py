"""Texts of others, as people are shown them: with nothing in them that steers a terminal or turns a line around."""

from __future__ import annotations

import re
from typing import Final

# Control characters (C0 but for tab and line feed, DEL, C1, whose U+009B begins a sequence like ESC [), the
# separators of lines and paragraphs, and what overrides the direction of text (Unicode annex 9, 2).
_STEERS: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")

_HARMLESS: Final = re.compile(r"(\x1b\[[0-9;:]*m|\r)")


def plain(text: str) -> str:
    """`text` with U+FFFD for each character that is no text."""
    return _STEERS.sub("\ufffd", text)


def escaped(document: str) -> str:
    """The JSON `document` with these characters written as JSON can write any: the same value."""
    return _STEERS.sub(lambda found: f"\\u{ord(found[0]):04x}", document)


def of_a_job(text: str) -> str:
    """What a job printed, for a terminal: with its colours, and returns to the line's start."""
    parts = _HARMLESS.split(text)
    return "".join(part if at % 2 else plain(part) for at, part in enumerate(parts))
