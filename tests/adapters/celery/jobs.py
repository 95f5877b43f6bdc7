"""The tasks of a platform, as its workers import them."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from celery import Celery
from ibm_cloud_sdk_core.authenticators import IAMAuthenticator
from ibm_platform_services import IamIdentityV1

from taskcred.adapters.celery import TaskcredTask

app = Celery("platform", broker=os.environ["REDIS_URL"], backend=os.environ["REDIS_URL"])
app.conf.update(
    broker_connection_retry_on_startup=True,
    broker_transport_options={"visibility_timeout": float(os.environ.get("VISIBILITY_TIMEOUT", "3600"))},
    task_acks_late=True,
    task_reject_on_worker_lost=True,
    worker_prefetch_multiplier=1,
)

HERE = Path(os.environ["JOBS_DIRECTORY"])


class Quick(TaskcredTask):
    """Tests do not wait half a minute."""

    taskcred_look_again = 1.0


def keys_of(task: TaskcredTask, authenticator: Any) -> list[dict[str, Any]]:
    """What IBM's SDK, as it is, lists with this authentication."""
    service = IamIdentityV1(authenticator=authenticator)
    service.set_service_url(task.taskcred.url)
    found: list[dict[str, Any]] = service.list_api_keys(scope="entity").get_result()["apikeys"]
    return found


@app.task(name="inventory", base=Quick, taskcred_task="inventory", bind=True)
def inventory(self: TaskcredTask, number: int) -> dict[str, Any]:
    """List the owner's API keys: by our authenticator, or by IBM's own with the stand-in key."""
    variables = self.attempt.environment(["iam_identity"])
    by_ibm = IAMAuthenticator(variables["IAM_IDENTITY_APIKEY"], url=variables["IAM_IDENTITY_AUTH_URL"])
    keys = keys_of(self, by_ibm if number % 2 else self.session.ibm_authenticator())
    return {"owners": sorted({key["iam_id"] for key in keys}), "process": os.getpid()}


@app.task(name="long", base=Quick, taskcred_task="inventory", bind=True)
def long(self: TaskcredTask, number: int) -> int:  # noqa: ARG001 - the run's parameter
    """Call IAM until the file `go-on` is there; each attempt leaves its stand-in key for the test."""
    variables = self.attempt.environment(["iam_identity"])
    note = HERE / f"{self.attempt.number}.key"
    note.touch(mode=0o600)
    note.write_text(f"{os.getpid()} {variables['IAM_IDENTITY_APIKEY']}")
    authenticator = self.session.ibm_authenticator()
    while not (HERE / "go-on").exists():
        keys_of(self, authenticator)
        time.sleep(0.2)
    return self.attempt.number


class TroubleError(Exception):
    """A job's own failure, whose text is nobody else's business."""


@app.task(name="troubled", base=Quick, taskcred_task="inventory", bind=True, max_retries=2)
def troubled(self: TaskcredTask, number: int) -> int:
    """Fail `number` times, and ask for another try each time."""
    keys_of(self, self.session.ibm_authenticator())
    if self.request.retries < number:
        raise self.retry(exc=TroubleError("a text that is nobody's business"), countdown=0)
    return self.attempt.number


@app.task(name="stuck", base=Quick, taskcred_task="inventory", bind=True, reject_on_worker_lost=False)
def stuck(self: TaskcredTask, number: int) -> None:  # noqa: ARG001 - the run's parameter
    """Wait for ever."""
    (HERE / f"{self.attempt.number}.key").write_text(f"{os.getpid()} -")
    time.sleep(3600)
