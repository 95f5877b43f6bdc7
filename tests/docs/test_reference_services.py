"""docs/reference-services.md has the routes that services may use, and every error that they can get there.

Held against /openapi.json, docs/errors.md, the tests that provoke each error, and the code: a code that a
module behind these routes raises is in the table, or named below with the reason why no service meets it.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any, Final, get_args

import pytest

from taskcred import errors
from taskcred.http import executions, runs
from taskcred.store.events import EventType
from tests.docs.test_errors import documented
from tests.functional.http import test_service_errors, test_service_errors_elsewhere, test_token_errors
from tests.support.site import Site, make_site

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "reference-services.md").read_text(encoding="utf-8")
SOURCE = ROOT / "src" / "taskcred"

# What a request of a service passes through, and what its jobs' requests for tokens do.
BEHIND_THE_ROUTES: Final = {
    "http": "runs executions grants events tasks authentication answers reading token_endpoint",
    "services": "starting executions runs events idempotency parameters cursors federation service_secrets "
    "attempts endings reports tokens authorize grants acting broker alarm",
    "domain": "starts permissions",
    "identity": "federation tokens jwks client upstream",
    "store": "engine",
    "vaults": "embedded openbao openbao_http openbao_login",
}
NOT_FOR_SERVICES: Final = {
    "act_for_refused": "the header goes with people's tokens; a service gets forbidden",
    "conflict": "the class; workers are told why there is nothing to do by the codes of NotBegun",
    "credential_unusable": "becomes parked, or BXNIM0415E",
    "external_task": "for schedules and pages",
    "fresh_sign_in_required": "for people",
    "identity_provider_refused": "for changes of keys",
    "integrity": "stored bytes are wrong: the operator is called",
    "invalid_url": "for trusts, which are the operator's",
    "key_refused": "becomes parked, or BXNIM0415E",
    "secret_current": "for administrators",
    "service_not_active": "for owners who are asked for a grant",
    "stale_revision": "no route of a service takes If-Match",
    "store_outdated": "the program was replaced under a server that runs: the operator is called",
    "task_not_offered": "for owners who are asked for a grant",
    "trust_exists": "for the operator",
    "vault_conflict": "for changes of keys",
    "vault_refused": "the class",
    "vault_wrong_mount": "keeps the server from starting",
    "vault_record_not_found": "becomes parked: the key is gone",
    "wrong_master_key": "keeps the server from starting",
}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    return make_site(tmp_path_factory.mktemp("site"))


@pytest.fixture(scope="module")
def document(site: Site) -> dict[str, Any]:
    return dict(site.client().get("/openapi.json").get_json())


def rows(heading: str) -> list[list[str]]:
    """The cells of the first table below a heading."""
    below = PAGE.split(f"\n{heading}\n", 1)[1]
    table = re.search(r"^\|.*(?:\n\|.*)*", below, flags=re.MULTILINE)
    assert table is not None
    return [line.strip("| ").split(" | ") for line in table[0].splitlines()[2:]]


def table(heading: str) -> dict[str, int]:
    """code -> HTTP status, by a table of errors, each row with all that it must say."""
    found = rows(heading)
    assert all(len(row) == 4 and all(row) for row in found)
    return {row[0].strip("`"): int(row[1]) for row in found}


def raised() -> set[str]:
    """The codes that the modules behind the routes give to errors."""
    found: set[str] = set()
    files = [
        SOURCE / room / f"{name}.py" for room, names in BEHIND_THE_ROUTES.items() for name in names.split()
    ]
    for file in files:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call):
                continue
            called = getattr(node.func, "id", getattr(node.func, "attr", ""))
            kind = getattr(errors, called, None)
            if called == "Denied":
                found.add(ast.literal_eval(node.args[0]))
            elif isinstance(kind, type) and issubclass(kind, errors.TaskcredError):
                codes = [each.value for each in node.keywords if each.arg == "code"]
                plain = [each.value for each in codes if isinstance(each, ast.Constant)]
                found.add(str(plain[0]) if plain else kind.code)
    return found


def test_the_routes_are_those_that_let_services_in(document: dict[str, Any]) -> None:
    let_in = {
        f"{method.upper()} {path}": operation
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
        if {"service": []} in operation["security"]
    }
    shown = {row[0].strip("`"): row[2] for row in rows("## Routes")}
    assert set(shown) == set(let_in)
    for route, answers in shown.items():
        good = sorted(status for status in let_in[route]["responses"] if status < "400")
        assert answers.split(", ") == good, route


def test_each_error_is_one_that_its_route_declares(document: dict[str, Any]) -> None:
    declared = {
        int(status)
        for methods in document["paths"].values()
        for operation in methods.values()
        if {"service": []} in operation["security"]
        for status in operation["responses"]
    }
    # No route declares what answers before any route, or what is nobody's intention.
    assert set(table("## Errors").values()) <= declared | {405, 500}


def test_each_error_is_provoked_and_none_is_missing() -> None:
    cases = [*test_service_errors.CASES.values(), *test_service_errors_elsewhere.CASES.values()]
    assert table("## Errors") == {code: status for status, code, *_ in cases}
    provoked = {code: status for status, code, _ in test_token_errors.CASES.values()}
    assert table("### Of the token endpoint") == provoked


def test_each_error_has_the_status_of_the_page_of_all() -> None:
    known = {code: status for code, (status, _) in documented().items()}
    for code, status in table("## Errors").items():
        assert known[code] == status, code


def test_what_the_code_raises_is_in_the_tables_or_is_not_for_services() -> None:
    told = set(table("## Errors")) | set(table("### Of the token endpoint"))
    assert raised() - told == set(NOT_FOR_SERVICES)
    assert not told & set(NOT_FOR_SERVICES)


def test_the_members_of_answers_are_those_there_are() -> None:
    named = {name for row in rows("### Start a run") for name in re.findall(r"`(\w+)`", row[0])}
    assert named == set(runs.Run.model_fields)
    begin, heartbeat, end = rows("### Carry it out")
    assert set(re.findall(r"`(\w+)`", begin[2])) == (
        set(executions.Begun.model_fields) | set(executions.Sdk.model_fields)
    )
    assert re.findall(r"`(\w+)`", heartbeat[2]) == list(executions.Heard.model_fields)
    assert set(re.findall(r"`(\w+)`", end[1])) >= {"again", "exit_code", "reason"}


def test_the_events_are_those_there_are() -> None:
    assert [row[0].strip("`") for row in rows("## Events")] == list(get_args(EventType))
