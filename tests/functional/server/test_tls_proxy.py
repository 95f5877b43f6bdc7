"""A proxy that does TLS before a server that listens on plain http, as nginx or a load balancer would."""

from __future__ import annotations

import contextlib
import json
import socket
import socketserver
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from taskcred.roles.certificates import self_signed
from tests.support.server import Server, eventually

CONFIG = """
[jobs]
isolation = "none"

[tasks.token]
kind = "command"
argv = ["sh", "-c", "curl -sS -o /dev/null -w '%{http_code}' -d grant_type=urn:ibm:params:oauth:grant-type:apikey -d apikey=$IBMCLOUD_API_KEY $TASKCRED_URL/identity/token"]
"""


def _pump(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while chunk := source.recv(65536):
            target.sendall(chunk)
    for end in (source, target):
        with contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)


@contextmanager
def proxy(context: ssl.SSLContext, backend: int) -> Iterator[int]:
    """Ends TLS and passes the bytes on: the port."""

    class Pass(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            with (
                context.wrap_socket(self.request, server_side=True) as near,
                socket.create_connection(("127.0.0.1", backend)) as far,
            ):
                back = threading.Thread(target=_pump, args=(far, near))
                back.start()
                _pump(near, far)
                back.join()

    class Proxy(socketserver.ThreadingTCPServer):
        def handle_error(self, request: object, client_address: object) -> None:
            """A server that is not there yet."""

    with Proxy(("127.0.0.1", 0), Pass) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_address[1]
        server.shutdown()
        thread.join()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_behind_a_proxy_that_does_tls_everything_works(
    tmp_path: Path, start_server: Callable[..., Server]
) -> None:
    port = _free_port()
    # Where the tests' client looks for what to trust. The worker does not: this authority is the proxy's.
    data_dir = tmp_path / "server0" / "data"
    data_dir.mkdir(mode=0o700, parents=True)
    tls = self_signed(data_dir / "tls", "127.0.0.1")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tls.certificate, tls.key)
    with proxy(context, port) as public:
        url = f"https://127.0.0.1:{public}"
        server = start_server(config=CONFIG, arguments=("--port", str(port), "--public-url", url))
        assert server.url == url
        with server.client() as browser:
            cookie = browser.get("/sign-in").headers["Set-Cookie"]
            assert "Secure" in cookie
            discovery = browser.get("/identity/.well-known/openid-configuration").json()
            assert discovery["issuer"] == f"{url}/identity"
        me = server.sign_in(server.create_person("ada@example.com"))
        created = me.request(
            "POST", "/v1/task_credentials", json={"name": "mine", "type": "iam_api_key", "generate": True}
        )
        assert created.status_code == 201, created.text
        run = me.request("POST", "/v1/runs", json={"task": "token", "parameters": {}}).json()["id"]

        def ended() -> bool:
            return me.request("GET", f"/v1/runs/{run}").json()["state"] in {"succeeded", "failed"}

        eventually(ended, "the run ends", within=60)
        output = me.request("GET", f"/v1/runs/{run}/output").json()
        assert "200" in output["text"], json.dumps(output)
