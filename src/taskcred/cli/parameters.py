"""`-p NAME=VALUE` into a task's parameters, by the types its JSON schema names."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from taskcred.errors import InvalidRequestError, NotFoundError

if TYPE_CHECKING:
    from taskcred.cli.client import Client


def of_task(server: Client, task: str, given: Sequence[str] | None) -> dict[str, Any]:
    """The parameters for `task` as the API takes them. Raises NotFoundError where there is no such task."""
    if not given:
        return {}
    for entry in server.items("/v1/tasks"):
        if entry["name"] == task:
            return read(given, entry["parameters"])
    raise NotFoundError(f"There is no task {task!r}.", hint="`taskcred task list` shows the tasks.")


def read(given: Sequence[str], schema: Mapping[str, Any]) -> dict[str, Any]:
    """Values by name. A parameter of type string is taken as it is written, any other as JSON."""
    properties = schema.get("properties", {})
    result = {}
    for text in given:
        name, separator, value = text.partition("=")
        if not separator or not name:
            raise InvalidRequestError(f"{text!r} is not NAME=VALUE.", hint="Write it like -p epochs=3.")
        kind = properties.get(name, {}).get("type")
        result[name] = value if kind == "string" else _json(name, value, kind)
    return result


def _json(name: str, value: str, kind: Any) -> Any:
    try:
        return json.loads(value)
    except ValueError:
        if kind is None or (isinstance(kind, list) and "string" in kind):
            return value  # nothing says that it is anything but a text
        raise InvalidRequestError(
            f"The parameter {name!r} must be of type {kind}.",
            hint="Numbers, true, false, lists and objects are written as JSON.",
            field=name,
        ) from None
