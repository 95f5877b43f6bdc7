"""`-p NAME=VALUE` by the types of the task's schema."""

from __future__ import annotations

import pytest

from taskcred.cli.parameters import read
from taskcred.errors import InvalidRequestError

SCHEMA = {
    "type": "object",
    "properties": {
        "text": {"type": "string"},
        "count": {"type": "integer"},
        "flags": {"type": "array"},
        "either": {"type": ["string", "null"]},
    },
}


def test_a_text_is_taken_as_it_is_written_and_the_rest_as_json() -> None:
    given = ["text=007", "count=3", 'flags=["a"]', "either=null", "other=a=b"]
    assert read(given, SCHEMA) == {"text": "007", "count": 3, "flags": ["a"], "either": None, "other": "a=b"}


@pytest.mark.parametrize("text", ["count", "=3", "count=three"])
def test_what_cannot_be_read_is_refused_with_the_cure(text: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        read([text], SCHEMA)
    assert caught.value.hint
