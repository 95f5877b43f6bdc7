"""GET /ready for the startup probe: 200 while the files are there and fresh, 503 with the reason otherwise."""

from __future__ import annotations

import threading
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Final

from taskcred.adapters.kubernetes.agent import Agent


class _Handler(BaseHTTPRequestHandler):
    server: HealthServer

    def do_GET(self) -> None:
        """Any path is the one there is."""
        agent = self.server.agent
        body = f"{agent.status}\n".encode()
        self.send_response(HTTPStatus.OK if agent.is_ready else HTTPStatus.SERVICE_UNAVAILABLE)
        self.send_header("Content-Type", "text/plain; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name for it
        """A probe every second is not worth a line."""


class HealthServer(ThreadingHTTPServer):
    """Answers probes in a thread of its own. The kubelet asks at the pod's address, so it listens on all."""

    daemon_threads = True

    def __init__(self, agent: Agent, port: int) -> None:
        super().__init__(("", port), _Handler)
        self.agent: Final = agent

    def start(self) -> None:
        """Answer from now on, until the process ends."""
        threading.Thread(target=self.serve_forever, name="health", daemon=True).start()
