"""Tasks: kinds of work an administrator puts into the catalogue. Users choose tasks, never commands."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum
from typing import Any

from taskcred.domain.runs import RetryRule


class TaskKind(StrEnum):
    """How a task's job is carried out."""

    COMMAND = "command"
    PYTHON = "python"
    HTTP = "http"
    EXTERNAL = "external"


@dataclass(frozen=True, slots=True)
class Task:
    """A catalogue entry. `parameters` is a JSON schema (2020-12) of type object.

    command  argv, with `{name}` replaced by the parameter of that name, whole arguments only, never a shell
    python   entry_point "package.module:function", called with the parameters as keyword arguments
    http     method and url; the parameters are the JSON body; sent with the owner's access token
    external the service that started the run carries it out, or the owner on their own machine
    """

    name: str
    kind: TaskKind
    title: str = ""
    description: str = ""
    parameters: Mapping[str, Any] = field(
        default_factory=lambda: {"type": "object", "additionalProperties": False}
    )
    argv: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    working_directory: str | None = None
    # "iam_identity" gives IAM_IDENTITY_AUTH_TYPE, _APIKEY, _AUTH_URL, _URL
    sdk_services: tuple[str, ...] = ()
    entry_point: str = ""
    method: str = "POST"
    url: str = ""
    timeout: timedelta = timedelta(hours=24)
    retry: RetryRule = field(default_factory=RetryRule)
    output_limit: int = 1_048_576  # bytes of output kept for each attempt
