"""Kubernetes: the manifest's containers as processes, signed in by tokens of an issuer; see tests/support/cluster.py."""

from __future__ import annotations

from pathlib import Path

from scripts.adapter_checks.world import ROOT, World, say
from tests.support.cluster import Issuer, Pod
from tests.support.server import eventually

_SCHEMAS = ("1.29", "1.37")  # the oldest that has native sidecars, and the newest


def check(world: World) -> None:
    """The page's steps; what `kubectl apply` would do happens before the owner answers."""
    issuer = Issuer()
    world.known["https://issuer.example.org"] = issuer.url
    _install(world)
    pod = None
    try:
        for step in world.steps:
            if step.text.startswith("$ taskcred key create"):
                pod = _apply(world, issuer)
                pod.start("taskcred")
                eventually(lambda pod=pod: "waiting" in _status(pod), "the agent waits", within=180)
                world.run_in("waiting_for_credential")
                say(f"the run is parked; the startup probe is answered {pod.probe()}")
            world.do(step)
        if pod is None:
            raise SystemExit("The page does not come to where its owner answers.")
        eventually(lambda: pod.probe() == 200, "the agent is ready")
        pod.start("main")
        world.run_in("running")
        world.disturb()
        pod.renew_token()
        if pod.processes["main"].wait(300):
            raise SystemExit(f"The main container failed:\n{pod.log('main')}")
        world.run_in("succeeded")
        world.judge(pod.log("main"))
        if pod.stop("taskcred"):
            raise SystemExit(f"The agent failed:\n{pod.log('taskcred')}")
    finally:
        if pod is not None:
            pod.close()
        issuer.close()


def _install(world: World) -> None:
    """What the images hold: the agent's the base alone, the other one the SDK; here they share a folder."""
    world.run("pip install taskcred")
    world.run("pip install ibm-platform-services")
    world.run("pip install kubernetes-validate")
    for manifest in sorted((ROOT / "deploy" / "kubernetes").glob("*.yaml")):
        for version in _SCHEMAS:
            world.run(f"kubernetes-validate --strict --quiet -k {version} {manifest}")


def _apply(world: World, issuer: Issuer) -> Pod:
    manifest: Path = ROOT / "deploy" / "kubernetes" / "job.yaml"
    put = {
        **world.known,
        "value: https://taskcred.example.org": f"value: {world.server.url}",
        "python nightly_report.py": f"{world.python} {world.machine / 'nightly_report.py'}",
    }
    program = [str(world.python.parent / "taskcred")]
    search_path = world.environment("engine")["PATH"]
    return Pod(manifest, world.directory / "pod", issuer, {"taskcred": program}, put, search_path)


def _status(pod: Pod) -> str:
    file = pod.shared / "status"
    return file.read_text() if file.exists() else ""
