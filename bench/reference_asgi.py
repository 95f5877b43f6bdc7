"""The reference: a bare ASGI application that parses the same form, makes the same digest and look-up, and
returns the same bytes. No framework, no epoch, no audit: the least such a handler can do on uvicorn."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

_BODY = Path(os.environ["REFERENCE_BODY"]).read_bytes()
_TABLE = {hashlib.sha256(os.environ["REFERENCE_KEY"].encode()).digest(): _BODY}
_HEADERS = [
    (b"content-type", b"application/json"),
    (b"content-length", str(len(_BODY)).encode()),
    (b"cache-control", b"no-cache, no-store, must-revalidate"),
]


async def app(
    scope: dict[str, Any],
    receive: Callable[[], Awaitable[dict[str, Any]]],
    send: Callable[[dict[str, Any]], Awaitable[None]],
) -> None:
    """Answer every POST like the token endpoint does on its hot path."""
    if scope["type"] != "http":
        return
    body = b""
    while True:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body"):
            break
    form = parse_qs(body.decode())
    answer = _TABLE[hashlib.sha256(form["apikey"][0].encode()).digest()]
    await send({"type": "http.response.start", "status": 200, "headers": _HEADERS})
    await send({"type": "http.response.body", "body": answer})
