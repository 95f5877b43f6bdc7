"""Flags that many commands share, spelled and described once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from taskcred.domain.credentials import DEFAULT_KEY_LIFE

Json = Annotated[bool, typer.Option("--json", help="Print JSON for programs instead of text for people.")]
Yes = Annotated[bool, typer.Option("--yes", help="Do not ask for confirmation.")]
Url = Annotated[
    str | None,
    typer.Option(
        "--url",
        metavar="URL",
        help="The server; default: TASKCRED_URL, else the one you signed in to, else the one that runs here.",
    ),
]
DataDir = Annotated[
    Path | None,
    typer.Option(
        "--data-dir",
        metavar="DIR",
        help="The server's data directory; default: TASKCRED_DATA_DIR, else ./taskcred-data.",
    ),
]
ConfigFile = Annotated[
    Path | None,
    typer.Option(
        "--config",
        metavar="FILE",
        help="The configuration; default: TASKCRED_CONFIG, else taskcred.toml in the data directory.",
    ),
]
Generate = Annotated[
    bool, typer.Option("--generate", help="Let taskcred make the key at the identity provider.")
]
ApiKeyStdin = Annotated[
    bool, typer.Option("--api-key-stdin", help="Read an existing API key from standard input.")
]
ShowOnce = Annotated[
    bool, typer.Option("--show-once", help="Print the generated key once; it cannot be shown again.")
]
ExpiresAt = Annotated[
    str | None,
    typer.Option(
        "--expires-at",
        metavar="TIME",
        help=f"When the generated key ends (RFC 3339); default: in {DEFAULT_KEY_LIFE.days} days.",
    ),
]
NeverExpires = Annotated[
    bool, typer.Option("--never-expires", help="The generated key does not end by itself.")
]
Parameters = Annotated[
    list[str] | None,
    typer.Option("--parameter", "-p", metavar="NAME=VALUE", help="A parameter of the task; repeat for more."),
]
Limit = Annotated[int, typer.Option("--limit", min=1, max=10_000, help="The most rows to print.")]
