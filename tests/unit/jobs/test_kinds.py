"""What a task and its parameters become."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from taskcred.authorities import write_ca_file
from taskcred.domain.keytext import STANDIN_KEY_PREFIX, new_key
from taskcred.domain.tasks import Task, TaskKind
from taskcred.jobs.environment import job_environment
from taskcred.jobs.kinds import command, python


def a_command(*argv: str, **properties: dict[str, Any]) -> Task:
    schema = {"type": "object", "properties": properties}
    return Task("t", TaskKind.COMMAND, argv=argv, parameters=schema)


def test_only_whole_arguments_are_replaced() -> None:
    built = command.build(a_command("run", "{text}", "--x={text}", "{{text}}"), {"text": "a b; rm -rf"})
    assert built.argv == ("run", "a b; rm -rf", "--x={text}", "{{text}}")


def test_a_parameter_is_not_looked_into_for_further_parameters() -> None:
    assert command.build(a_command("run", "{a}", "{b}"), {"a": "{b}", "b": "2"}).argv == ("run", "{b}", "2")


@pytest.mark.parametrize(
    ("value", "text"),
    [(3, "3"), (True, "true"), (None, "null"), ([1, "ü"], '[1, "ü"]'), ({"a": 1.5}, '{"a": 1.5}')],
)
def test_other_values_are_json(value: Any, text: str) -> None:
    assert command.build(a_command("run", "{v}"), {"v": value}).argv == ("run", text)


def test_what_a_run_left_out_has_the_schemas_default() -> None:
    assert command.build(a_command("seq", "{n}", n={"default": 7}), {}).argv == ("seq", "7")


def test_a_python_task_is_told_its_parameters_where_no_process_list_shows_them() -> None:
    built = python.build(Task("t", TaskKind.PYTHON, entry_point="a.b:c"), {"text": "private"})
    assert json.loads(built.stdin) == {"entry_point": "a.b:c", "parameters": {"text": "private"}}
    assert not any("private" in argument for argument in built.argv)


def test_the_environment_is_all_made_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TASKCRED_MASTER_KEY_FILE", "/somewhere")
    key = new_key(STANDIN_KEY_PREFIX)
    task = Task("t", TaskKind.COMMAND, sdk_services=("iam_identity",), environment={"EXTRA": "1"})
    made = job_environment(task, "run-1", key, url="https://t.test", home="/job", ca_file=Path("/x/ca.pem"))
    assert {name for name, value in made.items() if value == key.reveal()} == {
        "IBMCLOUD_API_KEY",
        "IAM_IDENTITY_APIKEY",
    }
    assert set(made) == {
        "PATH", "HOME", "LANG", "IBMCLOUD_API_KEY", "TASKCRED_URL", "TASKCRED_RUN_ID", "EXTRA",
        "IAM_IDENTITY_AUTH_TYPE", "IAM_IDENTITY_APIKEY", "IAM_IDENTITY_AUTH_URL", "IAM_IDENTITY_URL",
        "REQUESTS_CA_BUNDLE", "SSL_CERT_FILE",
    }  # fmt: skip


def test_a_task_may_say_where_a_service_lives() -> None:
    task = Task("t", TaskKind.COMMAND, sdk_services=("wx",), environment={"WX_URL": "https://elsewhere.test"})
    key = new_key(STANDIN_KEY_PREFIX)
    made = job_environment(task, "r", key, url="https://t.test", home="/job", ca_file=None)
    assert (made["WX_URL"], made["WX_AUTH_URL"]) == ("https://elsewhere.test", "https://t.test")


def test_our_authority_joins_the_public_ones(tmp_path: Path) -> None:
    own, target = tmp_path / "own.pem", tmp_path / "ca.pem"
    own.write_text("OUR AUTHORITY")
    write_ca_file(own, target)
    assert "OUR AUTHORITY" in target.read_text()
    assert target.stat().st_mode & 0o777 == 0o644  # jobs are another user
