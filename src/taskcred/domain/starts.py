"""Whether a service may start a run: pure decisions about the service, and whose access token it shows."""

from __future__ import annotations

from collections.abc import Collection

from taskcred.domain.permissions import Authentication, Denied
from taskcred.domain.runs import Executor
from taskcred.domain.services import ServiceState


def decide_service(
    state: str, tasks: Collection[str], executors: Collection[str], task: str, executor: Executor | None
) -> Denied | None:
    """None where a service so registered may start `task`, carried out by `executor` (None: not known yet)."""
    if state != ServiceState.ACTIVE:
        return Denied(
            "service_disabled",
            "This service has been disabled.",
            "An administrator of the service, or the operator, enables it again.",
        )
    if task not in tasks:
        return Denied(
            "task_not_allowed",
            "This service is not registered for that task.",
            "The operator adds the task: `taskcred admin service update NAME --tasks …`.",
        )
    if executor is not None and executor not in executors:
        return Denied(
            "executor_not_allowed",
            f"Runs of this service may not be carried out by {_BY[executor]}, as those of that task are.",
            "The operator allows it: `taskcred admin service update NAME --executors …`.",
        )
    return None


_BY = {
    Executor.WORKER: "a worker of taskcred",
    Executor.SERVICE: "the service itself",
    Executor.OWNER: "their owner",
}


def decide_subject(authentication: Authentication) -> Denied | None:
    """None where the subject_token is of a person who signed in (only-what-the-user-started)."""
    match authentication:
        case Authentication.INTERACTIVE:
            return None
        case Authentication.RUN_TOKEN:
            return Denied(
                "run_token",
                "The subject_token was handed to a run and can start nothing.",
                "Send the access token of a person who signed in, or name a grant.",
            )
        case _:
            return Denied(
                "programmatic_token",
                "The subject_token was made from an API key; a run needs a person who signed in.",
                "A program that has an API key uses it directly. Send the access token of a signed-in person, "
                "or name a grant.",
            )
