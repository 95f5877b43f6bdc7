"""A run's parameters against its task's JSON schema, with errors that name the field."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError
from referencing import Registry
from referencing.exceptions import Unresolvable

from taskcred.domain.tasks import Task
from taskcred.errors import InvalidRequestError

MAX_BYTES: Final = 65_536  # as JSON text
_MAX_ERRORS: Final = 20
_MAX_DEPTH: Final = 32

# What a field must be, in words. The rejected value is not repeated: it may be long, or private.
_SENTENCES: Final[dict[str, Callable[[Any], str]]] = {
    "type": lambda want: f"must be of type {' or '.join(want) if isinstance(want, list) else want}",
    "enum": lambda want: f"must be one of {', '.join(json.dumps(each) for each in want)}",
    "const": lambda want: f"must be {json.dumps(want)}",
    "minimum": lambda want: f"must be at least {want}",
    "maximum": lambda want: f"must be at most {want}",
    "exclusiveMinimum": lambda want: f"must be more than {want}",
    "exclusiveMaximum": lambda want: f"must be less than {want}",
    "multipleOf": lambda want: f"must be a multiple of {want}",
    "minLength": lambda want: f"must have at least {want} characters",
    "maxLength": lambda want: f"must have at most {want} characters",
    "pattern": lambda want: f"must match the pattern {want}",
    "format": lambda want: f"must be a valid {want}",
    "minItems": lambda want: f"must have at least {want} items",
    "maxItems": lambda want: f"must have at most {want} items",
    "uniqueItems": lambda _: "must not have equal items",
}


def verify_parameters(task: Task, parameters: Any) -> None:
    """Return where `parameters` fit the task; else raise InvalidRequestError.

    Code `invalid_parameters`; `field` is the first field at fault ("parameters.epochs") and `errors` lists
    up to 20 of {"field", "message"}.
    """
    _verify_size(parameters)
    validator = Draft202012Validator(
        dict(task.parameters),
        format_checker=Draft202012Validator.FORMAT_CHECKER,
        registry=Registry(),  # an empty one: a schema never makes us fetch anything
    )
    try:
        errors = sorted(validator.iter_errors(parameters), key=lambda error: list(map(str, error.path)))
    except (Unresolvable, RecursionError):
        # A reference to nowhere, or one that leads back to itself: whoever keeps the catalogue mends that.
        raise _invalid(
            f"The task {task.name} cannot be run until its administrator mends it",
            [_entry((), "cannot be checked: its own schema cannot be applied")],
        ) from None
    found = [entry for error in errors for entry in _entries(error)]
    if found:
        raise _invalid(f"The parameters do not fit the task {task.name}", found[:_MAX_ERRORS])


def _verify_size(parameters: Any) -> None:
    if not isinstance(parameters, dict):
        raise _invalid("The parameters must be a JSON object", [_entry((), "must be an object")])
    if _depth(parameters) > _MAX_DEPTH:
        raise _invalid(
            "The parameters are nested too deeply", [_entry((), f"must nest at most {_MAX_DEPTH} levels")]
        )
    try:
        size = len(json.dumps(parameters, allow_nan=False, ensure_ascii=False).encode())
    except (TypeError, ValueError):
        # Not a number, infinity, half of a surrogate pair: JSON has no such values.
        raise _invalid(
            "The parameters are not valid JSON", [_entry((), "must hold JSON values only")]
        ) from None
    if size > MAX_BYTES:
        raise _invalid("The parameters are too large", [_entry((), f"must be at most {MAX_BYTES} bytes")])


def _depth(value: Any) -> int:
    """Levels of nesting, counted without recursion so that no depth can exhaust the stack."""
    depth, level = 0, [value]
    while level:
        depth += 1
        if depth > _MAX_DEPTH:
            break
        level = [
            child
            for each in level
            if isinstance(each, Mapping | list)
            for child in (each.values() if isinstance(each, Mapping) else each)
        ]
    return depth


def _entries(error: ValidationError) -> Iterable[dict[str, str]]:
    path = tuple(error.absolute_path)
    instance, wanted = error.instance, error.validator_value
    if error.validator == "required" and isinstance(instance, Mapping) and isinstance(wanted, list):
        # jsonschema reports each missing property by itself, and names it in the message only.
        missing = [name for name in wanted if error.message.startswith(f"{name!r} ")]
        return [_entry((*path, name), "is missing") for name in missing]
    if error.validator == "additionalProperties" and isinstance(instance, Mapping):
        known = error.schema.get("properties", {}) if isinstance(error.schema, Mapping) else {}
        unknown = sorted(str(name)[:100] for name in instance if name not in known)
        return [_entry((*path, name), "is not a parameter of this task") for name in unknown]
    sentence = _SENTENCES.get(str(error.validator))
    said = sentence(wanted)[:300] if sentence else f"does not satisfy {error.validator!r}"
    return [_entry(path, said)]


def _entry(path: tuple[str | int, ...], message: str) -> dict[str, str]:
    return {"field": ".".join(["parameters", *map(str, path)]), "message": message}


def _invalid(message: str, errors: list[dict[str, str]]) -> InvalidRequestError:
    first = errors[0]
    return InvalidRequestError(
        f"{message}: {first['field']} {first['message']}.",
        hint="`taskcred task list --json`, or `GET /v1/tasks`, shows each task's parameters as a JSON schema.",
        code="invalid_parameters",
        field=first["field"],
        errors=errors,
    )
