"""docs/errors.md lists every error code there is, with the HTTP status and the exit code it has."""

from __future__ import annotations

import ast
import typing
from pathlib import Path

import pytest

from taskcred import errors
from taskcred.cli.exits import EXIT_CODES
from taskcred.client.errors import KNOWN_BY_CODE
from taskcred.http.problems import _HTTP_CODES, STATUS
from taskcred.services.attempts import NotBegun

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "errors.md").read_text(encoding="utf-8")
Kind = type[errors.TaskcredError]


def documented() -> dict[str, tuple[int, int]]:
    """code -> (HTTP status, exit code), by the page."""
    rows = [line.strip("| ").split(" | ") for line in PAGE.splitlines() if line.startswith("| `")]
    return {row[0].strip("`"): (int(row[1]), int(row[2])) for row in rows}


def raised() -> dict[str, Kind]:
    """Every code that the source gives to an error, with the error's class."""
    found: dict[str, Kind] = {kind.code: kind for kind in EXIT_CODES}
    for file in sorted((ROOT / "src").rglob("*.py")):
        for call in [node for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.Call)]:
            name = getattr(call.func, "id", getattr(call.func, "attr", ""))
            if name == "Denied":  # domain.permissions: becomes a ForbiddenError
                found.setdefault(ast.literal_eval(call.args[0]), errors.ForbiddenError)
            kind = getattr(errors, name, None)
            if not isinstance(kind, type):
                continue
            for keyword in call.keywords:
                if keyword.arg == "code" and isinstance(keyword.value, ast.Constant) and keyword.value.value:
                    found.setdefault(keyword.value.value, kind)
    # What workers are told where there is nothing to do, and what the framework refuses by itself.
    found |= dict.fromkeys(typing.get_args(typing.get_type_hints(NotBegun)["why"]), errors.ConflictError)
    return found


RAISED = raised()
FRAMEWORK = {code: status for status, (code, *_) in _HTTP_CODES.items() if code not in RAISED} | {
    "http_error": 400
}


def test_the_page_lists_every_code_and_no_other() -> None:
    assert set(documented()) == set(RAISED) | set(FRAMEWORK)


@pytest.mark.parametrize("code", sorted(RAISED))
def test_a_code_has_the_status_and_the_exit_code_the_page_says(code: str) -> None:
    kind = KNOWN_BY_CODE.get(code, RAISED[code])
    assert documented()[code] == (STATUS[RAISED[code]], EXIT_CODES[kind])


@pytest.mark.parametrize("code", sorted(FRAMEWORK))
def test_a_code_of_the_framework_has_the_status_the_page_says(code: str) -> None:
    assert documented()[code][0] == FRAMEWORK[code]
