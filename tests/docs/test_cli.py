"""docs/cli.md and the commands describe the same flags in the same words."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from taskcred.cli.app import build
from taskcred.cli.exits import ExitCode

PAGE = (Path(__file__).parents[2] / "docs" / "cli.md").read_text(encoding="utf-8")
ROOT: Any = typer.main.get_command(build())


def walk(command: Any, path: tuple[str, ...]) -> Iterator[tuple[str, Any]]:
    if hasattr(command, "commands"):
        for name, child in command.commands.items():
            yield from walk(child, (*path, name))
    elif not command.hidden:
        yield " ".join(path), command


COMMANDS = dict(walk(ROOT, ("taskcred",)))


def rows(text: str) -> dict[str, str]:
    """What the first cell of each table row names -> the second cell."""
    cells = [line.strip("| ").split(" | ", 1) for line in text.splitlines() if line.startswith("| `")]
    return {name.split("`")[1]: meaning for name, meaning in cells}


SHARED = rows(PAGE.split("| shared option |", 1)[1].split("### Exit codes", 1)[0])


def test_the_page_has_exactly_the_commands_there_are() -> None:
    headings = {
        line.removeprefix("### ").strip("`") for line in PAGE.splitlines() if line.startswith("### `")
    }
    assert headings == set(COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_each_argument_and_flag_is_documented_in_its_own_words(name: str) -> None:
    command = COMMANDS[name]
    section = PAGE.split(f"\n### `{name}`\n", 1)[1].split("\n### ", 1)[0].split("\n## ", 1)[0]
    assert " ".join(command.help.split()) in section
    own = rows(section)
    also = section.partition("\nAlso: ")[2]
    for parameter in command.params:
        if parameter.param_type_name == "argument":
            assert own.pop(parameter.metavar) == parameter.help
            continue
        flag = parameter.opts[0]
        if f"`{flag}`" in also:
            assert SHARED[flag] == parameter.help
            continue
        assert own.pop(flag).removesuffix(" (required)") == parameter.help
        for spelling in [*parameter.opts, *parameter.secondary_opts]:
            assert f"`{spelling}`" in section
    assert own == {}, "documented, but not there"


def test_the_flags_before_a_command_are_documented() -> None:
    assert {parameter.opts[0] for parameter in ROOT.params} <= set(SHARED)


def test_the_exit_codes_are_documented() -> None:
    table = PAGE.split("### Exit codes", 1)[1].split("\n## ", 1)[0]
    listed = [line.strip("| ").split(" | ")[:2] for line in table.splitlines() if line[2:3].isdigit()]
    assert [(int(code), name) for code, name in listed] == [
        (int(code), code.name.lower().replace("_", " ")) for code in ExitCode
    ]


def test_every_command_can_answer_in_json_but_those_that_run_until_stopped() -> None:
    without = {
        name
        for name, command in COMMANDS.items()
        if "--json" not in {o for p in command.params for o in p.opts}
    }
    assert without == {
        "taskcred serve",
        "taskcred worker",
        "taskcred keeper",
        "taskcred agent",
        "taskcred exec",
    }


def mentioned() -> set[str]:
    """What source, pages and docs tell people to type: `taskcred …`, and in pages the macro `equivalents`."""
    root = Path(__file__).parents[2]
    prose = [*root.glob("*.md"), *root.glob("docs/**/*.md"), *root.glob("src/**/*.py")]
    places = [(file, r"`taskcred ((?:[a-z][a-z-]*[ `])+)") for file in prose]
    places += [(file, r"""[\[ ]"taskcred ((?:[a-z-]+[ "])+)""") for file in root.glob("src/**/*.html")]
    return {
        words.rstrip(' `"')
        for file, pattern in places
        for words in re.findall(pattern, file.read_text(encoding="utf-8"))
    }


@pytest.mark.parametrize("words", sorted(mentioned()))
def test_a_command_that_people_are_told_to_type_exists(words: str) -> None:
    command: Any = ROOT
    for word in words.split():
        if not hasattr(command, "commands"):
            return  # what follows is an argument
        assert word in command.commands, f"taskcred {words}"
        command = command.commands[word]
