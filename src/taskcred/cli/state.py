"""Files of the person at the keyboard: the sign-in, and the log of our own mistakes.

`$XDG_CONFIG_HOME/taskcred/login.json` (0600) holds, for each server, the tokens of one sign-in, and which
server was signed in to last. It is written whole and renamed into place.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from taskcred.domain.secret import Secret
from taskcred.errors import ConfigurationError


@dataclass(frozen=True, slots=True)
class SignedIn:
    """A sign-in at one server. `expires_at` is the access token's, in seconds since 1970."""

    url: str
    access_token: Secret
    refresh_token: Secret | None
    expires_at: int
    ca_file: str | None = None


def directory() -> Path:
    """Where the sign-in lies (XDG Base Directory)."""
    base = os.environ.get("XDG_CONFIG_HOME")
    return (Path(base) if base else Path.home() / ".config") / "taskcred"


def error_log() -> Path:
    """Where tracebacks of our own mistakes are appended (XDG Base Directory)."""
    base = os.environ.get("XDG_STATE_HOME")
    return (Path(base) if base else Path.home() / ".local/state") / "taskcred" / "errors.log"


def append_private(path: Path, text: str) -> None:
    """Append to a file that only its owner can read."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "a", encoding="utf-8") as file:
        file.write(text)


def current_url() -> str | None:
    """The server that was signed in to last."""
    url: str | None = _read().get("current")
    return url


def signed_in(url: str) -> SignedIn | None:
    """The sign-in at `url`, if there is one."""
    entry = _read().get("servers", {}).get(url)
    if entry is None:
        return None
    refresh = entry["refresh_token"]
    return SignedIn(
        url,
        Secret(entry["access_token"]),
        Secret(refresh) if refresh else None,
        entry["expires_at"],
        entry.get("ca_file"),
    )


def remember(entry: SignedIn, *, make_current: bool = False) -> None:
    """Keep `entry`, replacing an earlier sign-in at the same server."""
    values = _read()
    # The texts are needed on disk: the next command goes on with them.
    kept = asdict(entry) | {
        "access_token": entry.access_token.reveal(),
        "refresh_token": entry.refresh_token.reveal() if entry.refresh_token else None,
    }
    values.setdefault("servers", {})[entry.url] = kept
    if make_current:
        values["current"] = entry.url
    _write(values)


def forget(url: str) -> None:
    """Drop the sign-in at `url`."""
    values = _read()
    values.get("servers", {}).pop(url, None)
    if values.get("current") == url:
        del values["current"]
    _write(values)


@contextlib.contextmanager
def locked() -> Iterator[None]:
    """One command at a time refreshes: a refresh token must not be used by two at once."""
    directory().mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(directory() / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _file() -> Path:
    return directory() / "login.json"


def _read() -> dict[str, Any]:
    try:
        values: dict[str, Any] = json.loads(_file().read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError):
        raise ConfigurationError(
            f"The sign-in file {_file()} cannot be read.", hint="Remove it, then `taskcred login`."
        ) from None
    return values


def _write(values: dict[str, Any]) -> None:
    directory().mkdir(mode=0o700, parents=True, exist_ok=True)
    fresh = _file().with_suffix(f".{os.getpid()}.new")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        json.dump(values, file)
    fresh.replace(_file())
