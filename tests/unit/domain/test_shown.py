"""Texts of others on terminals and pages."""

from __future__ import annotations

import json

import pytest

from taskcred.domain import shown


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("cell 7, \u05d0\u05d1 \u200f\U0001f600\n\tnext", "cell 7, \u05d0\u05d1 \u200f\U0001f600\n\tnext"),
        ("\x1b]0;title\x07", "\ufffd]0;title\ufffd"),
        ("\x9b31mred", "\ufffd31mred"),
        ("safe\u202etxt.exe\u2069\u2028", "safe\ufffdtxt.exe\ufffd\ufffd"),
    ],
)
def test_what_steers_is_no_text(text: str, plain: str) -> None:
    assert shown.plain(text) == plain


def test_json_keeps_its_value() -> None:
    value = {"a": "\x9b31m \u202e \x7f \x1b \U0001f600", "b": ["\u2028"]}
    document = shown.escaped(json.dumps(value, indent=2, ensure_ascii=False))
    assert json.loads(document) == value
    assert shown.plain(document) == document


def test_a_jobs_colours_stay_and_nothing_else_that_steers() -> None:
    assert shown.of_a_job("\x1b[1;32mok\x1b[0m 10%\r20%\n") == "\x1b[1;32mok\x1b[0m 10%\r20%\n"
    assert (
        shown.of_a_job("\x1b[2J\x1b]8;;https://x\x07 \x9b5n") == "\ufffd[2J\ufffd]8;;https://x\ufffd \ufffd5n"
    )
