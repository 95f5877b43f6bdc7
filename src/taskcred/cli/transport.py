"""HTTP to the server: one client, one place where its failures become our errors."""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import Iterator
from http import HTTPStatus
from typing import Final

import httpx

from taskcred import __version__, errors
from taskcred.cli.where import Server
from taskcred.client import errors as client_errors

_LOGIN: Final = "Sign in with `taskcred login`, then repeat this."
_SIGN_IN_HELPS: Final = {"fresh_sign_in_required", "programmatic_token"}


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
    """What a refusal of the server means to somebody at a terminal."""
    try:
        body = response.json()
    except ValueError:
        body = None
    error = client_errors.error_of(
        response.status_code, response.headers, body, str(response.request.url.path)
    )
    if response.status_code == HTTPStatus.UNAUTHORIZED or error.error_code in _SIGN_IN_HELPS:
        error.hint = _LOGIN
    return error
