"""The catalogue of tasks: `[tasks.NAME]` in the configuration, and the entry point group "taskcred.tasks".

An entry point's name is the task's name; it is a `TaskSettings`, or a function without arguments that
returns one. A task in the configuration replaces an installed one of the same name. The task `exec` is
always there.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import timedelta
from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError

from taskcred.config import TaskSettings
from taskcred.domain.runs import RetryRule
from taskcred.domain.tasks import Task, TaskKind
from taskcred.errors import ConfigurationError
from taskcred.jobs.kinds import http
from taskcred.jobs.kinds.command import placeholder

GROUP: Final = "taskcred.tasks"

_NAME: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_VARIABLE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_SERVICE: Final = re.compile(r"[a-z][a-z0-9_]*")
_ENTRY_POINT: Final = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")

# The fields that mean something for each kind; any other one that is set is a mistake worth telling.
_FIELDS: Final[dict[TaskKind, tuple[str, ...]]] = {
    TaskKind.COMMAND: ("argv", "environment", "working_directory", "sdk_services"),
    TaskKind.PYTHON: ("entry_point", "environment", "sdk_services"),
    TaskKind.HTTP: ("method", "url"),
    TaskKind.EXTERNAL: ("sdk_services",),
}

EXEC: Final = "exec"
_EXEC: Final = TaskSettings(
    kind="external",
    title="A program on your own machine",
    description="What `taskcred exec` runs, with a stand-in key of its own.",
    parameters={
        "type": "object",
        "properties": {
            "command": {
                "type": "array",
                "items": {"type": "string"},
                "description": "The program and its arguments, as they are shown; nothing here is run.",
            }
        },
        "additionalProperties": False,
    },
    timeout=timedelta(days=7),
)


def load_tasks(settings: Mapping[str, TaskSettings], http_allow: tuple[str, ...] = ()) -> dict[str, Task]:
    """The catalogue, by name, sorted. Raises ConfigurationError that names the task and the cure."""
    found = {EXEC: _EXEC}
    found.update((entry.name, _installed(entry)) for entry in entry_points(group=GROUP))
    found.update(settings)
    return {name: _task(name, found[name], http_allow) for name in sorted(found)}


def _installed(entry: EntryPoint) -> TaskSettings:
    where = f"The installed task {entry.name!r} ({entry.value})"
    try:
        value = entry.load()
        task = value() if callable(value) else value
    except Exception as error:
        # Whatever a package's own code raises must not hide which package it is.
        raise ConfigurationError(
            f"{where} cannot be loaded: {type(error).__name__}: {error}.",
            hint="Mend or uninstall the package that brings it.",
        ) from error
    if not isinstance(task, TaskSettings):
        raise ConfigurationError(
            f"{where} is not a task.", hint="It must be a taskcred.config.TaskSettings, or return one."
        )
    return task


def _task(name: str, settings: TaskSettings, http_allow: tuple[str, ...]) -> Task:
    if not _NAME.fullmatch(name):
        raise ConfigurationError(
            f"tasks: {name!r} cannot be the name of a task.",
            hint="Use up to 64 of a-z, 0-9, dot, dash and underscore, beginning with a letter or digit.",
        )
    kind = TaskKind(settings.kind)
    _verify_schema(name, settings)
    _verify_fields(name, kind, settings)
    match kind:
        case TaskKind.COMMAND:
            _verify_command(name, settings)
        case TaskKind.PYTHON:
            _verify_python(name, settings)
        case TaskKind.HTTP:
            _verify_http(name, settings, http_allow)
        case TaskKind.EXTERNAL:
            _verify_external(name, settings)
    if name == EXEC and kind is not TaskKind.EXTERNAL:
        raise _wrong(
            name, "kind", "is not external", "`taskcred exec` needs this task; give yours another name."
        )
    for variable in settings.environment:
        if not _VARIABLE.fullmatch(variable):
            raise _wrong(name, "environment", f"{variable!r} is no name of a variable", "Use [A-Za-z0-9_].")
    for service in settings.sdk_services:
        if not _SERVICE.fullmatch(service):
            raise _wrong(
                name,
                "sdk_services",
                f"{service!r} is no name of a service",
                'As in "iam_identity": [a-z0-9_].',
            )
    rule = settings.retry
    return Task(
        name=name,
        kind=kind,
        title=settings.title or name,
        description=settings.description,
        parameters=settings.parameters,
        argv=settings.argv,
        environment=settings.environment,
        working_directory=settings.working_directory,
        sdk_services=settings.sdk_services,
        entry_point=settings.entry_point,
        method=settings.method,
        url=settings.url,
        timeout=settings.timeout,
        retry=RetryRule(rule.max_attempts, rule.delay, rule.max_delay, rule.on_lost),
        output_limit=settings.output_limit,
    )


def _verify_schema(name: str, settings: TaskSettings) -> None:
    try:
        Draft202012Validator.check_schema(settings.parameters)
    except SchemaError as error:
        raise _wrong(
            name, "parameters", f"is not a JSON schema: {error.message}", "See JSON Schema 2020-12."
        ) from None
    if settings.parameters.get("type") != "object":
        raise _wrong(name, "parameters", "must describe an object", 'Write type = "object".')


def _verify_fields(name: str, kind: TaskKind, settings: TaskSettings) -> None:
    for other, fields in _FIELDS.items():
        for field in fields:
            if field in settings.model_fields_set and field not in _FIELDS[kind]:
                raise _wrong(
                    name,
                    field,
                    f"means nothing for a {kind} task",
                    f"Remove it, or set kind = {other.value!r}.",
                )


def _verify_command(name: str, settings: TaskSettings) -> None:
    if not settings.argv or not settings.argv[0]:
        raise _wrong(
            name, "argv", "is empty", 'Write the program and its arguments: argv = ["echo", "{text}"].'
        )
    if placeholder(settings.argv[0]) is not None:
        raise _wrong(name, "argv", "begins with a parameter", "The program is the administrator's to choose.")
    properties = settings.parameters.get("properties", {})
    for argument in settings.argv:
        parameter = placeholder(argument)
        if parameter is None:
            continue
        if parameter not in properties:
            raise _wrong(
                name, "argv", f"names an unknown parameter {argument}", "Add it to parameters.properties."
            )
        if (
            parameter not in settings.parameters.get("required", ())
            and "default" not in properties[parameter]
        ):
            raise _wrong(
                name,
                "argv",
                f"uses {argument}, which a run may leave out",
                "List it in parameters.required, or give it a default.",
            )
    directory = settings.working_directory
    if directory is not None and not Path(directory).is_absolute():
        raise _wrong(name, "working_directory", "is not absolute", "Write the whole path.")


def _verify_python(name: str, settings: TaskSettings) -> None:
    if not _ENTRY_POINT.fullmatch(settings.entry_point):
        raise _wrong(name, "entry_point", "is not of the form", 'Write "package.module:function".')
    # The job's own process imports the module; here only the package is looked for, and no code of it is run.
    package = settings.entry_point.partition(":")[0].partition(".")[0]
    if "PYTHONPATH" not in settings.environment and find_spec(package) is None:
        raise _wrong(
            name, "entry_point", f"names {package}, which is not installed", "Install it beside taskcred."
        )


def _verify_http(name: str, settings: TaskSettings, http_allow: tuple[str, ...]) -> None:
    problem = http.refuse_url(settings.url, http_allow)
    if problem is not None:
        raise _wrong(name, "url", *problem)


def _verify_external(name: str, settings: TaskSettings) -> None:
    for field in sorted(settings.retry.model_fields_set - {"on_lost"}):
        raise _wrong(
            name,
            f"retry.{field}",
            f"means nothing for a {TaskKind.EXTERNAL} task",
            "Remove it: whoever carries the run out says whether it is tried again.",
        )


def _wrong(name: str, field: str, what: str, cure: str) -> ConfigurationError:
    return ConfigurationError(f"tasks.{name}.{field} {what}.", hint=cure)
