"""Where an API key for a command comes from: made by taskcred, or read from standard input. Never from the
command line, which every process on the machine can read."""

from __future__ import annotations

import getpass
import sys
from typing import Any

from taskcred.domain.secret import Secret
from taskcred.errors import InvalidRequestError


def body(
    *, generate: bool, api_key_stdin: bool, show_once: bool, expires_at: str | None, never_expires: bool
) -> dict[str, Any]:
    """The key source as the API takes it: exactly one of `generate` and `secret`."""
    if generate and api_key_stdin:
        raise InvalidRequestError(
            "--generate and --api-key-stdin exclude each other.", hint="Have a key made, or provide one."
        )
    wishes = {"show_once": show_once, "expires_at": expires_at, "never_expires": never_expires}
    wishes = {name: wish for name, wish in wishes.items() if wish}
    if generate:
        return {"generate": True} | wishes
    if wishes:
        raise InvalidRequestError(
            "--show-once, --expires-at and --never-expires are for a generated key.", hint="Add --generate."
        )
    # The server needs the text: it keeps the key in its vault.
    return {"secret": {"api_key": _read(api_key_stdin=api_key_stdin).reveal()}}


def _read(*, api_key_stdin: bool) -> Secret:
    if api_key_stdin:
        key = Secret(sys.stdin.readline().strip())
    elif sys.stdin.isatty():
        key = Secret(getpass.getpass("API key (not shown): ").strip())
    else:
        raise InvalidRequestError(
            "No key was given.", hint="Say --generate, or pipe an existing key in with --api-key-stdin."
        )
    if not key:
        raise InvalidRequestError("Standard input held no key.", hint="Pipe the key in as one line.")
    return key
