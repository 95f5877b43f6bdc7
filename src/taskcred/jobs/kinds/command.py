"""command: a program of the administrator's choice, with parameters in whole arguments, never in a shell."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from taskcred.domain.tasks import Task

_PLACEHOLDER: Final = re.compile(r"\{([A-Za-z_][A-Za-z0-9_-]*)\}")


@dataclass(frozen=True, slots=True)
class JobCommand:
    """What the launcher starts: argument vector, standard input, and where (None: the job's directory)."""

    argv: tuple[str, ...]
    stdin: str = ""
    start_in: str | None = None


def placeholder(argument: str) -> str | None:
    """The parameter that `argument` stands for, if it is exactly `{name}`; else None."""
    match = _PLACEHOLDER.fullmatch(argument)
    return match.group(1) if match else None


def with_defaults(task: Task, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """`parameters`, and the schema's defaults for those the run left out."""
    properties = task.parameters.get("properties", {})
    defaults = {
        name: each["default"]
        for name, each in properties.items()
        if "default" in each and name not in parameters
    }
    return {**parameters, **defaults}


def build(task: Task, parameters: Mapping[str, Any]) -> JobCommand:
    """The command of `task`. Texts become an argument as they are, other values as JSON.

    Whether an argument that begins with a dash is an option is for the program to say: the catalogue puts
    "--" before a parameter where that matters.
    """
    values = with_defaults(task, parameters)
    argv = tuple(
        argument if (name := placeholder(argument)) is None else _render(values[name])
        for argument in task.argv
    )
    return JobCommand(argv, start_in=task.working_directory)


def _render(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
