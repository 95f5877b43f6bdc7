"""/v1/tasks: the catalogue."""

from __future__ import annotations

from typing import Any

from flask import Response
from pydantic import BaseModel, Field

from taskcred.domain.permissions import Permission
from taskcred.domain.tasks import Task, TaskKind
from taskcred.http.answers import send
from taskcred.http.authentication import context
from taskcred.http.operations import nouns, operation

api = nouns("tasks", "The catalogue of tasks.")


class TaskOut(BaseModel):
    """A task as those see it who may start it: what it is, not how it is carried out."""

    name: str
    kind: TaskKind
    title: str
    description: str
    parameters: dict[str, Any] = Field(description="JSON schema of its parameters.")
    timeout: int = Field(description="Seconds after which an attempt is ended.")
    max_attempts: int = Field(ge=1)


class TaskList(BaseModel):
    """The tasks, by name."""

    items: list[TaskOut]
    next: str | None = None


@operation(api, "get", "/v1/tasks", Permission.TASK_READ, answers={200: TaskList})
def list_tasks() -> Response:
    """The tasks that may be started."""
    catalogue = context().tasks
    return send(TaskList(items=[_out(catalogue[name]) for name in sorted(catalogue)]))


def _out(task: Task) -> TaskOut:
    return TaskOut(
        name=task.name,
        kind=task.kind,
        title=task.title or task.name,
        description=task.description,
        parameters=dict(task.parameters),
        timeout=int(task.timeout.total_seconds()),
        max_attempts=task.retry.max_attempts,
    )
