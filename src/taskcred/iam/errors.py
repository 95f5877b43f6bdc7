"""IBM's two error containers, and the one table that turns our error tree into them.

`/identity/*` answers `{"errorCode", "errorMessage", "errorDetails", "context"}`; the resource routes
answer `{"context", "status_code", "trace", "errors": [...]}`. An SDK shows the first message it finds, so
neither container carries a field `error` or `message` beside its own. BXNIM codes are those seen in IBM's
public material; an error for which none is known carries the nearest one that clients already know.
"""

from __future__ import annotations

import socket
import threading
import uuid
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple

from flask import Response, g, jsonify, request
from werkzeug.exceptions import HTTPException

from taskcred.errors import (
    ConflictError,
    ForbiddenError,
    InvalidRequestError,
    InvalidTokenError,
    KeyRefusedError,
    NotFoundError,
    RateLimitedError,
    RequestError,
    StalePreconditionError,
    TaskcredError,
    UnavailableError,
)

KEY_NOT_FOUND: Final = "BXNIM0415E"
PROPERTY_MISSING: Final = "BXNIM0109E"
PROPERTY_INVALID: Final = "BXNIM0106E"
NOT_FOUND: Final = "BXNIM0102E"
NOT_A_MEMBER: Final = "BXNIM0141E"
NOT_AUTHORIZED: Final = "BXNIM0513E"
NO_AUTHORIZATION: Final = "BXNIM0308E"
TOKEN_MALFORMED: Final = "BXNIM0401E"  # noqa: S105 - an error code, not a secret
TOKEN_REFUSED: Final = "BXNIM0405E"  # noqa: S105 - an error code, not a secret
REFRESH_TOKEN_INVALID: Final = "BXNIM0407E"  # noqa: S105 - an error code, not a secret
WRONG_METHOD: Final = "BXNIM0060E"
_INTERNAL: Final = "BXNIM0001E"


class Answer(NamedTuple):
    """How an error is answered: HTTP status and the BXNIM code it has unless it names its own."""

    status: int
    bxnim: str


# The first class that fits, so subclasses stand before their bases.
_TABLE: Final[tuple[tuple[type[TaskcredError], Answer], ...]] = (
    (KeyRefusedError, Answer(400, KEY_NOT_FOUND)),
    (InvalidRequestError, Answer(400, PROPERTY_INVALID)),
    (InvalidTokenError, Answer(401, TOKEN_REFUSED)),
    (ForbiddenError, Answer(403, NOT_AUTHORIZED)),
    (NotFoundError, Answer(404, NOT_FOUND)),
    (StalePreconditionError, Answer(409, PROPERTY_INVALID)),
    (ConflictError, Answer(409, PROPERTY_INVALID)),
    (RateLimitedError, Answer(429, PROPERTY_INVALID)),
    (RequestError, Answer(400, PROPERTY_INVALID)),
    (UnavailableError, Answer(503, _INTERNAL)),
)


def answer_for(error: TaskcredError) -> Answer:
    """The table's row for `error`. An error may name its own in its details: `bxnim`, `status`."""
    row = next((row for kind, row in _TABLE if isinstance(error, kind)), Answer(500, _INTERNAL))
    return Answer(error.details.get("status", row.status), error.details.get("bxnim", row.bxnim))


def begin_request() -> None:
    """Give the request its id and its start, which errors and headers repeat."""
    g.request_id = uuid.uuid4().hex
    g.started_at = datetime.now(UTC)


def add_headers(response: Response) -> Response:
    """IBM's headers: ids to quote to an operator, and nothing is kept by caches unless a route says so."""
    request_id = g.get("request_id", "")
    for name in ("transaction-id", "x-correlation-id", "x-request-id", "X-Global-Transaction-ID"):
        response.headers[name] = request_id
    response.headers.setdefault("Cache-Control", "no-cache, no-store, must-revalidate")
    response.headers.setdefault("Pragma", "no-cache")
    response.headers.setdefault("Expires", "0")
    response.headers["Content-Language"] = "en-US"
    response.headers["X-Content-Type-Options"] = "nosniff"
    return response


def answer_error(error: TaskcredError) -> Response:
    """`error` in the container that belongs to the route."""
    status, bxnim = answer_for(error)
    if status == 500:
        return _contained(500, bxnim, "internal", "Something went wrong here.", "")
    response = _contained(status, bxnim, error.error_code, error.message, error.hint)
    if isinstance(error, RateLimitedError | UnavailableError):
        response.headers["Retry-After"] = str(error.retry_after)
    if status == 401:
        scheme = "Basic" if error.error_code == "invalid_client" else "Bearer"
        response.headers["WWW-Authenticate"] = f'{scheme} realm="taskcred"'
    return response


def answer_http_exception(error: HTTPException) -> Response:
    """What the framework refuses by itself: unknown route, wrong method, a body too large."""
    status = error.code or 500
    code = (error.name or "error").lower().replace(" ", "_")
    bxnim = {404: NOT_FOUND, 405: WRONG_METHOD}.get(status, PROPERTY_INVALID)
    response = _contained(status, bxnim, code, f"{error.name}.", error.description or "")
    for name, value in error.get_headers():
        if name in {"Allow", "Retry-After"}:
            response.headers[name] = value
    return response


def answer_bug() -> Response:
    """Anything outside the error tree: an id and no text, for its text may hold a secret."""
    return _contained(500, _INTERNAL, "internal", "Something went wrong here.", "")


def _contained(status: int, bxnim: str, code: str, message: str, hint: str) -> Response:
    body = (
        _token_container(bxnim, message, hint)
        if request.path.startswith("/identity/")
        else _resource_container(status, bxnim, code, message, hint)
    )
    response = jsonify(body)
    response.status_code = status
    return response


def _token_container(bxnim: str, message: str, hint: str) -> dict[str, Any]:
    ended_at = datetime.now(UTC)
    body: dict[str, Any] = {"errorCode": bxnim, "errorMessage": message}
    if hint:
        body["errorDetails"] = hint
    agent = request.headers.get("User-Agent", "")[:200]
    body["context"] = {
        "requestId": g.request_id,
        "requestType": f"incoming.Identity_{request.path.rsplit('/', 1)[-1].capitalize()}"[:64],
        "userAgent": agent,
        "url": request.host_url.rstrip("/"),
        "instanceId": "taskcred",
        "threadId": f"{threading.get_ident():x}",
        "host": socket.gethostname(),
        "startTime": _stamp(g.started_at),
        "endTime": _stamp(ended_at),
        "elapsedTime": str(int((ended_at - g.started_at).total_seconds() * 1000)),
        "locale": "en_US",
        "clusterName": "taskcred",
    }
    return body


def _resource_container(status: int, bxnim: str, code: str, message: str, hint: str) -> dict[str, Any]:
    return {
        "context": {"transaction_id": g.request_id, "operation": f"{request.method} {request.path[:128]}"},
        "status_code": status,
        "trace": g.request_id,
        "errors": [{"code": code, "message_code": bxnim, "message": message, "details": hint}],
    }


def _stamp(at: datetime) -> str:
    return f"{at:%d.%m.%Y %H:%M:%S}:{at.microsecond // 1000:03d} UTC"
