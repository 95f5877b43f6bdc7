"""The catalogue: what is accepted, and that every refusal names the task and the cure."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from taskcred.config import TaskSettings
from taskcred.domain.tasks import TaskKind
from taskcred.errors import ConfigurationError
from taskcred.jobs.catalogue import load_tasks

TEXT = {"type": "object", "properties": {"text": {"type": "string"}}, "required": ["text"]}


def test_a_task_is_taken_over_whole() -> None:
    settings = TaskSettings(
        kind="command",
        argv=("echo", "{text}"),
        parameters=TEXT,
        timeout=timedelta(minutes=5),
        sdk_services=("iam_identity",),
        retry={"max_attempts": 3, "on_lost": False},
    )
    task = load_tasks({"say": settings})["say"]
    assert (task.name, task.kind, task.title) == ("say", TaskKind.COMMAND, "say")
    assert task.timeout == timedelta(minutes=5)
    assert (task.retry.max_attempts, task.retry.on_lost) == (3, False)


def test_the_catalogue_is_in_order() -> None:
    task = TaskSettings(kind="command", argv=("true",))
    assert list(load_tasks({"b": task, "f": task, "c": task})) == ["b", "c", "exec", "f"]


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        ({"kind": "command"}, "argv"),
        ({"kind": "command", "argv": ["{text}"], "parameters": TEXT}, "argv"),
        ({"kind": "command", "argv": ["echo", "{other}"], "parameters": TEXT}, "argv"),
        ({"kind": "command", "argv": ["echo", "{text}"], "parameters": TEXT | {"required": []}}, "argv"),
        ({"kind": "command", "argv": ["true"], "url": "https://x.test"}, "url"),
        ({"kind": "command", "argv": ["true"], "working_directory": "here"}, "working_directory"),
        ({"kind": "command", "argv": ["true"], "environment": {"A B": "1"}}, "environment"),
        ({"kind": "command", "argv": ["true"], "sdk_services": ["IAM"]}, "sdk_services"),
        ({"kind": "command", "argv": ["true"], "parameters": {"type": "string"}}, "parameters"),
        ({"kind": "command", "argv": ["true"], "parameters": {"type": 3}}, "parameters"),
        ({"kind": "python"}, "entry_point"),
        ({"kind": "python", "entry_point": "json"}, "entry_point"),
        ({"kind": "python", "entry_point": "no_such_package_at_all:main"}, "entry_point"),
        ({"kind": "http"}, "url"),
        ({"kind": "http", "url": "ftp://x.test/"}, "url"),
        ({"kind": "http", "url": "https://me:pw@x.test/"}, "url"),
        ({"kind": "http", "url": "https://x.test:99999/"}, "url"),
        ({"kind": "http", "url": "https://elsewhere.test/"}, "url"),
        ({"kind": "http", "url": "https://x.test:8443/"}, "url"),
    ],
)
def test_a_mistake_is_told_with_the_task_the_field_and_a_cure(settings: dict[str, Any], field: str) -> None:
    with pytest.raises(ConfigurationError) as told:
        load_tasks({"mine": TaskSettings(**settings)}, ("x.test",))
    assert f"tasks.mine.{field} " in told.value.message
    assert told.value.hint


@pytest.mark.parametrize("name", ["", "Up", "-a", "a b", "a" * 65, "../x"])
def test_a_name_that_cannot_be_in_a_url_is_refused(name: str) -> None:
    with pytest.raises(ConfigurationError, match="cannot be the name of a task"):
        load_tasks({name: TaskSettings(kind="command", argv=("true",))})


def test_a_parameter_with_a_default_may_be_left_out_of_required() -> None:
    schema = {"type": "object", "properties": {"n": {"type": "integer", "default": 3}}}
    assert load_tasks({"a": TaskSettings(kind="command", argv=("seq", "{n}"), parameters=schema)})


def test_an_allow_listed_url_is_accepted() -> None:
    settings = TaskSettings(kind="http", url="https://x.test/hook?a=1")
    assert load_tasks({"a": settings}, ("x.test",))["a"].url == settings.url
