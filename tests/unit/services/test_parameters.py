"""Parameters against a task's schema: what is refused, and in which words."""

from __future__ import annotations

import json
from contextlib import suppress
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskcred.domain.tasks import Task, TaskKind
from taskcred.errors import InvalidRequestError
from taskcred.services.cursors import read_cursor, write_cursor
from taskcred.services.parameters import MAX_BYTES, verify_parameters
from taskcred.testing import START


def _task(**properties: Any) -> Task:
    schema = {"type": "object", "properties": properties, "additionalProperties": False}
    return Task("train", TaskKind.COMMAND, parameters=schema)


ANY = Task("any", TaskKind.HTTP, parameters={"type": "object"})


def _refusal(task: Task, parameters: Any) -> InvalidRequestError:
    with pytest.raises(InvalidRequestError) as caught:
        verify_parameters(task, parameters)
    assert caught.value.error_code == "invalid_parameters"
    assert caught.value.hint
    return caught.value


@pytest.mark.parametrize(
    ("rule", "value", "words"),
    [
        ({"type": "integer"}, "3", "must be of type integer"),
        ({"type": ["integer", "null"]}, "3", "must be of type integer or null"),
        ({"enum": ["a", "b"]}, "c", 'must be one of "a", "b"'),
        ({"minimum": 1}, 0, "must be at least 1"),
        ({"maxLength": 2}, "abc", "must have at most 2 characters"),
        ({"pattern": "^[a-z]+$"}, "A", "must match the pattern ^[a-z]+$"),
        ({"format": "date"}, "yesterday", "must be a valid date"),
        ({"not": {"type": "string"}}, "x", "does not satisfy 'not'"),
    ],
)
def test_each_rule_is_said_in_words(rule: dict[str, Any], value: Any, words: str) -> None:
    error = _refusal(_task(x=rule), {"x": value})
    assert error.details["errors"] == [{"field": "parameters.x", "message": words}]


def test_all_fields_at_fault_are_named() -> None:
    task = Task(
        "t",
        TaskKind.COMMAND,
        parameters={"type": "object", "required": ["a", "b"], "properties": {"c": {"type": "string"}}},
    )
    error = _refusal(task, {"c": 1})
    assert [each["field"] for each in error.details["errors"]] == [
        "parameters.a",
        "parameters.b",
        "parameters.c",
    ]


def test_a_rejected_value_is_not_repeated() -> None:
    error = _refusal(_task(x={"type": "integer"}), {"x": "my private words"})
    assert "private" not in json.dumps([error.message, error.hint, error.details])


@pytest.mark.parametrize("parameters", [None, [], "x", 3, True])
def test_parameters_are_an_object(parameters: Any) -> None:
    _refusal(ANY, parameters)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), "\ud800", {1, 2}])
def test_what_json_cannot_hold_is_refused(value: Any) -> None:
    _refusal(ANY, {"x": value})


def test_parameters_have_a_largest_size() -> None:
    room = MAX_BYTES - len('{"x": ""}')
    verify_parameters(ANY, {"x": "a" * room})
    _refusal(ANY, {"x": "a" * (room + 1)})
    _refusal(ANY, {"x": "\u20ac" * (room // 2)})


def test_very_deep_parameters_are_refused() -> None:
    deep: Any = 1
    for _ in range(5000):
        deep = [deep]
    _refusal(ANY, {"x": deep})


@pytest.mark.parametrize("leads_to", ["http://127.0.0.1:9/schema.json", "#/$defs/missing", "#/properties/x"])
def test_a_reference_that_leads_nowhere_is_refused_and_never_fetched(leads_to: str) -> None:
    error = _refusal(_task(x={"$ref": leads_to}), {"x": 1})
    assert "its own schema cannot be applied" in error.message


@given(st.integers(0, 10**15), st.uuids().map(str))
def test_a_cursor_reads_back_as_it_was_written(micros: int, row_id: str) -> None:
    at = START + timedelta(microseconds=micros)
    assert read_cursor(write_cursor(at, row_id)) == (at, row_id)


@given(st.text(max_size=80))
def test_no_text_breaks_the_reading_of_cursors(text: str) -> None:
    with suppress(InvalidRequestError):
        assert read_cursor(text) is not None
