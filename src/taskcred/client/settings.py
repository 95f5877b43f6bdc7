"""Where the server is and who we are: from arguments, else from the environment."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from taskcred.client.drivers import Connection
from taskcred.domain.secret import Secret
from taskcred.errors import ConfigurationError

Token = str | Secret | Callable[[], str | Secret]

_WAYS: Final = (
    "Set TASKCRED_SERVICE_FILE to what `taskcred admin service create --json` printed, or TASKCRED_CLIENT_ID "
    "and TASKCRED_CLIENT_SECRET_FILE, or TASKCRED_WORKLOAD_TOKEN_FILE; or give an access_token."
)


@dataclass(frozen=True, slots=True)
class Settings:
    """A connection, and the service's id where it is known."""

    connection: Connection
    client_id: str | None


def settings(
    url: str | None,
    *,
    client_id: str | None,
    client_secret: str | Secret | None,
    access_token: Token | None,
    workload_token_file: str | os.PathLike[str] | None,
    ca_file: str | os.PathLike[str] | None,
    timeout: float,
    environment: Mapping[str, str],
) -> Settings:
    """What was given, else what the environment says. Raises ConfigurationError where something is missing
    or wrong."""
    given = [client_secret, access_token, workload_token_file]
    if sum(each is not None for each in given) > 1:
        raise ConfigurationError(
            "More than one way to authenticate was given.",
            hint="Give one of client_secret, access_token and workload_token_file.",
        )
    if all(each is None for each in given):
        told = _from_environment(environment)
        url = url or environment.get("TASKCRED_URL") or told.get("url")
        client_id = client_id or told.get("client_id")
        client_secret, workload_token_file = told.get("client_secret"), told.get("workload_token_file")
    if client_secret is not None:
        if not client_id:
            raise ConfigurationError("A client secret came without its client id.", hint=_WAYS)
        credentials = _basic(client_id, _secret(client_secret))
    elif workload_token_file is not None:
        credentials = _workload(Path(workload_token_file))
    elif access_token is not None:
        credentials = _bearer(access_token)
    else:
        raise ConfigurationError("Nothing says who this program is.", hint=_WAYS)
    ca_file = ca_file or environment.get("TASKCRED_CA_FILE") or None
    where = server_url(url or environment.get("TASKCRED_URL"))
    return Settings(
        Connection(where, None if ca_file is None else str(ca_file), timeout, credentials), client_id
    )


def server_url(url: str | None) -> str:
    """The URL without a slash at its end. Raises ConfigurationError where it is none."""
    if not url:
        raise ConfigurationError("No server is named.", hint="Give its url, or set TASKCRED_URL.")
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ConfigurationError(
            f"{url!r} is not the URL of a server.", hint="Write it like https://taskcred.example.org."
        )
    if "@" in parts.netloc:
        # Not the URL: what stands there may be a password, and every error names the URL.
        raise ConfigurationError(
            "The URL of the server holds user information.",
            hint="Write it like https://taskcred.example.org.",
        )
    return url.rstrip("/")


def read_service_file(path: Path) -> dict[str, Any]:
    """The members of a service file. Raises ConfigurationError where it cannot be read, or anybody can."""
    try:
        if path.stat().st_mode & 0o007:
            raise ConfigurationError(
                f"The service file {path} is open to every user of this machine.", hint=f"chmod 600 {path}"
            )
        told = json.loads(path.read_text(encoding="utf-8"))
        return {
            "client_id": told["client_id"],
            "client_secret": told["client_secret"],
            "url": told.get("url"),
        }
    except OSError as error:
        raise ConfigurationError(
            f"The service file {path} cannot be read: {error.strerror}.", hint="Check its path and its owner."
        ) from error
    except (ValueError, KeyError, TypeError):
        raise ConfigurationError(
            f"{path} is not a service file.",
            hint="It is what `taskcred admin service create --json` prints: client_id, client_secret and url.",
        ) from None


def _from_environment(environment: Mapping[str, str]) -> dict[str, Any]:
    """What the environment says about us: the first of three ways that is there."""
    if path := environment.get("TASKCRED_SERVICE_FILE"):
        return read_service_file(Path(path))
    client_id = environment.get("TASKCRED_CLIENT_ID")
    if path := environment.get("TASKCRED_CLIENT_SECRET_FILE"):
        return {"client_id": client_id, "client_secret": _read(Path(path))}
    if path := environment.get("TASKCRED_WORKLOAD_TOKEN_FILE"):
        return {"client_id": client_id, "workload_token_file": path}
    return {}


def _basic(client_id: str, secret: Secret) -> Callable[[], Mapping[str, str]]:
    # The server compares the text's digest (RFC 7617).
    pair = base64.b64encode(f"{client_id}:{secret.reveal()}".encode()).decode()
    header = Secret(f"Basic {pair}")
    return lambda: {"Authorization": header.reveal()}


def _workload(path: Path) -> Callable[[], Mapping[str, str]]:
    """Read anew for each request: whoever gives the token replaces it before it ends."""
    return lambda: {"Authorization": f"Bearer {_in_header(_read(path))}"}


def _bearer(token: Token) -> Callable[[], Mapping[str, str]]:
    return lambda: {"Authorization": f"Bearer {_in_header(token() if callable(token) else token)}"}


def _in_header(token: str | Secret) -> str:
    """The text, which the server needs: it is the caller's access token. What no header carries is refused
    here, without the text: httpx would quote it."""
    text = _secret(token).reveal().strip()  # a token from a file ends with its line
    if not text or not text.isascii() or not text.isprintable():
        raise ConfigurationError(
            "The access token is empty, or holds characters that no access token has.",
            hint="Give the whole token, and nothing besides.",
        )
    return text


def _secret(text: str | Secret) -> Secret:
    return text if isinstance(text, Secret) else Secret(text)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except (OSError, ValueError) as error:
        raise ConfigurationError(
            f"The file {path} cannot be read.", hint="Check its path and its owner."
        ) from error
