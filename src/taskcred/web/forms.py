"""A form made from a task's JSON schema: which fields to show, and what was filled in.

Strings (with enum, date, date-time, time, email and uri formats), numbers, integers, booleans and lists of
strings get a field of their own kind; any other shape is filled in as JSON. The service checks what was
filled in; here its complaints find the fields they belong to.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from taskcred.domain.tasks import Task
from taskcred.errors import InvalidRequestError
from taskcred.services.parameters import verify_parameters

Widget = Literal[
    "text", "textarea", "number", "checkbox", "select", "date", "datetime-local", "time", "email", "url", "json",
    "list",
]  # fmt: skip

_FORMATS: Final[dict[str, Widget]] = {
    "date": "date",
    "date-time": "datetime-local",
    "time": "time",
    "email": "email",
    "uri": "url",
}
_LONG: Final = 120  # a string that may be longer gets several lines
_INTEGER: Final = re.compile(r"[+-]?[0-9]{1,18}")
_NUMBER: Final = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]{1,3})?")
PREFIX: Final = "p."  # of the names of parameter fields, apart from the form's own fields


@dataclass(frozen=True, slots=True)
class Option:
    """A choice: `value` is the JSON text of the enum's member."""

    value: str
    label: str


@dataclass(frozen=True, slots=True)
class Field:
    """One parameter as a form field; `hint` says its bounds in words."""

    parameter: str
    name: str
    id: str
    widget: Widget
    label: str
    description: str
    required: bool
    hint: str
    initial: str
    decimal: bool = False
    options: tuple[Option, ...] = ()


@dataclass(frozen=True, slots=True)
class Reading:
    """What a form held: parameters for the service, texts to show again, complaints by field name."""

    values: dict[str, Any]
    texts: dict[str, str]
    errors: dict[str, str] = field(default_factory=dict)


def fields_of(schema: Mapping[str, Any]) -> tuple[Field, ...]:
    """The fields of a schema of type object, in the order it names them."""
    required = set(schema.get("required", ()))
    return tuple(
        _field(index, name, shape if isinstance(shape, Mapping) else {}, name in required)
        for index, (name, shape) in enumerate(schema.get("properties", {}).items())
    )


def texts_of(fields: tuple[Field, ...], values: Mapping[str, Any] | None = None) -> dict[str, str]:
    """What the fields show: `values` where given, else their defaults."""
    if values is None:
        return {each.name: each.initial for each in fields}
    return {
        each.name: _text(each.widget, values[each.parameter]) if each.parameter in values else ""
        for each in fields
    }


def read(task: Task, form: Mapping[str, str]) -> Reading:
    """Parameters out of a submitted form, checked against the task's schema."""
    fields = fields_of(task.parameters)
    texts = {each.name: form.get(each.name, "").replace("\r\n", "\n") for each in fields}
    values: dict[str, Any] = {}
    errors: dict[str, str] = {}
    for each in fields:
        text = texts[each.name]
        if each.widget == "checkbox":
            values[each.parameter] = bool(text)
        elif text.strip():
            try:
                values[each.parameter] = _value(each, text)
            except ValueError as complaint:
                errors[each.name] = f"{each.label}: {complaint}"
        elif each.required:
            verb = "Choose" if each.options else "Enter"
            errors[each.name] = f"{verb} a value for {each.label}."
    try:
        verify_parameters(task, values)
    except InvalidRequestError as error:
        for name, text in complaints(task, error).items():
            # A field that could not be read, or is missing, has its complaint already.
            errors.setdefault(name, text)
    return Reading(values, texts, errors)


def complaints(task: Task, error: InvalidRequestError) -> dict[str, str]:
    """What is wrong with the parameters, by field name; under "" what belongs to no field."""
    known = {each.parameter: each for each in fields_of(task.parameters)}
    found: dict[str, str] = {}
    for problem in error.details.get("errors", ()):
        where, what = str(problem["field"]), str(problem["message"])
        path = where.removeprefix("parameters").removeprefix(".")
        each = next((known[name] for name in _prefixes(path) if name in known), None)
        if each is None:
            found.setdefault("", f"{path or 'The parameters'} {what}.".strip())
        elif path == each.parameter:
            found.setdefault(each.name, f"{each.label} {what}.")
        else:
            found.setdefault(each.name, f"{each.label}: {path.removeprefix(each.parameter + '.')} {what}.")
    return found or {"": f"{error.message} {error.hint}".strip()}


def _prefixes(path: str) -> list[str]:
    """A dotted path and what it lies in, longest first: a parameter's own name may hold dots."""
    parts = path.split(".")
    return [".".join(parts[:length]) for length in range(len(parts), 0, -1)]


def _field(index: int, parameter: str, shape: Mapping[str, Any], required: bool) -> Field:
    widget = _widget(shape)
    return Field(
        parameter=parameter,
        name=f"{PREFIX}{parameter}",
        id=f"parameter-{index}",
        widget=widget,
        label=str(shape.get("title") or parameter.replace("_", " ").capitalize()),
        description=str(shape.get("description", "")),
        required=required and widget != "checkbox",
        hint=_hint(widget, shape),
        initial=_text(widget, shape["default"]) if "default" in shape else "",
        decimal=_type(shape) == "number",
        options=tuple(
            Option(json.dumps(member), member if isinstance(member, str) else json.dumps(member))
            for member in _members(shape)
        ),
    )


def _type(shape: Mapping[str, Any]) -> str:
    kind = shape.get("type")
    if isinstance(kind, list):
        kind = next((each for each in kind if each != "null"), None)
    return str(kind) if kind else ""


def _members(shape: Mapping[str, Any]) -> list[Any]:
    if "const" in shape:
        return [shape["const"]]
    return list(shape.get("enum", ()))


def _widget(shape: Mapping[str, Any]) -> Widget:
    if _members(shape):
        return "select"
    match _type(shape):
        case "string":
            if shape.get("format") in _FORMATS:
                return _FORMATS[shape["format"]]
            return "textarea" if shape.get("maxLength", 0) > _LONG else "text"
        case "integer" | "number":
            return "number"
        case "boolean":
            return "checkbox"
        case "array" if _type(shape.get("items", {})) == "string":
            return "list"
        case _:
            return "json"


def _hint(widget: Widget, shape: Mapping[str, Any]) -> str:
    parts: list[str] = []
    match widget:
        case "number":
            parts.append("A whole number" if _type(shape) == "integer" else "A number")
            low, high = shape.get("minimum"), shape.get("maximum")
            if low is not None and high is not None:
                parts.append(f"from {low} to {high}")
            elif low is not None:
                parts.append(f"{low} or more")
            elif high is not None:
                parts.append(f"{high} or less")
            if "exclusiveMinimum" in shape:
                parts.append(f"above {shape['exclusiveMinimum']}")
            if "exclusiveMaximum" in shape:
                parts.append(f"below {shape['exclusiveMaximum']}")
            if "multipleOf" in shape:
                parts.append(f"a multiple of {shape['multipleOf']}")
        case "text" | "textarea" | "email" | "url":
            low, high = shape.get("minLength"), shape.get("maxLength")
            if low and high:
                parts.append(f"{low} to {high} characters")
            elif low:
                parts.append(f"At least {low} characters")
            elif high:
                parts.append(f"At most {high} characters")
        case "datetime-local":
            parts.append("Date and time in UTC")
        case "list":
            parts.append("One on each line")
        case "json":
            parts.append("As JSON")
        case _:
            pass
    return ", ".join(parts) + "." if parts else ""


def _text(widget: Widget, value: Any) -> str:
    match widget:
        case "select":
            return json.dumps(value)
        case "checkbox":
            return "yes" if value else ""
        case "datetime-local":
            return str(value)[:16]
        case "list" if isinstance(value, list):
            return "\n".join(str(each) for each in value)
        case "json":
            return json.dumps(value, indent=2)
        case _:
            return str(value)


def _value(each: Field, text: str) -> Any:
    """The JSON value a field's text stands for. Raises ValueError with a sentence for the person."""
    match each.widget:
        case "number":
            return _number(text.strip(), decimal=each.decimal)
        case "select":
            for option in each.options:
                if option.value == text:
                    return json.loads(text)
            raise ValueError("choose one of the values in the list.")
        case "datetime-local":
            return f"{text.strip()}:00Z" if len(text.strip()) == 16 else f"{text.strip()}Z"
        case "time":
            return f"{text.strip()}:00Z" if len(text.strip()) == 5 else text.strip()
        case "list":
            return [line.strip() for line in text.splitlines() if line.strip()]
        case "json":
            try:
                return json.loads(text)
            except (ValueError, RecursionError):
                raise ValueError('write this as JSON, for example [1, 2] or {"a": 1}.') from None
        case "text" | "textarea":
            return text
        case _:
            return text.strip()


def _number(text: str, *, decimal: bool) -> int | float:
    if _INTEGER.fullmatch(text):
        return int(text)
    if not decimal:
        raise ValueError("write a whole number of at most 18 digits, such as 12.")
    if not _NUMBER.fullmatch(text) or not math.isfinite(float(text)):
        raise ValueError("write a number, such as 12.5.")
    return float(text)
