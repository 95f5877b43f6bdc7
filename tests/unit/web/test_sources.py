"""Where a key comes from, out of a form."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from taskcred.domain import keytext
from taskcred.domain.credentials import Generated, Provided
from taskcred.web.sources import read_source

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("form", "expected"),
    [
        ({"expiry": "90"}, Generated(expires_at=NOW + timedelta(days=90))),
        ({"expiry": "never"}, Generated(never_expires=True)),
        (
            {"expiry": "30", "show_once": "yes"},
            Generated(show_once=True, expires_at=NOW + timedelta(days=30)),
        ),
        (
            {"expiry": "date", "expiry_date": "2027-01-31"},
            Generated(expires_at=datetime(2027, 1, 31, tzinfo=UTC)),
        ),
    ],
)
def test_a_generated_key_expires_as_chosen(form: dict[str, str], expected: Generated) -> None:
    source, filled = read_source({"source": "generate", **form}, NOW)
    assert source == expected
    assert filled.errors == {}


def test_a_pasted_key_is_taken_without_the_space_around_it() -> None:
    key = keytext.new_key(keytext.USER_KEY_PREFIX)
    source, filled = read_source({"source": "provide", "api_key": f" {key.reveal()}\r\n"}, NOW)
    assert source == Provided(key)
    assert key.reveal() not in repr(filled)


@pytest.mark.parametrize(
    ("form", "field"),
    [
        ({}, "source"),
        ({"source": "magic"}, "source"),
        ({"source": "generate"}, "expiry"),
        ({"source": "generate", "expiry": "36500"}, "expiry"),
        ({"source": "generate", "expiry": "date"}, "expiry_date"),
        ({"source": "generate", "expiry": "date", "expiry_date": "soon"}, "expiry_date"),
        ({"source": "generate", "expiry": "date", "expiry_date": "2026-11-23"}, "expiry_date"),
        ({"source": "provide"}, "api_key"),
        ({"source": "provide", "api_key": "two words"}, "api_key"),
        ({"source": "provide", "api_key": "ä" * 40}, "api_key"),
        ({"source": "provide", "api_key": "\x00" * 40}, "api_key"),
        ({"source": "provide", "api_key": "x" * 5000}, "api_key"),
        (
            {"source": "provide", "api_key": keytext.new_key(keytext.STANDIN_KEY_PREFIX).reveal()},
            "api_key",
        ),
    ],
    ids=range(13),  # not the values: one of them is a key
)
def test_what_is_wrong_is_said_beside_the_field(form: dict[str, str], field: str) -> None:
    source, filled = read_source(form, NOW)
    assert source is None
    assert list(filled.errors) == [field]
