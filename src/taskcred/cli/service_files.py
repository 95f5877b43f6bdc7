"""The file by which a service knows its server, its client id and its secret: TASKCRED_SERVICE_FILE."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from taskcred.cli.where import running_here
from taskcred.errors import ConfigurationError, ConflictError

if TYPE_CHECKING:
    from taskcred.config import Settings
    from taskcred.domain.secret import Secret


def server_url(settings: Settings) -> str:
    """Where services reach the server: as the one that runs says, else as the settings say; empty where
    neither does."""
    here = running_here(settings.data_dir)
    return here.url if here else settings.server.public_url.rstrip("/")


def verify_url(url: str) -> None:
    """Raises ConfigurationError where the server's URL, which the file is to hold, is not known."""
    if not url:
        raise ConfigurationError(
            "The file needs the server's URL, and no server runs on this data directory.",
            hint="Start `taskcred serve`, or set server.public_url.",
        )


def verify_new(file: Path, url: str) -> None:
    """Before anything is made that the file is to hold. Raises ConflictError where there is such a file."""
    verify_url(url)
    if file.exists():
        raise ConflictError(f"{file} exists.", hint="Name another with --file, or remove it first.")
    if not file.absolute().parent.is_dir():
        raise ConfigurationError(f"There is no directory {file.absolute().parent}.", hint="Make it first.")


def write(file: Path, url: str, client_id: str, secret: Secret) -> None:
    """The file, mode 0600, all or nothing; what was there is replaced."""
    from taskcred.data_dir import write_private

    # The service proves itself with it.
    content = {"url": url, "client_id": client_id, "client_secret": secret.reveal()}
    write_private(file, json.dumps(content, indent=2) + "\n")
