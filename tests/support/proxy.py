"""A proxy on loopback that counts what passes, and can be away, slow or say "later"."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx


class _Server(ThreadingHTTPServer):
    request_queue_size = 1024

    def handle_error(self, request: object, client_address: object) -> None:
        """Nothing: clients go away, that is what some tests are about."""


class Proxy:
    """Passes requests on to `target`. `script` holds answers to give instead, each once: (status, headers)."""

    def __init__(self, target: str) -> None:
        self.seen: list[tuple[str, str]] = []
        self.script: deque[tuple[int, dict[str, str]]] = deque()
        self.is_away = False
        self.open = threading.Event()  # while it is clear, requests are held
        self.open.set()
        self._upstream = httpx.Client(base_url=target, timeout=60)
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def pass_on(self) -> None:
                proxy._pass_on(self)

            do_GET = do_POST = do_DELETE = pass_on  # noqa: N815 - the base class's names

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
                """Nothing: a test's output is for failures."""

        self._server = _Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True
        ).start()

    def count(self, path: str) -> int:
        """How many requests to addresses that begin so have come in, answered or not."""
        return sum(each.startswith(path) for _, each in self.seen)

    @contextmanager
    def away(self) -> Iterator[None]:
        """Connections are closed without an answer."""
        self.is_away = True
        try:
            yield
        finally:
            self.is_away = False

    def close(self) -> None:
        """End it."""
        self._server.shutdown()
        self._server.server_close()
        self._upstream.close()

    def _pass_on(self, handler: BaseHTTPRequestHandler) -> None:
        body = handler.rfile.read(int(handler.headers.get("Content-Length") or 0))
        self.seen.append((handler.command, handler.path))
        self.open.wait(30)
        if self.is_away:
            handler.close_connection = True
            return
        if self.script:
            status, headers = self.script.popleft()
            answer = httpx.Response(status, headers=headers)
        else:
            kept = {
                name: value
                for name, value in handler.headers.items()
                if name.lower() not in {"host", "connection"}
            }
            answer = self._upstream.request(handler.command, handler.path, content=body, headers=kept)
        handler.send_response(answer.status_code)
        for name, value in answer.headers.items():
            if name.lower() not in {"content-length", "connection", "transfer-encoding", "date", "server"}:
                handler.send_header(name, value)
        handler.send_header("Content-Length", str(len(answer.content)))
        handler.end_headers()
        handler.wfile.write(answer.content)
