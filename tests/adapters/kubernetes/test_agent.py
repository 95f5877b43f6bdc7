"""`taskcred agent` beside a main container, with the manifests as they are and a token of the pod's service account."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

import pytest

from taskcred.client import TaskSession
from taskcred.client.errors import KeyRefusedError
from tests.adapters.kubernetes.conftest import Cluster
from tests.support.cluster import Pod
from tests.support.server import eventually

JOB = """
from ibm_platform_services import IamIdentityV1
service = IamIdentityV1.new_instance()
for _ in range(5):
    keys = service.list_api_keys(scope="entity").get_result()["apikeys"]
print(len(keys), "keys")
"""


def mode(file: Path) -> int:
    return file.stat().st_mode & 0o777


def is_ready(pod: Pod) -> bool:
    return pod.probe() == 200


def started(pod: Pod) -> Pod:
    """The pod once its agent is ready."""
    pod.start("taskcred")
    eventually(lambda: is_ready(pod), "the agent is ready", within=60)
    return pod


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def see_it_give_up(pod: Pod, session: TaskSession) -> None:
    """The key is dead, the files are gone, and the agent stays, not ready, until it is stopped."""
    with pytest.raises(KeyRefusedError):
        session.token()
    eventually(lambda: not (pod.shared / "token").exists(), "the files are gone")
    eventually(lambda: pod.probe() == 503, "it is not ready")
    assert pod.processes["taskcred"].poll() is None
    assert pod.stop("taskcred") == 0


def stand_in_key(pod: Pod) -> str:
    lines = (pod.shared / "ibm-credentials.env").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines)["IAM_IDENTITY_APIKEY"]


@pytest.mark.slow
@pytest.mark.promise("parked-not-failed")
@pytest.mark.parametrize("manifest", ["job.yaml", "cronjob.yaml"])
def test_a_pod_waits_for_its_owner_then_runs_with_an_unmodified_sdk(cluster: Cluster, manifest: str) -> None:
    (cluster.directory / "job.py").write_text(JOB)
    pod = cluster.pod(manifest=manifest, job=f"{sys.executable} {cluster.directory / 'job.py'}")
    pod.start("taskcred")
    eventually(lambda: pod.probe() == 503 and "waiting" in (pod.shared / "status").read_text(), "it waits")
    (run,) = cluster.runs()
    assert run["state"] == "waiting_for_credential"
    assert f"/prompts/{run['prompt_id']}" in pod.log("taskcred")
    assert not (pod.shared / "token").exists()

    cluster.make_key()
    eventually(lambda: is_ready(pod), "the agent is ready")
    assert mode(pod.shared / "token") == mode(pod.shared / "ibm-credentials.env") == 0o640
    pod.start("main")
    assert pod.processes["main"].wait(60) == 0, pod.log("main")
    assert pod.log("main") == "1 keys\n"

    eventually(lambda: cluster.runs()[0]["state"] == "succeeded", "the run has succeeded")
    assert not (pod.shared / "token").exists()
    assert not (pod.shared / "ibm-credentials.env").exists()
    assert pod.stop("taskcred") == 0
    assert cluster.runs()[0]["attempts_made"] == 1


@pytest.mark.parametrize(
    ("job", "state", "exit_code"),
    [("true", "succeeded", 0), ("(exit 3)", "failed", 3)],
)
def test_the_exit_code_of_the_main_container_is_the_runs(
    cluster: Cluster, job: str, state: str, exit_code: int
) -> None:
    cluster.make_key()
    pod = started(cluster.pod(job=job))
    pod.start("main")
    assert pod.processes["main"].wait(30) == exit_code
    run = eventually(
        lambda: next((run for run in cluster.runs() if run["state"] == state), None), f"the run has {state}"
    )
    assert run["exit_code"] == exit_code
    assert pod.stop("taskcred") == 0


@pytest.mark.promise("dead-with-the-run")
def test_a_pod_that_is_deleted_takes_its_key_along(cluster: Cluster) -> None:
    cluster.make_key()
    pod = started(cluster.pod(job="sleep 600"))
    session = TaskSession(cluster.server.url, stand_in_key(pod))
    pod.start("main")
    (work,) = eventually(lambda: children(pod.processes["main"].pid), "it works")
    # Between its fork and its exec the shell's child would lose the signal.
    eventually(lambda: Path(f"/proc/{work}/comm").read_text() == "sleep\n", "it is the program")
    # The kubelet ends the main container first, and gives the agent what is left of the grace period.
    assert pod.stop("main") == 128 + signal.SIGTERM
    assert not Path(f"/proc/{work}").exists()
    assert pod.stop("taskcred") == 0
    (run,) = cluster.runs()
    assert (run["state"], run["reason"]) == (
        "failed",
        "The pod ended, and its main container wrote no exit-code.",
    )
    assert not (pod.shared / "token").exists()
    with pytest.raises(KeyRefusedError):
        session.token()


@pytest.mark.promise("never-interrupted")
def test_an_agent_that_died_goes_on_with_its_attempt(cluster: Cluster) -> None:
    cluster.make_key()
    pod = started(cluster.pod())
    session = TaskSession(cluster.server.url, stand_in_key(pod))
    assert mode(pod.shared / ".attempt") == 0o600
    pod.processes["taskcred"].kill()
    pod.processes["taskcred"].wait()
    started(pod)
    session.token()
    (pod.shared / "exit-code").write_text("0")
    eventually(lambda: cluster.runs()[0]["state"] == "succeeded", "the run has succeeded")
    assert cluster.runs()[0]["attempts_made"] == 1
    assert pod.stop("taskcred") == 0
    assert not (pod.shared / ".attempt").exists()


def test_without_its_attempt_an_agent_begins_another_of_the_same_run(cluster: Cluster) -> None:
    cluster.make_key()
    pod = started(cluster.pod())
    first = stand_in_key(pod)
    pod.processes["taskcred"].kill()
    pod.processes["taskcred"].wait()
    (pod.shared / ".attempt").unlink()
    pod.start("taskcred")
    eventually(lambda: is_ready(pod) and stand_in_key(pod) != first, "there is a new key", within=60)
    (run,) = cluster.runs()
    assert (run["state"], run["attempts_made"]) == ("running", 2)
    with pytest.raises(KeyRefusedError):
        TaskSession(cluster.server.url, first).token()
    TaskSession(cluster.server.url, stand_in_key(pod)).token()
    assert pod.stop("taskcred") == 0


@pytest.mark.promise("at-once")
def test_when_the_grant_ends_the_files_go_and_a_restarted_agent_starts_nothing(cluster: Cluster) -> None:
    cluster.make_key()
    pod = started(cluster.pod())
    session = TaskSession(cluster.server.url, stand_in_key(pod))
    cluster.answer("POST", f"/v1/grants/{cluster.grant_id}/end", json={})
    see_it_give_up(pod, session)
    pod.start("taskcred")
    eventually(lambda: pod.log("taskcred").count("is cancelled") == 2, "it sees why")
    assert pod.processes["taskcred"].poll() is None
    assert pod.stop("taskcred") == 0
    assert [run["state"] for run in cluster.runs()] == ["cancelled"]


def test_when_the_owner_cancels_the_next_heartbeat_ends_the_key(cluster: Cluster) -> None:
    cluster.make_key()
    pod = started(cluster.pod())
    session = TaskSession(cluster.server.url, stand_in_key(pod))
    run = cluster.runs()[0]
    cluster.answer("POST", f"/v1/runs/{run['id']}/cancel", json={})
    eventually(lambda: cluster.runs()[0]["state"] == "cancelled", "the agent ends the attempt")
    see_it_give_up(pod, session)


def test_a_pod_of_another_service_account_is_refused(cluster: Cluster) -> None:
    cluster.make_key()
    pod = cluster.pod(**{"serviceAccountName: nightly-report": "serviceAccountName: somebody-else"})
    pod.start("taskcred")
    assert pod.processes["taskcred"].wait(30) == 4
    assert cluster.runs() == []


def test_a_token_that_the_kubelet_renewed_is_used(cluster: Cluster) -> None:
    cluster.make_key()
    pod = cluster.pod()
    (pod.directory / "workload-token" / "token").write_text("ended long ago")
    pod.start("taskcred")
    assert pod.processes["taskcred"].wait(30) == 4
    pod.renew_token()
    started(pod)
    (pod.directory / "workload-token" / "token").write_text("ended by now")
    pod.renew_token()
    (pod.shared / "exit-code").write_text("0")
    eventually(lambda: cluster.runs()[0]["state"] == "succeeded", "the end was told with the renewed token")
    assert pod.stop("taskcred") == 0
