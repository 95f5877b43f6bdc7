"""Where a browser goes after it signed in: a path of ours, whatever the link said."""

from __future__ import annotations

from typing import Final
from urllib.parse import urlencode, urlsplit

_LONGEST: Final = 2048
_NOT_BACK_TO: Final = ("/sign-in", "/sign-out", "/auth/", "/account")


def safe_return(raw: str | None) -> str:
    """`raw` where it is a plain path on this server; else "/".

    Browsers read "//host", "/\\host" and a path with control characters before its second slash as another
    host's address (WHATWG URL, 4.4), so none of these passes.
    """
    if not raw or len(raw) > _LONGEST or not raw.startswith("/") or raw.startswith("//"):
        return "/"
    if "\\" in raw or not raw.isascii() or not raw.isprintable():
        return "/"
    parts = urlsplit(raw)
    if parts.scheme or parts.netloc or parts.path.startswith(_NOT_BACK_TO):
        return "/"
    return raw


def sign_in_path(return_to: str, *, fresh: bool = False) -> str:
    """The path that leads through a sign-in back to `return_to`."""
    query = {"return_to": return_to, **({"fresh": "1"} if fresh else {})}
    return f"/sign-in?{urlencode(query)}"
