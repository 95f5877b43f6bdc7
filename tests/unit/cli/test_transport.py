"""Refusals of a server become errors of the tree."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from taskcred import errors
from taskcred.cli.transport import error_of, translated


def refusal(status: int, body: Any, **headers: str) -> errors.TaskcredError:
    request = httpx.Request("GET", "http://127.0.0.1/v1/runs/x")
    return error_of(httpx.Response(status, json=body, headers=headers, request=request))


def problem(status: int, code: str, **more: Any) -> errors.TaskcredError:
    body = {
        "type": "about:blank",
        "title": "T",
        "status": status,
        "code": code,
        "detail": "What.",
        "hint": "Cure.",
    }
    return refusal(status, body | more)


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (400, "invalid_parameters", errors.InvalidRequestError),
        (400, "key_refused", errors.KeyRefusedError),
        (401, "invalid_token", errors.InvalidTokenError),
        (403, "forbidden", errors.ForbiddenError),
        (404, "not_found", errors.NotFoundError),
        (409, "conflict", errors.ConflictError),
        (412, "stale_revision", errors.StalePreconditionError),
        (415, "unsupported_media_type", errors.RequestError),
        (422, "policy_violation", errors.PolicyViolationError),
        (500, "integrity", errors.IntegrityError),
        (500, "internal", errors.TaskcredError),
        (503, "vault_sealed", errors.VaultSealedError),
        (503, "anything", errors.UnavailableError),
    ],
)
def test_status_and_code_choose_the_class(status: int, code: str, kind: type[errors.TaskcredError]) -> None:
    error = problem(status, code)
    assert type(error) is kind
    assert (error.error_code, error.message) == (code, "What.")


def test_what_helps_a_program_is_kept() -> None:
    error = problem(409, "credential_exists", existing_id="e", action_url="http://h/x", request_id="r")
    assert error.details == {"existing_id": "e", "request_id": "r"}
    assert (error.hint, error.action_url) == ("Cure.", "http://h/x")


def test_ibms_container_is_read_too() -> None:
    item = {
        "code": "credential_exists",
        "message": "There is one.",
        "more_info": "",
        "hint": "Rotate it.",
        "existing_id": "e",
    }
    error = refusal(409, {"trace": "t", "errors": [item], "status_code": 409})
    assert type(error) is errors.ConflictError
    assert (error.message, error.hint, error.action_url) == ("There is one.", "Rotate it.", None)
    assert error.details == {"existing_id": "e", "request_id": "t"}


def test_ibms_token_endpoint_is_read_too() -> None:
    error = refusal(400, {"errorCode": "BXNIM0408E", "errorMessage": "Refresh token expired.", "context": {}})
    assert (error.error_code, error.message) == ("BXNIM0408E", "Refresh token expired.")


@pytest.mark.parametrize("code", ["fresh_sign_in_required", "programmatic_token"])
def test_where_a_sign_in_helps_the_hint_names_the_command(code: str) -> None:
    assert "taskcred login" in problem(403, code).hint


def test_rate_limits_say_when() -> None:
    error = refusal(429, {"detail": "Slow down.", "code": "rate_limited"}, **{"Retry-After": "7"})
    assert isinstance(error, errors.RateLimitedError)
    assert error.retry_after == 7


@pytest.mark.parametrize("body", [None, [], "x", {}])
def test_an_answer_without_words_still_says_what_was_asked(body: Any) -> None:
    assert refusal(404, body).message == "/v1/runs/x answered 404."


def test_an_unreachable_server_is_unavailable_and_says_how_to_start_one() -> None:
    with pytest.raises(errors.UnavailableError) as caught, translated("http://127.0.0.1:1"):
        httpx.get("http://127.0.0.1:1")
    assert "taskcred serve" in caught.value.hint
