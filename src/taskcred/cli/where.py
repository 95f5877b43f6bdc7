"""Which server a command talks to."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from taskcred.cli import state
from taskcred.data_dir import DataDir
from taskcred.errors import ConfigurationError, InvalidRequestError


@dataclass(frozen=True, slots=True)
class Server:
    """A server's URL without trailing slash, and the CA to trust where it has one of its own."""

    url: str
    ca_file: str | None = None


def find(url: str | None) -> Server:
    """The server that `--url` names, else TASKCRED_URL, else the last sign-in, else the one that runs on
    this machine with the data directory at hand. Raises ConfigurationError where there is none."""
    named = url or os.environ.get("TASKCRED_URL") or state.current_url()
    here = running_here(Path(os.environ.get("TASKCRED_DATA_DIR") or "taskcred-data"))
    if named is None:
        if here is None:
            raise ConfigurationError(
                "No server is known.", hint="Name one: `taskcred login --url https://…`, or set TASKCRED_URL."
            )
        return here
    named = named.rstrip("/")
    parts = urlsplit(named)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise InvalidRequestError(
            f"{named!r} is not the URL of a server.", hint="Write it like https://taskcred.example.org."
        )
    if here is not None and here.url == named:
        return here
    entry = state.signed_in(named)
    return Server(named, entry.ca_file if entry else None)


def running_here(data_dir: Path) -> Server | None:
    """The server that said in `server.json` that it serves `data_dir`; None where none did."""
    files = DataDir(data_dir)
    try:
        url = str(json.loads(files.server.read_text(encoding="utf-8"))["url"])
    except (OSError, ValueError, KeyError, TypeError):
        return None  # no server, or not ours to read
    own = files.own_certificate
    return Server(url.rstrip("/"), str(own.absolute()) if own.exists() else None)
