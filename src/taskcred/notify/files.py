"""Secrets that an operator keeps in files."""

from __future__ import annotations

from pathlib import Path

from taskcred.domain.secret import Secret
from taskcred.errors import ConfigurationError

_MAX_BYTES = 4096


def read_lines(path: Path, setting: str) -> list[Secret]:
    """The lines of the file that are not empty. Raises ConfigurationError, naming `setting`, where there
    is none. Read at each use, so that a new secret needs no restart."""
    try:
        with path.open(encoding="utf-8") as file:
            text = file.read(_MAX_BYTES)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(
            f"{setting}: the file {path} cannot be read.",
            hint="Name a text file that the server may read.",
        ) from error
    lines = [Secret(line.strip()) for line in text.splitlines() if line.strip()]
    if not lines:
        raise ConfigurationError(
            f"{setting}: the file {path} is empty.", hint="Write the secret into it, one line."
        )
    return lines
