"""What a pod needs of a cluster, on this machine: an issuer of service-account tokens, and a kubelet for one pod.

The issuer signs and publishes as kube-apiserver does. The kubelet reads a manifest and starts its containers as
processes: arguments with $(NAME) put in, environment, volumes as folders, startup probe, the order of native
sidecars. It is not Kubernetes: there are no images, no users of their own, no network of the pod's.
"""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import threading
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import yaml
from cryptography.hazmat.primitives.asymmetric import rsa
from joserfc import jwt
from joserfc.jwk import RSAKey

from tests.support.issuer import JWK_SET, accepts


class Issuer:
    """OpenID Connect discovery and a JWKS over HTTP, and tokens signed with a key drawn here."""

    def __init__(self) -> None:
        self._key = RSAKey.import_key(
            rsa.generate_private_key(public_exponent=65537, key_size=2048), {"kid": uuid.uuid4().hex}
        )
        issuer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                documents = {
                    "/.well-known/openid-configuration": ("application/json", issuer._discovery),
                    "/openid/v1/jwks": (JWK_SET, issuer._jwks),
                }
                media_type, document = documents.get(self.path, ("", dict))
                body = json.dumps(document()).encode()
                self.send_response(
                    404 if not media_type else 200 if accepts(self.headers, media_type) else 406
                )
                self.send_header("Content-Type", media_type or "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name for it
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _discovery(self) -> dict[str, Any]:
        return {
            "issuer": self.url,
            "jwks_uri": f"{self.url}/openid/v1/jwks",
            "response_types_supported": ["id_token"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["RS256"],
        }

    def _jwks(self) -> dict[str, Any]:
        return {"keys": [{**self._key.as_dict(private=False), "use": "sig", "alg": "RS256"}]}

    def token(
        self, audience: str, *, account: str, namespace: str, pod: str = "", seconds: int = 3607
    ) -> str:
        """A bound token of a service account, with the claims that kube-apiserver puts in."""
        now = int(time.time())
        claims = {
            "aud": [audience],
            "exp": now + seconds,
            "iat": now,
            "iss": self.url,
            "jti": str(uuid.uuid4()),
            "kubernetes.io": {
                "namespace": namespace,
                "pod": {"name": pod, "uid": str(uuid.uuid4())},
                "serviceaccount": {"name": account, "uid": str(uuid.uuid4())},
            },
            "nbf": now,
            "sub": f"system:serviceaccount:{namespace}:{account}",
        }
        return jwt.encode({"alg": "RS256", "kid": self._key.kid}, claims, self._key)


@dataclass
class Pod:
    """The pod of a Job's manifest, in `directory`; `put` are replacements in the manifest's text, such as
    the server's address, and `programs` says what a container's image starts."""

    manifest: Path
    directory: Path
    issuer: Issuer
    programs: Mapping[str, list[str]]
    put: Mapping[str, str] = field(default_factory=dict)
    search_path: str = os.environ["PATH"]
    namespace: str = "default"
    uid: str = field(default_factory=lambda: str(uuid.uuid4()))
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        text = self.manifest.read_text(encoding="utf-8")
        for shown, actual in self.put.items():
            text = text.replace(shown, actual)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        documents = list(yaml.safe_load_all(text.replace("8401", str(self.port))))
        by_kind = {document["kind"]: document for document in documents}
        self._config = {entry["metadata"]["name"]: entry["data"] for entry in documents if "data" in entry}
        job = by_kind.get("Job") or by_kind["CronJob"]["spec"]["jobTemplate"]
        self.spec: dict[str, Any] = job["spec"]["template"]["spec"]
        self.name = f"{by_kind['ServiceAccount']['metadata']['name']}-x7k2p"
        self.directory.mkdir()
        self.renew_token()

    @property
    def shared(self) -> Path:
        """The volume that both containers mount."""
        return self.directory / "taskcred"

    def renew_token(self) -> None:
        """What the kubelet does before a projected token ends: replace the file."""
        for volume in self.spec["volumes"]:
            folder = self.directory / volume["name"]
            folder.mkdir(exist_ok=True)
            for source in volume.get("projected", {}).get("sources", []):
                projected = source["serviceAccountToken"]
                token = self.issuer.token(
                    projected["audience"],
                    account=self.spec["serviceAccountName"],
                    namespace=self.namespace,
                    pod=self.name,
                    seconds=projected["expirationSeconds"],
                )
                (folder / ".fresh").write_text(token)
                (folder / ".fresh").replace(folder / projected["path"])

    def start(self, name: str) -> None:
        """Start a container's process."""
        every = [*self.spec["initContainers"], *self.spec["containers"]]
        container = next(each for each in every if each["name"] == name)
        variables = {entry["name"]: self._value(container, entry) for entry in container.get("env", [])}
        given = [*container.get("command", []), *container.get("args", [])]
        arguments = [
            re.sub(
                r"\$\((\w+)\)", lambda found: variables.get(found[1], found[0]), self._here(container, text)
            )
            for text in given
        ]
        with (self.directory / f"{name}.log").open("ab") as log:
            self.processes[name] = subprocess.Popen(
                [*self.programs.get(name, []), *arguments],
                env={"PATH": self.search_path, "HOME": str(self.directory), **variables},
                cwd=self.directory,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def probe(self) -> int:
        """The startup probe's answer; 0 where there is none."""
        probe = self.spec["initContainers"][0]["startupProbe"]["httpGet"]
        try:
            return httpx.get(f"http://127.0.0.1:{probe['port']}{probe['path']}").status_code
        except httpx.HTTPError:
            return 0

    def log(self, name: str) -> str:
        """What a container has printed."""
        return (self.directory / f"{name}.log").read_text()

    def stop(self, name: str) -> int:
        """SIGTERM to a container, as its grace period begins; its exit status."""
        self.processes[name].terminate()
        return self.processes[name].wait(30)

    def close(self) -> None:
        """Kill what is left."""
        for process in self.processes.values():
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()

    def _here(self, container: Mapping[str, Any], text: str) -> str:
        for mount in container["volumeMounts"]:
            text = text.replace(mount["mountPath"], str(self.directory / mount["name"]))
        return text

    def _value(self, container: Mapping[str, Any], entry: Mapping[str, Any]) -> str:
        if "value" in entry:
            return self._here(container, entry["value"])
        source = entry["valueFrom"]
        if "configMapKeyRef" in source:
            return str(self._config[source["configMapKeyRef"]["name"]][source["configMapKeyRef"]["key"]])
        return {
            "metadata.uid": self.uid,
            "metadata.name": self.name,
            "metadata.namespace": self.namespace,
        }[source["fieldRef"]["fieldPath"]]
