"""What OAuth's own endpoints share: their parameters, the client that presents itself, errors as RFC 6749
writes them (5.2), which generic clients of RFC 8628 read."""

from __future__ import annotations

import base64
import binascii
from typing import Final

from flask import Request, Response, jsonify

from taskcred.domain.secret import Secret
from taskcred.errors import (
    ForbiddenError,
    InvalidRequestError,
    InvalidTokenError,
    RateLimitedError,
    TaskcredError,
    UnavailableError,
)
from taskcred.iam.clients import Client, Clients
from taskcred.iam.errors import PROPERTY_INVALID

# RFC 6749, 5.2, and RFC 8628, 3.5: our codes that are theirs.
_NAMES: Final = frozenset(
    {
        "invalid_grant",
        "invalid_scope",
        "unauthorized_client",
        "authorization_pending",
        "slow_down",
        "access_denied",
        "expired_token",
    }
)


def parameter(request: Request, name: str) -> str:
    """A grant parameter, from the body or the query; "" where it was not sent."""
    return request.form.get(name) or request.args.get(name) or ""


def client_of(request: Request, clients: Clients) -> Client | None:
    """The client that presents itself, by Basic authentication (RFC 6749, 2.3.1) or parameters. Raises
    InvalidTokenError where it is not known, or its secret is wrong."""
    header = request.headers.get("Authorization", "")
    if header[:6].lower() == "basic ":
        try:
            raw = base64.b64decode(header[6:].strip(), validate=True).decode()
        except (binascii.Error, ValueError):
            raw = ""
        client_id, _, secret = raw.partition(":")
        return clients.verify(client_id, Secret(secret))
    client_id = parameter(request, "client_id")
    if not client_id:
        return None
    secret = parameter(request, "client_secret")
    return clients.verify(client_id, Secret(secret) if secret else None)


def required_client(request: Request, clients: Clients) -> Client:
    """As `client_of`; raises InvalidTokenError where none presents itself, too."""
    client = client_of(request, clients)
    if client is None:
        raise InvalidTokenError(
            "This grant needs a client.",
            hint="Send client_id, or client id and secret with HTTP Basic.",
            code="invalid_client",
            bxnim=PROPERTY_INVALID,
        )
    return client


def answer_error(error: TaskcredError) -> Response:
    """`error` as RFC 6749 writes it: `error` for programs, `error_description` for people."""
    status, name = 400, "invalid_request"
    if isinstance(error, RateLimitedError):
        status, name = 429, "temporarily_unavailable"
    elif isinstance(error, UnavailableError):
        status, name = 503, "temporarily_unavailable"
    elif isinstance(error, InvalidTokenError):
        status, name = 401, "invalid_client"
    elif isinstance(error, ForbiddenError):
        name = "access_denied"
    elif isinstance(error, InvalidRequestError) and error.error_code in _NAMES:
        name = error.error_code
    response = jsonify({"error": name, "error_description": f"{error.message} {error.hint}".strip()})
    response.status_code = status
    if isinstance(error, RateLimitedError | UnavailableError):
        response.headers["Retry-After"] = str(error.retry_after)
    if status == 401:
        response.headers["WWW-Authenticate"] = 'Basic realm="taskcred"'
    return response
