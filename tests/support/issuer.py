"""Another platform's OpenID Connect issuer, on loopback: discovery, keys, tokens of workloads."""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from email.message import Message
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from joserfc import jws
from joserfc.jwk import ECKey, RSAKey

Key = ECKey | RSAKey
JWK_SET = "application/jwk-set+json"  # RFC 7517, section 8.5.1; kube-apiserver shows its keys as nothing else


def accepts(headers: Message, media_type: str) -> bool:
    """Whether who asks takes this type; kube-apiserver answers 406 where not."""
    accepted = headers.get("Accept", "*/*")
    return any(kind in accepted for kind in (media_type, "*/*"))


@cache
def _first_key() -> RSAKey:
    """Made once: it takes a third of a second."""
    return RSAKey.generate_key(2048, {"kid": "first", "use": "sig"})


class Issuer:
    """Serves its keys; `requests` counts what was asked of it. A test replaces `documents` as it likes."""

    def __init__(self) -> None:
        self.key: Key = _first_key()
        self.requests: Counter[str] = Counter()
        self.documents: dict[str, bytes] = {}
        self.status = 200
        self.is_open = threading.Event()  # while it is not set, nothing is answered
        self.is_open.set()
        self.was_asked = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self.publish(self.key)

    def publish(self, *keys: Key) -> None:
        """Show these keys, and tokens are signed with the last of them."""
        self.key = keys[-1]
        shown = [key.as_dict(private=False) for key in keys]
        self.documents = {
            "/.well-known/openid-configuration": json.dumps(
                {"issuer": self.url, "jwks_uri": f"{self.url}/keys"}
            ).encode(),
            "/keys": json.dumps({"keys": shown}).encode(),
        }

    def token(
        self, now: datetime, *, key: Key | None = None, alg: str = "", kid: str = "", **claims: Any
    ) -> str:
        """A token as a service account of Kubernetes has it, good for ten minutes; a claim that is None is
        left out."""
        signer = key or self.key
        alg = alg or ("RS256" if isinstance(signer, RSAKey) else "ES256")
        said = {
            "iss": self.url,
            "sub": "system:serviceaccount:notebooks:hub",
            "aud": ["https://taskcred.test"],
            "iat": int(now.timestamp()),
            "nbf": int(now.timestamp()),
            "exp": int((now + timedelta(minutes=10)).timestamp()),
            **claims,
        }
        payload = json.dumps({name: value for name, value in said.items() if value is not None})
        header = {"alg": alg, "kid": kid or str(signer.kid)}
        return jws.serialize_compact(header, payload, signer, registry=jws.JWSRegistry(algorithms=[alg]))

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        issuer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                issuer.requests[self.path] += 1
                issuer.was_asked.set()
                issuer.is_open.wait(timeout=30)
                body = issuer.documents.get(self.path, b"{}")
                is_acceptable = self.path != "/keys" or accepts(self.headers, JWK_SET)
                self.send_response(issuer.status if is_acceptable else 406)
                self.send_header("Content-Length", str(len(body)))
                if issuer.status == 302:
                    self.send_header("Location", f"{issuer.url}/keys")
                self.end_headers()
                self.wfile.write(body)

            def log_request(self, *_: object) -> None:
                """Not said: tests print enough."""

        return Handler

    @contextmanager
    def serving(self) -> Iterator[Issuer]:
        """Answer until the block ends."""
        thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield self
        finally:
            self.is_open.set()
            self._server.shutdown()
            thread.join()
            self._server.server_close()
