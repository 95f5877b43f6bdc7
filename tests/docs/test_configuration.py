"""docs/configuration.md and the code describe the same settings, with the same defaults and words."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from taskcred import config_sources
from taskcred.config import RetrySettings, Settings, TaskSettings

PAGE = (Path(__file__).parents[2] / "docs" / "configuration.md").read_text(encoding="utf-8")


def tables() -> Iterator[tuple[str, type[BaseModel]]]:
    yield "Top level", Settings
    for name, field in Settings.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield f"`[{name}]`", field.annotation
            for inner, below in field.annotation.model_fields.items():
                if isinstance(below.annotation, type) and issubclass(below.annotation, BaseModel):
                    yield f"`[{name}.{inner}]`", below.annotation
    yield "`[tasks.NAME]`", TaskSettings
    yield "`[tasks.NAME.retry]`", RetrySettings


def section(heading: str) -> str:
    return PAGE.split(f"\n### {heading}\n", 1)[1].split("\n### ", 1)[0].split("\n## ", 1)[0]


def documented(heading: str) -> dict[str, tuple[str, str]]:
    """name -> (default, meaning) of the heading's table."""
    rows = [line.strip("| ").split(" | ") for line in section(heading).splitlines() if line.startswith("| `")]
    return {name.strip("`"): (default, meaning) for name, default, meaning in rows}


def seconds(text: str) -> float:
    return float(text[:-1]) * {"s": 1, "m": 60, "h": 3600, "d": 86400}[text[-1]]


def is_same(written: str, default: Any) -> bool:
    if default is PydanticUndefined:
        return written == "required"
    if default is None:
        return written == "not set"
    if default == "":
        return written == "empty"
    if isinstance(default, timedelta):
        return seconds(written.strip('`"')) == default.total_seconds()
    if isinstance(default, dict) and default:
        return written == "an object without members"
    value = tomllib.loads(f"value = {written.strip('`')}")["value"]
    return bool(
        value
        == (list(default) if isinstance(default, tuple) else getattr(default, "as_posix", lambda: default)())
    )


@pytest.mark.parametrize(("heading", "model"), list(tables()), ids=[heading for heading, _ in tables()])
def test_each_setting_is_documented_with_its_default_and_its_words(
    heading: str, model: type[BaseModel]
) -> None:
    def is_table(field: FieldInfo) -> bool:
        kind = field.annotation
        return isinstance(kind, type) and issubclass(kind, BaseModel)

    fields = {name: f for name, f in model.model_fields.items() if not is_table(f) and name != "tasks"}
    rows = documented(heading)
    assert set(rows) == set(fields)
    for name, field in fields.items():
        default, meaning = rows[name]
        assert meaning == field.description, name
        assert is_same(default, field.get_default(call_default_factory=True)), (name, default)


def test_no_table_is_documented_that_does_not_exist() -> None:
    documented_headings = {line.removeprefix("### ") for line in PAGE.splitlines() if line.startswith("### ")}
    assert documented_headings == {heading for heading, _ in tables()}


def test_the_example_is_a_valid_file(tmp_path: Path) -> None:
    example = PAGE.split("```toml\n", 1)[1].split("```", 1)[0]
    file = tmp_path / "taskcred.toml"
    file.write_text(example)
    settings = config_sources.read(file, tmp_path, {}).settings
    assert settings.tasks["nightly-report"].retry.max_attempts == 3


def test_each_variable_that_is_no_setting_is_documented() -> None:
    listed = {
        line.split("`")[1]
        for line in PAGE.split("## Variables that are not settings")[1].splitlines()
        if "| `" in line
    }
    assert listed == config_sources.OTHER_VARIABLES | set(config_sources.ALIASES)
