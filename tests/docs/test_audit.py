"""docs/audit.md lists every action that code records, and no other."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from taskcred.domain.permissions import Permission

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "audit.md").read_text(encoding="utf-8")
NAME = re.compile(r"[a-z]+:[a-z_]*[a-z]")
SCOPES = {
    "credential",
    "key",
    "intent",
    "prompt",
    "run",
    "attempt",
    "token",
    "schedule",
    "grant",
    "event",
    "notice",
    "session",
} | {
    "service",
    "worker",
    "data",
}
IAM_SCOPES = {"user", "account", "apikey", "serviceid"}


def words(folder: str) -> Iterator[str]:
    """Every string like scope:action below `folder`, but for what only names them (pages, permissions)."""
    for file in sorted((ROOT / "src" / "taskcred" / folder).rglob("*.py")):
        if "web" in file.parts or file.name == "permissions.py":
            continue
        tree = ast.parse(file.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and NAME.fullmatch(node.value):
                yield node.value


def of(scopes: set[str], found: Iterator[str] | list[str]) -> set[str]:
    return {word for word in found if word.partition(":")[0] in scopes}


# Changes that are intents are named by their kind: services/intent_making.py.
RECORDED = of(SCOPES, words("")) | {"credential:create", "credential:rotate"}
TABLE, _, REST = PAGE.partition("\n## Actions\n")[2].partition("\n\nA permission")
REFUSED, _, IAM = REST.partition("\n## The local IAM\n")


def test_every_action_is_described_once() -> None:
    listed = re.findall(r"^\| `([^`]+)` \|", TABLE, flags=re.MULTILINE)
    assert len(listed) == len(set(listed))
    assert set(listed) == RECORDED


def test_every_permission_that_can_be_refused_is_listed() -> None:
    assert (
        of(SCOPES | {"task", "audit", "serviceid"}, re.findall(r"`([^`]+)`", REFUSED))
        == {str(permission) for permission in Permission} - RECORDED
    )


def test_the_history_of_the_local_iam_is_listed() -> None:
    assert of(IAM_SCOPES, re.findall(r"`([^`]+)`", IAM)) == of(IAM_SCOPES, words("iam"))
