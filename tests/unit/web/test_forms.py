"""A form out of a JSON schema, and parameters out of a form."""

from __future__ import annotations

from typing import Any

import pytest

from taskcred.domain.tasks import Task, TaskKind
from taskcred.web import forms


def _task(properties: dict[str, Any], *required: str, **more: Any) -> Task:
    schema = {"type": "object", "additionalProperties": False, "properties": properties, **more}
    if required:
        schema["required"] = list(required)
    return Task("t", TaskKind.COMMAND, argv=("true",), parameters=schema)


@pytest.mark.parametrize(
    ("shape", "widget"),
    [
        ({"type": "string"}, "text"),
        ({"type": "string", "maxLength": 60}, "text"),
        ({"type": "string", "maxLength": 4000}, "textarea"),
        ({"type": "string", "format": "date"}, "date"),
        ({"type": "string", "format": "date-time"}, "datetime-local"),
        ({"type": "string", "format": "time"}, "time"),
        ({"type": "string", "format": "email"}, "email"),
        ({"type": "string", "format": "uri"}, "url"),
        ({"type": "string", "format": "hostname"}, "text"),
        ({"type": "integer"}, "number"),
        ({"type": ["number", "null"]}, "number"),
        ({"type": "boolean"}, "checkbox"),
        ({"enum": ["a", "b"]}, "select"),
        ({"const": 7}, "select"),
        ({"type": "array", "items": {"type": "string"}}, "list"),
        ({"type": "array", "items": {"type": "integer"}}, "json"),
        ({"type": "object"}, "json"),
        ({}, "json"),
        (True, "json"),
    ],
)
def test_each_shape_has_its_field(shape: Any, widget: str) -> None:
    (field,) = forms.fields_of({"properties": {"x": shape}})
    assert field.widget == widget


@pytest.mark.parametrize(
    ("shape", "text", "value"),
    [
        ({"type": "string"}, " as typed ", " as typed "),
        ({"type": "integer"}, " 12 ", 12),
        ({"type": "integer"}, "-3", -3),
        ({"type": "number"}, "12", 12),
        ({"type": "number"}, ".5", 0.5),
        ({"type": "number"}, "-1.5e3", -1500.0),
        ({"type": "boolean"}, "yes", True),
        ({"type": "boolean"}, "", False),
        ({"enum": ["a", 1, None]}, "1", 1),
        ({"enum": ["a", 1, None]}, '"a"', "a"),
        ({"enum": ["a", 1, None]}, "null", None),
        ({"type": "string", "format": "date"}, "2026-11-23", "2026-11-23"),
        ({"type": "string", "format": "date-time"}, "2026-11-23T01:02", "2026-11-23T01:02:00Z"),
        ({"type": "string", "format": "date-time"}, "2026-11-23T01:02:03", "2026-11-23T01:02:03Z"),
        ({"type": "array", "items": {"type": "string"}}, "a\r\n\r\n b ", ["a", "b"]),
        ({"type": "object"}, '{"a": [1]}', {"a": [1]}),
    ],
)
def test_each_text_is_read_as_its_value(shape: dict[str, Any], text: str, value: Any) -> None:
    reading = forms.read(_task({"x": shape}), {"p.x": text})
    assert reading.errors == {}
    assert reading.values == {"x": value}


@pytest.mark.parametrize(
    ("shape", "text", "complaint"),
    [
        ({"type": "integer"}, "1.5", "whole number"),
        ({"type": "integer"}, "1_000", "whole number"),
        ({"type": "integer"}, "٣", "whole number"),
        ({"type": "integer"}, "9" * 5000, "whole number"),
        ({"type": "number"}, "1e999", "write a number"),
        ({"type": "number"}, "nan", "write a number"),
        ({"type": "integer", "minimum": 1}, "0", "must be at least 1"),
        ({"type": "string", "minLength": 3}, "ab", "at least 3 characters"),
        ({"type": "string", "pattern": "^[a-z]+$"}, "A", "X "),
        ({"enum": ["a"]}, '"b"', "one of the values"),
        ({"enum": ["a"]}, "{", "one of the values"),
        ({"type": "object"}, "{", "as JSON"),
        ({"type": "object"}, "[" * 100_000, "as JSON"),
        ({"type": "object"}, "[1]", "X "),
        ({"type": "string", "format": "date"}, "tomorrow", "X "),
    ],
)
def test_what_is_wrong_is_said_beside_the_field_and_kept(
    shape: dict[str, Any], text: str, complaint: str
) -> None:
    reading = forms.read(_task({"x": shape}), {"p.x": text})
    assert list(reading.errors) == ["p.x"]
    assert complaint in reading.errors["p.x"]
    assert reading.texts == {"p.x": text}


def test_a_required_field_left_empty_is_named_once() -> None:
    task = _task(
        {"size": {"enum": ["s", "m"]}, "name": {"type": "string", "title": "Full name"}}, "size", "name"
    )
    reading = forms.read(task, {})
    assert reading.errors == {
        "p.size": "Choose a value for Size.",
        "p.name": "Enter a value for Full name.",
    }


def test_an_empty_optional_field_is_left_out() -> None:
    assert forms.read(_task({"x": {"type": "integer"}}), {"p.x": "  "}).values == {}


def test_what_belongs_to_no_field_is_said_above_the_form() -> None:
    task = _task({"a": {"type": "string"}, "b": {"type": "string"}}, minProperties=1)
    assert list(forms.read(task, {}).errors) == [""]


def test_a_complaint_within_a_value_names_the_place() -> None:
    shape = {"type": "object", "title": "Options", "properties": {"seed": {"type": "integer"}}}
    reading = forms.read(_task({"options": shape}), {"p.options": '{"seed": "seven"}'})
    assert reading.errors["p.options"].startswith("Options: seed must be of type integer")


def test_dots_in_a_name_do_no_harm() -> None:
    task = _task({"a": {"type": "integer"}, "a.b": {"type": "integer", "minimum": 5}})
    assert list(forms.read(task, {"p.a.b": "1"}).errors) == ["p.a.b"]


def test_values_become_texts_and_values_again() -> None:
    properties = {
        "text": {"type": "string"},
        "count": {"type": "integer"},
        "size": {"enum": ["s", "m"]},
        "on": {"type": "boolean"},
        "at": {"type": "string", "format": "date-time"},
        "tags": {"type": "array", "items": {"type": "string"}},
        "more": {"type": "object"},
        "absent": {"type": "string"},
    }
    values = {
        "text": "a",
        "count": 3,
        "size": "m",
        "on": True,
        "at": "2026-11-23T01:02:00Z",
        "tags": ["a", "b"],
        "more": {"x": 1},
    }
    task = _task(properties)
    texts = forms.texts_of(forms.fields_of(task.parameters), values)
    assert forms.read(task, texts).values == values


def test_bounds_are_told_in_words() -> None:
    fields = forms.fields_of(
        {
            "properties": {
                "a": {"type": "integer", "minimum": 1, "maximum": 9},
                "b": {"type": "number", "exclusiveMinimum": 0, "multipleOf": 0.5},
                "c": {"type": "string", "minLength": 2},
                "d": {"type": "integer", "maximum": 3},
                "e": {"type": "boolean"},
            }
        }
    )
    assert [field.hint for field in fields] == [
        "A whole number, from 1 to 9.",
        "A number, above 0, a multiple of 0.5.",
        "At least 2 characters.",
        "A whole number, 3 or less.",
        "",
    ]
