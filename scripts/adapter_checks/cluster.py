"""A real cluster, for the page's own commands: the one that kubectl finds.

It is of one node, on this machine: the server and all else of a check listen on loopback, so the pods have the
node's network. It has two images: AGENT_IMAGE with `taskcred`, and JOB_IMAGE with `ibm-platform-services` and, in
the folder where it starts, the page's `nightly_report.py`.
"""

from __future__ import annotations

import base64
import json
import os
import subprocess
from typing import Any, Final

from scripts.adapter_checks.world import ROOT, World, say
from tests.support.server import eventually

_IMAGES: Final = {"taskcred": "AGENT_IMAGE", "nightly-report": "JOB_IMAGE"}  # of the manifest -> here
_MANIFEST: Final = "deploy/kubernetes/job.yaml"
_JOB: Final = "job/nightly-report"


def is_given() -> bool:
    """Whether there is one to use. A KUBECONFIG alone does not say so: it may be of any cluster."""
    return all(variable in os.environ for variable in _IMAGES.values())


class RealCluster:
    """With the page's Job in its default namespace, until `close`."""

    def __init__(self, world: World) -> None:
        self._world: Final = world
        version = self._json("version")["serverVersion"]["gitVersion"]
        node = self._json("get nodes")["items"][0]["status"]["nodeInfo"]
        self.name: Final = f"a real one: Kubernetes {version} on {node['containerRuntimeVersion']}"
        world.known["--issuer https://issuer.example.org"] = self._trusted()

    def do(self, line: str) -> None:
        """A command of the page's. What it applies is the manifest with its own images, address and grant."""
        manifest = self._world.machine / _MANIFEST
        manifest.parent.mkdir(parents=True, exist_ok=True)
        manifest.write_text(self._here((ROOT / _MANIFEST).read_text(encoding="utf-8")), encoding="utf-8")
        say(f"cluster$ {line}")
        self._run(line)

    def log(self, container: str) -> str:
        """What it has printed; nothing where it has not started."""
        return self._run(f"kubectl logs {_JOB} --container {container}", check=False)

    def start_main(self) -> None:
        """The kubelet's to do, when its probe finds the agent ready."""
        eventually(
            lambda: "running" in self._pod()["status"]["containerStatuses"][0]["state"],
            "the main container runs",
            within=60,
        )

    def renew_token(self) -> None:
        """The kubelet's to do, when most of the token's hour is over."""

    def finish(self) -> None:
        """Wait until both containers have ended, and see that neither failed."""
        self._run(f"kubectl wait --for=condition=complete --timeout=120s {_JOB}")
        status = self._pod()["status"]
        containers = status["initContainerStatuses"] + status["containerStatuses"]
        codes = {each["name"]: each["state"]["terminated"]["exitCode"] for each in containers}
        say(f"the pod is {status['phase']}; its containers ended with {codes}")
        if status["phase"] != "Succeeded" or any(codes.values()):
            raise SystemExit(f"The agent failed:\n{self.log('taskcred')}")

    def close(self) -> None:
        """Take everything away, and keep what the containers printed beside the rest."""
        for container in ("taskcred", "main"):
            (self._world.directory / f"{container}.log").write_text(self.log(container), encoding="utf-8")
        self._run(f"kubectl delete --ignore-not-found -f {_MANIFEST}", check=False)
        self._run("kubectl delete --ignore-not-found clusterrolebinding taskcred-keys", check=False)

    def _trusted(self) -> str:
        """Options of `taskcred admin service trust`: whom to trust, and where its keys are."""
        issuer = self._json("get --raw /.well-known/openid-configuration")["issuer"]
        cluster = self._json("config view --raw --flatten --minify")["clusters"][0]["cluster"]
        ca_file = self._world.directory / "cluster-ca.crt"
        ca_file.write_bytes(base64.b64decode(cluster["certificate-authority-data"]))
        keys = f"{cluster['server']}/openid/v1/jwks"
        return f"--issuer {issuer} --jwks-url {keys} --issuer-ca-file {ca_file}"

    def _here(self, text: str) -> str:
        for image, variable in _IMAGES.items():
            text = text.replace(f"registry.example.org/{image}:latest", os.environ[variable])
        own_network = "automountServiceAccountToken: false"
        return self._world.here(
            text.replace(own_network, f"{own_network}\n      hostNetwork: true").replace(
                "value: https://taskcred.example.org", f"value: {self._world.server.url}"
            )
        )

    def _pod(self) -> Any:
        return self._json("get pods --selector job-name=nightly-report")["items"][0]

    def _json(self, line: str) -> Any:
        return json.loads(self._run(f"kubectl {line}" + (" -o json" if "--raw /" not in line else "")))

    def _run(self, line: str, *, check: bool = True) -> str:
        done = subprocess.run(
            ["timeout", "300", "bash", "-c", line],
            capture_output=True,
            text=True,
            cwd=self._world.machine,
            check=False,
        )
        if check and done.returncode:
            raise SystemExit(f"{line} ended with {done.returncode}:\n{done.stderr}")
        return done.stdout
