"""The errors a program meets: the house's tree, and what only a client can say.

Every one has `message`, `hint`, `error_code`, `action_url`, `status` and `retry_after`; match the class or
the code, never the text.
"""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Final

from taskcred.errors import (
    ConfigurationError,
    ConflictError,
    ForbiddenError,
    IntegrityError,
    InvalidRequestError,
    InvalidTokenError,
    KeyRefusedError,
    NotFoundError,
    OutOfTouchError,
    PolicyViolationError,
    RateLimitedError,
    RequestError,
    StalePreconditionError,
    StoreBusyError,
    TaskcredError,
    UnavailableError,
    UpstreamUnavailableError,
    VaultRefusedError,
    VaultSealedError,
    VaultUnreachableError,
    WrongMasterKeyError,
)

__all__ = [
    "ConfigurationError",
    "ConflictError",
    "ForbiddenError",
    "InvalidRequestError",
    "InvalidTokenError",
    "KeyRefusedError",
    "NotFoundError",
    "PolicyViolationError",
    "RateLimitedError",
    "RequestError",
    "StalePreconditionError",
    "TaskcredError",
    "UnavailableError",
    "WaitTimeoutError",
    "WaitingForCredential",
]


class WaitingForCredential(ConflictError):  # noqa: N818 - not a failure: the run goes on by itself
    """The run is parked: its owner has no usable task credential. Show them `prompt_url`; it carries no
    authority, only the owner can answer there."""

    code = "parked"

    def __init__(self, prompt_url: str | None) -> None:
        super().__init__(
            "The run waits for a task credential of its owner.",
            hint="Its owner answers the prompt; then the run is queued by itself.",
            action_url=prompt_url,
        )
        self.status = HTTPStatus.CONFLICT

    @property
    def prompt_url(self) -> str | None:
        """The page where the owner answers."""
        return self.action_url


class WaitTimeoutError(UnavailableError, TimeoutError):
    """What was waited for did not happen in the time given; it may yet."""


# Where the server's code is a class's own, the class is known exactly.
KNOWN_BY_CODE: Final[Mapping[str | None, type[TaskcredError]]] = {
    kind.code: kind
    for kind in (
        KeyRefusedError,
        VaultSealedError,
        VaultUnreachableError,
        VaultRefusedError,
        StoreBusyError,
        UpstreamUnavailableError,
        OutOfTouchError,
        ConfigurationError,
        IntegrityError,
        WrongMasterKeyError,
    )
}
_NOT_OURS: Final = "The answer may be that of a proxy in between, or the URL not that of a taskcred server."
_TAKEN: Final = {"self", "retry_after"}
_BY_STATUS: Final[Mapping[int, type[TaskcredError]]] = {
    HTTPStatus.BAD_REQUEST: InvalidRequestError,
    HTTPStatus.UNAUTHORIZED: InvalidTokenError,
    HTTPStatus.FORBIDDEN: ForbiddenError,
    HTTPStatus.NOT_FOUND: NotFoundError,
    HTTPStatus.CONFLICT: ConflictError,
    HTTPStatus.PRECONDITION_FAILED: StalePreconditionError,
    HTTPStatus.UNPROCESSABLE_ENTITY: PolicyViolationError,
    HTTPStatus.BAD_GATEWAY: UnavailableError,
    HTTPStatus.SERVICE_UNAVAILABLE: UnavailableError,
    HTTPStatus.GATEWAY_TIMEOUT: UnavailableError,
}


def error_of(status: int, headers: Mapping[str, str], body: Any, path: str) -> TaskcredError:
    """What a refusal of the server means: problem+json (RFC 9457), IBM's container, or IBM's token
    endpoint. `headers` has its names in lower case, `body` is the JSON value."""
    error = (
        _redirected(headers, path) if 300 <= status < 400 else _refused(status, headers, _said(body), path)
    )
    error.status = status
    return error


def _redirected(headers: Mapping[str, str], path: str) -> TaskcredError:
    where = headers.get("location", "elsewhere")
    return ConfigurationError(
        f"{path} is redirected to {where}.", hint="Use the URL that it leads to as the server's."
    )


def _refused(status: int, headers: Mapping[str, str], said: dict[str, Any], path: str) -> TaskcredError:
    is_ours = bool(said.get("message"))
    message = said.pop("message", "") or f"{path} answered {status}."
    code, hint, action_url = said.pop("code", None), said.pop("hint", ""), said.pop("action_url", None)
    # What is left helps a program: an existing id, the field that is wrong.
    details = {name: value for name, value in said.items() if name.isidentifier() and name not in _TAKEN}
    wait = headers.get("retry-after", "")
    retry_after = int(wait) if wait.isascii() and wait.isdigit() else None
    if status == HTTPStatus.TOO_MANY_REQUESTS:
        return RateLimitedError(message, retry_after=retry_after or 1, hint=hint, code=code, **details)
    fallback = RequestError if status < HTTPStatus.INTERNAL_SERVER_ERROR else TaskcredError
    kind = KNOWN_BY_CODE.get(code) or _BY_STATUS.get(status, fallback)
    if not is_ours:
        hint = "Try again later." if kind.retry == "later" else _NOT_OURS
    error = kind(message, hint=hint, code=code, action_url=action_url, **details)
    error.retry_after = retry_after
    return error


def _said(body: Any) -> dict[str, Any]:
    """The answer's members under our names; empty where they are nobody's that we know."""
    said: dict[str, Any]
    match body:
        case {"errorMessage": str(message)}:  # IBM's token endpoint
            said = {
                "message": message,
                "code": body.get("errorCode"),
                "hint": body.get("errorDetails") or "",
            }
        case {"status_code": _, "errors": [dict(first), *_]}:  # IBM's resources
            said = {"request_id": body.get("trace", ""), **first}
            said["action_url"] = said.pop("more_info", "") or None
        case dict():
            said = {name: value for name, value in body.items() if name not in {"type", "title", "status"}}
            said["message"] = said.pop("detail", "")
        case _:
            return {}
    is_text = all(isinstance(said.get(name) or "", str) for name in ("message", "code", "hint", "action_url"))
    return said if is_text else {}
