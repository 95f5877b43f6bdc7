"""Kubernetes: the page's Job in the cluster that is given (cluster.py), or in what stands in for one
(tests/support/cluster.py): its containers as processes, signed in by tokens of an issuer."""

from __future__ import annotations

from typing import Final

from scripts.adapter_checks.cluster import RealCluster, is_given
from scripts.adapter_checks.page import commands
from scripts.adapter_checks.world import ROOT, World, say
from tests.support.cluster import Issuer, Pod
from tests.support.server import eventually

_SCHEMAS: Final = ("1.29", "1.37")  # the oldest that has native sidecars, and the newest


def check(world: World) -> None:
    """The page's steps. The owner answers when the pod waits."""
    cluster = RealCluster(world) if is_given() else StandIn(world)
    say(f"the cluster is {cluster.name}")
    try:
        for step in world.steps:
            if step.text.startswith("$ taskcred key create"):
                eventually(lambda: "waiting: " in cluster.log("taskcred"), "the agent waits", within=180)
                world.run_in("waiting_for_credential")
                say(
                    f"the run is parked, and so is the main container: it has printed {cluster.log('main')!r}"
                )
            if step.place == "cluster":
                for command in commands(step.text):
                    cluster.do(command.line)
            else:
                world.do(step)
        cluster.start_main()
        world.run_in("running")
        world.disturb()
        cluster.renew_token()
        cluster.finish()
        world.judge(cluster.log("main"))
    finally:
        cluster.close()


class StandIn:
    """An issuer, and from the page's `kubectl apply` on a pod."""

    name = "stood in for: no images, no kubelet, no network of the pod's"

    def __init__(self, world: World) -> None:
        self._world: Final = world
        self._issuer: Final = Issuer()
        self._pod: Pod | None = None
        world.known["https://issuer.example.org"] = self._issuer.url
        # What the images hold; here they share a folder.
        world.run("pip install taskcred")
        world.run("pip install ibm-platform-services")
        world.run("pip install kubernetes-validate")
        for manifest in sorted((ROOT / "deploy" / "kubernetes").glob("*.yaml")):
            for version in _SCHEMAS:
                world.run(f"kubernetes-validate --strict --quiet -k {version} {manifest}")

    @property
    def pod(self) -> Pod:
        """The one that was applied."""
        if self._pod is None:
            raise SystemExit("The page applies nothing.")
        return self._pod

    def do(self, line: str) -> None:
        """A command of the page's. This issuer shows its configuration and its keys to anybody."""
        say(f"stood in for: {line}")
        if not line.startswith("kubectl apply"):
            return
        world = self._world
        put = {
            **world.known,
            "value: https://taskcred.example.org": f"value: {world.server.url}",
            "python nightly_report.py": f"{world.python} {world.machine / 'nightly_report.py'}",
        }
        program = [str(world.python.parent / "taskcred")]
        search_path = world.environment("engine")["PATH"]
        manifest = ROOT / line.rpartition(" ")[2]
        self._pod = Pod(
            manifest, world.directory / "pod", self._issuer, {"taskcred": program}, put, search_path
        )
        self._pod.start("taskcred")

    def log(self, container: str) -> str:
        """What it has printed; nothing where it has not started."""
        return self.pod.log(container) if container in self.pod.processes else ""

    def start_main(self) -> None:
        """Once the startup probe lets it."""
        eventually(lambda: self.pod.probe() == 200, "the agent is ready")
        self.pod.start("main")

    def renew_token(self) -> None:
        """As the kubelet does before the token ends."""
        self.pod.renew_token()

    def finish(self) -> None:
        """Wait until the main container has ended, stop the agent, and see that neither failed."""
        if self.pod.processes["main"].wait(300):
            raise SystemExit(f"The main container failed:\n{self.log('main')}")
        if self.pod.stop("taskcred"):
            raise SystemExit(f"The agent failed:\n{self.log('taskcred')}")

    def close(self) -> None:
        """Take everything away."""
        if self._pod is not None:
            self._pod.close()
        self._issuer.close()
