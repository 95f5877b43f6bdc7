"""What the agent and the pod's main container tell each other, as files of a volume both mount.

Each is replaced in one step, so a reader finds the old text or the new. Owner and group may read and nobody
else: the volume's group is the pod's `fsGroup`, which its containers share.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

TOKEN: Final = "token"  # noqa: S105 - a file's name
CREDENTIALS: Final = "ibm-credentials.env"
STATUS: Final = "status"
EXIT_CODE: Final = "exit-code"
_ATTEMPT: Final = ".attempt"
_MODE: Final = 0o640


class SharedFiles:
    """The directory, seen from the agent."""

    def __init__(self, directory: Path) -> None:
        self._directory: Final = directory
        directory.mkdir(parents=True, exist_ok=True)

    def write_token(self, token: str) -> None:
        """The access token of now, for what reads a bearer token from a file."""
        self._replace(TOKEN, token)

    def write_credentials(self, environment: Mapping[str, str]) -> None:
        """The stand-in key as IBM's SDKs read it from IBM_CREDENTIALS_FILE: one NAME=VALUE a line."""
        self._replace(CREDENTIALS, "".join(f"{name}={value}\n" for name, value in environment.items()))

    def write_attempt(self, kept: Mapping[str, Any]) -> None:
        """What an agent that is started again needs to go on with the attempt; nobody else's to read."""
        self._replace(_ATTEMPT, json.dumps(kept), 0o600)

    def read_attempt(self) -> dict[str, Any] | None:
        """The same; None where there is no attempt to go on with."""
        try:
            kept: dict[str, Any] = json.loads((self._directory / _ATTEMPT).read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        return kept

    def write_status(self, status: str) -> None:
        """A word for probes and people, and a sentence."""
        self._replace(STATUS, f"{status}\n")

    def remove_secrets(self) -> None:
        """Nothing of an attempt lies about once it has ended."""
        for name in (_ATTEMPT, TOKEN, CREDENTIALS):
            (self._directory / name).unlink(missing_ok=True)

    def exit_code(self) -> int | None:
        """What the main container wrote when it was done; None before."""
        try:
            return int((self._directory / EXIT_CODE).read_text(encoding="ascii"))
        except (OSError, ValueError):
            return None  # not there, or not written to its end

    def _replace(self, name: str, text: str, mode: int = _MODE) -> None:
        fresh = self._directory / f".{name}.new"
        fresh.unlink(missing_ok=True)
        handle = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            os.fchmod(handle, mode)  # whatever the umask is
            file.write(text)
        fresh.replace(self._directory / name)
