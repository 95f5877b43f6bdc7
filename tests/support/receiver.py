"""A service's webhook receiver on the loopback, which verifies what it is told as the specification says."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Receiver:
    """What arrived: (webhook id, body). `secret` verifies; `before_answer` is called with each arrival, and
    what it says instead of None is the status that is answered."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.secret = ""
        self.told: list[tuple[str, dict[str, Any]]] = []
        self.before_answer: Callable[[dict[str, Any]], int | None] = lambda _body: None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hook"

    def types(self) -> list[str]:
        """The types of what arrived, in order."""
        return [body["type"] for _, body in self.told]

    def take(self, headers: Any, raw: bytes) -> int:
        """The status for a message; 401 where its signature is not ours or its time is not now."""
        content = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + raw
        key = base64.b64decode(self.secret.removeprefix("whsec_"))
        expected = "v1," + base64.b64encode(hmac.digest(key, content, hashlib.sha256)).decode()
        if expected not in headers["webhook-signature"].split():
            return 401
        if abs(time.time() - int(headers["webhook-timestamp"])) > 300:
            return 401
        body = json.loads(raw)
        self.told.append((headers["webhook-id"], body))
        return self.before_answer(body) or 204


@contextmanager
def receive() -> Iterator[Receiver]:
    """A receiver for as long as the block lasts."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            raw = self.rfile.read(int(self.headers["content-length"]))
            status = receiver.take(self.headers, raw)
            try:
                self.send_response(status)
                self.send_header("content-length", "0")
                self.end_headers()
            except OSError:
                pass  # whoever asked is gone

        def log_message(self, *_args: object) -> None:
            """Quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    receiver = Receiver(server.server_port)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield receiver
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
