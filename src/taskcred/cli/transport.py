"""HTTP to the server: one client, one place where its failures become our errors."""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import Iterator
from http import HTTPStatus
from typing import Any, Final

import httpx

from taskcred import __version__, errors
from taskcred.cli.where import Server

_LOGIN: Final = "Sign in with `taskcred login`, then repeat this."

# Where the server's code is a class's own, the class is known exactly.
KNOWN_BY_CODE: Final[dict[str | None, type[errors.TaskcredError]]] = {
    kind.code: kind
    for kind in (
        errors.KeyRefusedError,
        errors.VaultSealedError,
        errors.VaultUnreachableError,
        errors.StoreBusyError,
        errors.UpstreamUnavailableError,
        errors.OutOfTouchError,
        errors.ConfigurationError,
        errors.IntegrityError,
        errors.WrongMasterKeyError,
    )
}
_BY_STATUS: Final[dict[int, type[errors.TaskcredError]]] = {
    HTTPStatus.BAD_REQUEST: errors.InvalidRequestError,
    HTTPStatus.UNAUTHORIZED: errors.InvalidTokenError,
    HTTPStatus.FORBIDDEN: errors.ForbiddenError,
    HTTPStatus.NOT_FOUND: errors.NotFoundError,
    HTTPStatus.CONFLICT: errors.ConflictError,
    HTTPStatus.PRECONDITION_FAILED: errors.StalePreconditionError,
    HTTPStatus.UNPROCESSABLE_ENTITY: errors.PolicyViolationError,
    HTTPStatus.BAD_GATEWAY: errors.UnavailableError,
    HTTPStatus.SERVICE_UNAVAILABLE: errors.UnavailableError,
    HTTPStatus.GATEWAY_TIMEOUT: errors.UnavailableError,
}


def open_client(server: Server) -> httpx.Client:
    """A client for `server`. Certificates are checked against its own CA where it has one."""
    context = ssl.create_default_context(cafile=server.ca_file) if server.ca_file else True
    return httpx.Client(
        base_url=server.url,
        verify=context,
        timeout=httpx.Timeout(30.0, connect=5.0),
        headers={"User-Agent": f"taskcred-cli/{__version__}"},
    )


@contextlib.contextmanager
def translated(url: str) -> Iterator[None]:
    """Turn httpx's exceptions into ours. Their texts name hosts and certificates, never a token."""
    try:
        yield
    except httpx.ConnectError as error:
        if "CERTIFICATE_VERIFY_FAILED" in str(error):
            raise errors.ConfigurationError(
                f"The certificate of {url} is not trusted here.",
                hint="Name the PEM file of its authority in SSL_CERT_FILE, if you trust it.",
            ) from error
        raise errors.UnavailableError(
            f"No server answers at {url}: {error}.",
            hint="Start it with `taskcred serve`, or name another with --url.",
        ) from error
    except httpx.TransportError as error:
        raise errors.UnavailableError(
            f"{url} did not answer properly: {error or type(error).__name__}.",
            hint="Try again; `taskcred doctor` on the server's machine tells more.",
        ) from error


def error_of(response: httpx.Response) -> errors.TaskcredError:
    """What a refusal of the server means: problem+json (RFC 9457), or an IBM container."""
    said = _said(response)
    status, code, message = response.status_code, said.pop("code", None), said.pop("message")
    if status == HTTPStatus.TOO_MANY_REQUESTS:
        wait = response.headers.get("Retry-After", "1")
        return errors.RateLimitedError(message, retry_after=int(wait) if wait.isdigit() else 1)
    fallback = errors.RequestError if status < HTTPStatus.INTERNAL_SERVER_ERROR else errors.TaskcredError
    kind = KNOWN_BY_CODE.get(code) or _BY_STATUS.get(status, fallback)
    if status == HTTPStatus.UNAUTHORIZED or code in {"fresh_sign_in_required", "programmatic_token"}:
        return kind(message, hint=_LOGIN, code=code)
    hint, action_url = said.pop("hint", ""), said.pop("action_url", None)
    # What is left helps a program: an existing id, the field that is wrong.
    details = {name: value for name, value in said.items() if name.isidentifier() and name != "self"}
    return kind(message, hint=hint, code=code, action_url=action_url, **details)


def _said(response: httpx.Response) -> dict[str, Any]:
    """The answer's members under our names; `message` is always there."""
    try:
        body = response.json()
    except ValueError:
        body = None
    if not isinstance(body, dict):
        body = {}
    if "errorMessage" in body:  # IBM's token endpoint
        return {"message": body["errorMessage"], "code": body.get("errorCode")}
    if "status_code" in body and body.get("errors"):  # IBM's resources
        said = {"request_id": body.get("trace", ""), **body["errors"][0]}
        said["action_url"] = said.pop("more_info", "") or None
        said.setdefault("message", "")
    else:
        said = {name: value for name, value in body.items() if name not in {"type", "title", "status"}}
        said["message"] = said.pop("detail", "")
    if not said["message"]:
        said["message"] = f"{response.request.url.path} answered {response.status_code}."
    return said
