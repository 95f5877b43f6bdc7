"""POST /identity/token, in front of the framework: one endpoint, dispatch by the form of the key.

A stand-in key goes to the broker; anything else goes on to the local IAM with its body unread, or is
refused like an unknown key where there is none: a key is never forwarded to anybody else. Grant parameters
are read from body and query, as IBM's clients send them. Errors have the shape of IBM's token endpoint.
"""

from __future__ import annotations

import io
import json
import uuid
from collections.abc import Iterable
from typing import BinaryIO, Final
from urllib.parse import parse_qsl

from taskcred.domain import keytext
from taskcred.errors import (
    KeyRefusedError,
    RateLimitedError,
    RequestError,
    TaskcredError,
    UnavailableError,
)
from taskcred.services.broker import TokenBroker
from taskcred.services.issued import AddressNeededError
from taskcred.wsgi import Environ, StartResponse, WsgiApp

_GRANT: Final = "urn:ibm:params:oauth:grant-type:apikey"
_RAW_GRANT: Final = b"grant_type=urn%3Aibm%3Aparams%3Aoauth%3Agrant-type%3Aapikey"
_RAW_KEY: Final = b"apikey=" + keytext.STANDIN_KEY_PREFIX.encode()
_KEY_AT: Final = len(b"apikey=")
_KEY_END: Final = _KEY_AT + keytext.LENGTH
_LARGEST: Final = 64 * 1024  # bytes of a request; the longest we know of is a compute token of a few KiB

_HEADERS: Final = [
    ("Content-Type", "application/json"),
    ("Cache-Control", "no-cache, no-store, must-revalidate"),
    ("Pragma", "no-cache"),
    ("Expires", "0"),
]


class TokenEndpoint:
    """The WSGI callable. `fallback` is the local IAM's application, or None."""

    def __init__(self, broker: TokenBroker, fallback: WsgiApp | None) -> None:
        self._broker: Final = broker
        self._issue: Final = broker.issue
        self._wall: Final = broker.wall
        self._fallback: Final = fallback

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """Answer a request for a token."""
        body = _read(environ)
        if body is None:
            return _refuse(
                environ,
                start_response,
                "413 Content Too Large",
                "request_too_large",
                "The request is too large.",
                "Send grant_type and apikey, and nothing that nobody asked for.",
            )
        standin = _fast_standin(environ, body) or self._slow_standin(environ, body)
        if standin is None:
            return self._pass_on(environ, start_response, body)
        try:
            try:
                issued = self._issue(standin)
            except AddressNeededError:
                # As the server sees it; a header that a client can write is not believed.
                issued = self._issue(standin, environ.get("REMOTE_ADDR", ""))
            answer = issued.body(self._wall())
        except TaskcredError as error:
            if not keytext.is_standin_key(standin.decode("latin-1")):
                return self._pass_on(environ, start_response, body)
            return _answer_error(environ, start_response, error)
        start_response("200 OK", [*_HEADERS, ("Content-Length", str(len(answer)))])
        return (answer,)

    def _slow_standin(self, environ: Environ, body: bytes) -> bytes | None:
        """The stand-in key of a request in any other form that means the same."""
        if environ["REQUEST_METHOD"] != "POST":
            return None
        query: str = environ.get("QUERY_STRING", "")
        try:
            fields = dict([*parse_qsl(query), *parse_qsl(body.decode("ascii"))])
        except ValueError:
            return None
        key = fields.get("apikey", "")
        if fields.get("grant_type") == _GRANT and keytext.is_standin_key(key):
            return key.encode("ascii")
        return None

    def _pass_on(self, environ: Environ, start_response: StartResponse, body: bytes) -> Iterable[bytes]:
        if self._fallback is not None:
            environ["wsgi.input"] = io.BytesIO(body)
            environ["CONTENT_LENGTH"] = str(len(body))
            environ.pop("HTTP_TRANSFER_ENCODING", None)
            return self._fallback(environ, start_response)
        if environ["REQUEST_METHOD"] != "POST":
            return _refuse(
                environ,
                start_response,
                "405 Method Not Allowed",
                "BXNIM0060E",
                "This address takes POST only.",
                "Send grant_type and apikey as a form.",
                ("Allow", "POST"),
            )
        return _unknown_key(environ, start_response)


def _read(environ: Environ) -> bytes | None:
    """The body; None where it is larger than anything meant for us."""
    try:
        length = int(environ.get("CONTENT_LENGTH") or -1)
    except ValueError:
        length = 0
    if length > _LARGEST:
        return None
    if length < 0 and "HTTP_TRANSFER_ENCODING" not in environ:
        return b""
    source: BinaryIO = environ["wsgi.input"]
    body = source.read(length if length >= 0 else _LARGEST + 1)
    return None if len(body) > _LARGEST else body


def _fast_standin(environ: Environ, body: bytes) -> bytes | None:
    """The stand-in key of a body as IBM's SDKs write it; None for everything that takes a closer look.

    What is cut out is looked up by its digest: a wrong cut is an unknown key, never another one.
    """
    at = body.find(_RAW_KEY)
    if (
        at < 0
        or _RAW_GRANT not in body
        or body.count(b"apikey=") != 1
        or body.count(b"grant_type=") != 1
        or (at and body[at - 1] != 38)  # "&"
        or (len(body) > at + _KEY_END and body[at + _KEY_END] != 38)
        or environ.get("QUERY_STRING")
        or environ["REQUEST_METHOD"] != "POST"
    ):
        return None
    return body[at + _KEY_AT : at + _KEY_END]


def _answer_error(environ: Environ, start_response: StartResponse, error: TaskcredError) -> Iterable[bytes]:
    if isinstance(error, KeyRefusedError):
        return _unknown_key(environ, start_response)
    if isinstance(error, RateLimitedError):
        return _tell(environ, start_response, "429 Too Many Requests", error, error.retry_after)
    if isinstance(error, UnavailableError):
        return _tell(environ, start_response, "503 Service Unavailable", error, error.retry_after)
    status = "400 Bad Request" if isinstance(error, RequestError) else "500 Internal Server Error"
    return _tell(environ, start_response, status, error, None)


def _tell(
    environ: Environ,
    start_response: StartResponse,
    status: str,
    error: TaskcredError,
    retry_after: int | None,
) -> Iterable[bytes]:
    headers = [] if retry_after is None else [("Retry-After", str(retry_after))]
    return _refuse(environ, start_response, status, error.error_code, error.message, error.hint, *headers)


def _unknown_key(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    # One answer for whatever is wrong with a key, as IBM's IAM gives it.
    return _refuse(
        environ,
        start_response,
        "400 Bad Request",
        "BXNIM0415E",
        "Provided API key could not be found.",
        "A stand-in key ends with its attempt, and may be bound to networks: begin another attempt. An API key: "
        "check that it is whole, not disabled and not expired.",
    )


def _refuse(
    environ: Environ,
    start_response: StartResponse,
    status: str,
    code: str,
    message: str,
    hint: str,
    *headers: tuple[str, str],
) -> Iterable[bytes]:
    request_id = uuid.uuid4().hex
    answer = json.dumps(
        {
            "errorCode": code,
            "errorMessage": message,
            # Where IBM's IAM says more; our cures go there.
            "errorDetails": hint,
            "context": {
                "requestId": request_id,
                "requestType": "incoming.Identity_Token",
                "userAgent": environ.get("HTTP_USER_AGENT", ""),
                "locale": "en_US",
            },
        }
    ).encode()
    start_response(
        status,
        [
            *_HEADERS,
            ("Content-Length", str(len(answer))),
            ("Content-Language", "en-US"),
            ("transaction-id", request_id),
            ("x-correlation-id", request_id),
            ("x-request-id", request_id),
            *headers,
        ],
    )
    return (answer,)
