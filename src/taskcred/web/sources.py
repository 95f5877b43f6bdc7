"""The part of a form that says where a key comes from: generated, or an existing one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Final

from taskcred.domain.credentials import DEFAULT_KEY_LIFE, Generated, KeySource, Provided
from taskcred.domain.keytext import STANDIN_KEY_PREFIX
from taskcred.domain.secret import Secret

# The choices of a generated key's life in days, or in words.
EXPIRY_CHOICES: Final = (
    ("30", "In 30 days"),
    ("90", "In 90 days"),
    ("180", "In 180 days"),
    ("365", "In one year"),
    ("date", "On a date"),
    ("never", "Never"),
)
_DEFAULT_EXPIRY: Final = str(DEFAULT_KEY_LIFE.days)
_LONGEST_KEY: Final = 4096


@dataclass(frozen=True, slots=True)
class SourceForm:
    """The choices as filled in; never a pasted key, which is not shown again."""

    source: str = "generate"
    expiry: str = _DEFAULT_EXPIRY
    expiry_date: str = ""
    show_once: bool = False
    errors: dict[str, str] = field(default_factory=dict)


def read_source(form: Mapping[str, str], now: datetime) -> tuple[KeySource | None, SourceForm]:
    """The key source a form asks for; None where the second value's `errors` say what to mend."""
    filled = SourceForm(
        source=form.get("source", ""),
        expiry=form.get("expiry", ""),
        expiry_date=form.get("expiry_date", "")[:16],
        show_once=bool(form.get("show_once")),
    )
    if filled.source == "provide":
        return _provided(form.get("api_key", ""), filled), filled
    if filled.source == "generate":
        return _generated(filled, now), filled
    filled.errors["source"] = "Choose where the key comes from."
    return None, filled


def _provided(text: str, filled: SourceForm) -> Provided | None:
    text = text.strip()
    if not text:
        filled.errors["api_key"] = "Paste the API key."
    elif any(character.isspace() for character in text) or not text.isascii() or not text.isprintable():
        filled.errors["api_key"] = "An API key has no spaces or special characters. Copy it again, whole."
    elif len(text) > _LONGEST_KEY:
        filled.errors["api_key"] = "This is too long for an API key. Copy only the key."
    elif text.startswith(STANDIN_KEY_PREFIX):
        filled.errors["api_key"] = (
            "This is a stand-in key that was made for a run. Paste an API key of your own."
        )
    return None if filled.errors else Provided(Secret(text))


def _generated(filled: SourceForm, now: datetime) -> Generated | None:
    expires_at: datetime | None = None
    if filled.expiry == "date":
        try:
            expires_at = datetime.strptime(filled.expiry_date, "%Y-%m-%d").replace(tzinfo=UTC)
        except ValueError:
            filled.errors["expiry_date"] = "Enter the date on which the key expires."
            return None
        if expires_at <= now:
            filled.errors["expiry_date"] = "Choose a date after today."
            return None
    elif filled.expiry in {"30", "90", "180", "365"}:
        expires_at = now + timedelta(days=int(filled.expiry))
    elif filled.expiry != "never":
        filled.errors["expiry"] = "Choose when the key expires."
        return None
    return Generated(filled.show_once, expires_at, never_expires=filled.expiry == "never")
