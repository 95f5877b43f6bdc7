"""One table from error class to status, two shapes on the wire, and no text that was not meant for it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from flask import Response

from taskcred import errors
from taskcred.domain.keytext import USER_KEY_PREFIX, new_key
from taskcred.http import problems
from taskcred.testing import Failure
from tests.support.site import Site


def _tree(root: type[errors.TaskcredError]) -> Iterator[type[errors.TaskcredError]]:
    yield root
    for child in root.__subclasses__():
        if not child.__module__.startswith("taskcred.client"):  # what programs meet there, no server answers
            yield from _tree(child)


@pytest.mark.parametrize(
    "kind", sorted(set(_tree(errors.TaskcredError)), key=str), ids=lambda kind: kind.__name__
)
def test_every_error_class_has_a_status(kind: type[errors.TaskcredError]) -> None:
    assert kind in problems.STATUS, f"{kind.__name__} is missing from http.problems.STATUS"


def test_what_passes_by_itself_says_so() -> None:
    for kind, status in problems.STATUS.items():
        assert (status in {429, 503}) == (kind.retry == "later"), kind.__name__


def _breaks_at(site: Site, path: str, error: Exception) -> None:
    def view() -> Response:
        raise error

    site.app.add_url_rule(path, path, view)


def test_our_routes_answer_problem_json(site: Site) -> None:
    answer = site.client().get("/v1/runs")
    body = answer.get_json()
    assert (answer.status_code, answer.mimetype) == (401, "application/problem+json")
    assert body["status"] == 401
    assert body["code"] == "authentication_required"
    assert body["hint"]
    assert body["action_url"] == "https://taskcred.test/sign-in"
    assert body["request_id"] == answer.headers["X-Request-Id"]


def test_task_credentials_answer_ibms_container(site: Site) -> None:
    me = site.bearer()
    answer = me.post("/v1/task_credentials", json={"name": "n", "secret": {"api_key": None}})
    body = answer.get_json()
    assert (answer.status_code, answer.mimetype) == (400, "application/json")
    assert body["status_code"] == 400
    assert body["trace"] == answer.headers["X-Request-Id"] == answer.headers["X-Global-Transaction-Id"]
    (error,) = body["errors"]
    assert error["code"] == "invalid_request"
    assert error["target"] == {"type": "field", "name": "secret.api_key"}
    assert error["hint"]


def test_an_unknown_address_below_task_credentials_is_ibm_shaped_too(site: Site) -> None:
    answer = site.bearer().get("/v1/task_credentials/none")
    assert answer.status_code == 404
    assert answer.get_json()["errors"][0]["code"] == "not_found"


def test_a_bug_is_an_id_and_no_text(site: Site) -> None:
    key = new_key(USER_KEY_PREFIX).reveal()
    _breaks_at(site, "/boom", RuntimeError(f"could not use {key}"))
    answer = site.client().get("/boom")
    assert answer.status_code == 500
    assert answer.get_json()["code"] == "internal"
    assert answer.get_json()["request_id"] in answer.get_json()["hint"]
    assert key not in answer.text
    assert "RuntimeError" not in answer.text


def test_a_part_that_is_away_says_when_to_come_back(site: Site) -> None:
    me = site.bearer()
    site.provider.script("verify", Failure.UNAVAILABLE)
    answer = me.get("/v1/runs")
    assert answer.status_code == 503
    assert int(answer.headers["Retry-After"]) > 0


def test_too_many_requests_say_when_to_come_back(site: Site) -> None:
    _breaks_at(site, "/busy", errors.RateLimitedError("Too many requests.", retry_after=7))
    answer = site.client().get("/busy")
    assert (answer.status_code, answer.headers["Retry-After"]) == (429, "7")


@pytest.mark.parametrize(
    ("headers", "challenge"),
    [
        ({}, 'Bearer realm="taskcred"'),
        ({"Authorization": "Bearer nonsense"}, 'Bearer realm="taskcred", error="invalid_token"'),
        ({"Authorization": "Basic bm9ib2R5Ondyb25n"}, 'Basic realm="taskcred", error="invalid_token"'),
        ({"Authorization": "Digest x"}, 'Bearer realm="taskcred", error="invalid_token"'),
    ],
)
def test_401_carries_a_challenge(site: Site, headers: dict[str, str], challenge: str) -> None:
    answer = site.client(headers).get("/v1/runs")
    assert (answer.status_code, answer.headers["WWW-Authenticate"]) == (401, challenge)


def test_the_workers_route_asks_for_the_workers_credential(site: Site) -> None:
    answer = site.client().post(f"/v1/runs/{site.no_id}/attempts", json={"dispatch_no": 1})
    assert (answer.status_code, answer.headers["WWW-Authenticate"]) == (401, 'Basic realm="taskcred"')


def test_a_wrong_provided_key_is_no_401(site: Site) -> None:
    # IBM's SDK repeats every 401 three times with the same token.
    wrong = new_key(USER_KEY_PREFIX).reveal()
    answer = site.bearer().post("/v1/task_credentials", json={"name": "n", "secret": {"api_key": wrong}})
    assert answer.status_code == 400
    assert wrong not in answer.text


def test_an_unknown_method_names_the_known_ones(site: Site) -> None:
    answer = site.bearer().put("/v1/runs")
    assert answer.status_code == 405
    assert answer.headers["Allow"] == "GET, HEAD, POST"
    assert answer.get_json()["code"] == "method_not_allowed"


def test_request_ids_are_taken_over_only_where_they_are_plain(site: Site) -> None:
    mine = site.client({"X-Request-Id": "gateway-0123"}).get("/healthz")
    odd = site.client({"X-Request-Id": "x" * 100}).get("/healthz")
    assert mine.headers["X-Request-Id"] == "gateway-0123"
    assert len(odd.headers["X-Request-Id"]) == 36
