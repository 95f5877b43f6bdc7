"""Errors on the wire: one table from error class to HTTP status, and the two shapes we answer in.

Our routes answer `application/problem+json` (RFC 9457) with `code`, `hint`, `action_url` and `request_id`
added. `/v1/task_credentials…` answers the container of IBM's API handbook, which IBM's clients read. A
class the table does not name, or that lies outside the tree, is a bug: 500, an id, no text.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import Any, Final

import structlog
from flask import Flask, Response, g, jsonify, request
from pydantic import BaseModel, Field
from werkzeug.exceptions import HTTPException, MethodNotAllowed

from taskcred import errors
from taskcred.errors import TaskcredError

log = structlog.get_logger("http")

STATUS: Final[dict[type[TaskcredError], int]] = {
    errors.TaskcredError: 500,
    errors.RequestError: 400,
    errors.InvalidRequestError: 400,
    errors.InvalidTokenError: 401,
    errors.ForbiddenError: 403,
    errors.NotFoundError: 404,
    errors.ConflictError: 409,
    errors.StalePreconditionError: 412,
    errors.PolicyViolationError: 422,
    errors.RateLimitedError: 429,
    errors.UnavailableError: 503,
    errors.VaultSealedError: 503,
    errors.VaultUnreachableError: 503,
    errors.VaultRefusedError: 503,
    errors.StoreBusyError: 503,
    errors.UpstreamUnavailableError: 503,
    errors.OutOfTouchError: 503,
    errors.ConfigurationError: 500,
    errors.IntegrityError: 500,
    errors.WrongMasterKeyError: 500,
    errors.RecordNotFoundError: 500,
    # Not 401: the caller is signed in, the key in the body is wrong, and IBM's SDK repeats every 401 three times.
    errors.KeyRefusedError: 400,
    errors.ProviderRefusedError: 422,
}

_IBM_SHAPED: Final = "/v1/task_credentials"


class Problem(BaseModel):
    """RFC 9457, with what a person and a program need to go on. Further members help a program."""

    type: str = Field("about:blank", description="Always about:blank: `code` tells problems apart.")
    title: str = Field(description="The status in words.")
    status: int = Field(ge=400, le=599)
    code: str = Field(description="Stable name of the problem; docs/errors.md lists them.")
    detail: str = Field(description="What happened, to what.")
    hint: str = Field(description="What to do.")
    request_id: str = Field(description="The request's id, also in the logs and in audit events.")
    action_url: str | None = Field(None, description="Where a person can mend it.")
    field: str | None = Field(None, description="The member or parameter that is wrong.")


class IbmTarget(BaseModel):
    """What an IBM error is about."""

    type: str = Field(description="field, parameter or header.")
    name: str


class IbmError(BaseModel):
    """One error of IBM's container, with `hint` and `action_url` added."""

    code: str
    message: str
    more_info: str = Field(description="Where to read or do more; empty where there is nothing.")
    hint: str
    target: IbmTarget | None = None


class IbmErrors(BaseModel):
    """The error container of IBM's API handbook."""

    trace: str = Field(description="The request's id.")
    errors: list[IbmError] = Field(min_length=1)
    status_code: int = Field(ge=400, le=599)


_HTTP_CODES: Final = {
    400: ("invalid_request", "The request cannot be read.", "Look at /openapi.json for what is expected."),
    404: ("not_found", "There is no such address.", "Look at /openapi.json for the addresses there are."),
    405: (
        "method_not_allowed",
        "This address does not know that method.",
        "The Allow header names those it knows.",
    ),
    413: ("too_large", "The request body is larger than 1 MiB.", "Send less."),
    415: ("unsupported_media_type", "The request body is not JSON.", "Send Content-Type: application/json."),
}


def status_of(error: TaskcredError) -> int:
    """The HTTP status of an error of the tree."""
    return STATUS.get(type(error), 500)


def is_ibm_shaped(path: str) -> bool:
    """Whether errors of this address come in IBM's container."""
    return path == _IBM_SHAPED or path.startswith(_IBM_SHAPED + "/")


def install(app: Flask) -> None:
    """Answer every error of `app` in the shape its address asks for."""
    app.register_error_handler(TaskcredError, _ours)
    app.register_error_handler(HTTPException, _frameworks)
    app.register_error_handler(Exception, _bug)


def _ours(error: TaskcredError) -> Response:
    status = status_of(error)
    if status >= 500 and error.retry == "never":
        log.error("failed", code=error.error_code, exc_info=error)
    response = _answer(
        status, error.error_code, error.message, error.hint, error.action_url, _plain(error.details)
    )
    retry_after = getattr(error, "retry_after", None)
    if retry_after is not None:
        response.headers["Retry-After"] = str(retry_after)
    if status == 401:
        response.headers["WWW-Authenticate"] = _challenge(error)
    return response


def _frameworks(error: HTTPException) -> Response | HTTPException:
    if error.code is None or error.code < 400:
        return error  # a redirect
    code, message, hint = _HTTP_CODES.get(
        error.code,
        ("http_error", HTTPStatus(error.code).phrase + ".", "Look at /openapi.json for what is expected."),
    )
    response = _answer(error.code, code, message, hint)
    if isinstance(error, MethodNotAllowed) and error.valid_methods:
        response.headers["Allow"] = ", ".join(sorted(error.valid_methods))
    return response


def _bug(error: Exception) -> Response:
    # Its text may hold anything, so only the log gets it, and redacted.
    log.error("bug", kind=type(error).__name__, exc_info=error)
    return _answer(
        500,
        "internal",
        "Something went wrong on our side.",
        f"Tell the operator this request's id: {request_id()}.",
    )


def request_id() -> str:
    """The id of the present request; empty before it has one."""
    return str(g.get("request_id", ""))


def _plain(details: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in details.items() if value is not None}


def _answer(
    status: int,
    code: str,
    message: str,
    hint: str,
    action_url: str | None = None,
    details: dict[str, Any] | None = None,
) -> Response:
    details = details or {}
    if is_ibm_shaped(request.path):
        response = jsonify(_ibm(status, code, message, hint, action_url, details))
        # The header that IBM's SDK cores show as an error's global_transaction_id.
        response.headers["X-Global-Transaction-Id"] = request_id()
    else:
        body = {
            **details,
            "type": "about:blank",
            "title": HTTPStatus(status).phrase,
            "status": status,
            "code": code,
            "detail": message,
            "hint": hint,
            "request_id": request_id(),
        }
        if action_url:
            body["action_url"] = action_url
        response = jsonify(body)
        response.mimetype = "application/problem+json"
    response.status_code = status
    return response


def _ibm(
    status: int, code: str, message: str, hint: str, action_url: str | None, details: dict[str, Any]
) -> dict[str, Any]:
    item: dict[str, Any] = {"code": code, "message": message, "more_info": action_url or "", "hint": hint}
    if "field" in details:
        item["target"] = {"type": details.pop("target_type", "field"), "name": details.pop("field")}
    return {"trace": request_id(), "errors": [{**details, **item}], "status_code": status}


def _challenge(error: TaskcredError) -> str:
    """RFC 6750, section 3: no error code where no credentials were presented."""
    scheme = g.get("challenge", "Bearer")
    if error.error_code != "invalid_token":
        return f'{scheme} realm="taskcred"'
    return f'{scheme} realm="taskcred", error="invalid_token"'
