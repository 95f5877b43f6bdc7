"""Prefect 3: a block that holds the service's client credentials and opens attempts inside flows and tasks."""

from __future__ import annotations

import inspect
from asyncio import CancelledError
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, Literal

from prefect import get_run_logger
from prefect.artifacts import create_link_artifact
from prefect.blocks.core import Block
from prefect.context import FlowRunContext, TaskRunContext
from prefect.exceptions import MissingContextError
from prefect.states import Failed
from prefect.utilities.asyncutils import run_coro_as_sync
from pydantic import Field, SecretStr

from taskcred.adapters.attempts import Job, Verdict, begun_when_answered, carried_out
from taskcred.adapters.owners import grant_of
from taskcred.client import Attempt, Client


class TaskcredService(Block):
    """The service that Prefect is in taskcred. `owners` says which iam_id a name of ours stands for."""

    _block_type_name = "taskcred service"
    _block_type_slug = "taskcred-service"
    _description = "Lets flows act for their owner with a stand-in key, never with the owner's own."

    url: str = Field(description="The server, such as https://taskcred.example.org.")
    client_id: str = Field(description="As `taskcred admin service create` printed it.")
    client_secret: SecretStr = Field(description="As printed once by the same command.")
    owners: dict[str, str] = Field(default_factory=dict, description="Names, and whose iam_id each is.")
    ca_file: str | None = Field(default=None, description="PEM file of the server's authority.")

    def get_client(self) -> Client:
        """A client that signs in as the service."""
        # The client proves itself to the server with it.
        secret = self.client_secret.get_secret_value()
        return Client(self.url, client_id=self.client_id, client_secret=secret, ca_file=self.ca_file)

    @contextmanager
    def attempt(
        self, task: str, *, owner: str, parameters: Mapping[str, Any] | None = None
    ) -> Iterator[Attempt]:
        """An attempt of `task` for `owner`, a name in `owners`, around what the flow or task does.

        Retries of Prefect's are further attempts of the same run. Where the owner has no usable task
        credential this waits, and shows the address of the prompt in the log and as a link artifact.
        """
        place = TaskRunContext.get() or FlowRunContext.get()
        if place is None:
            raise MissingContextError("TaskcredService.attempt() works inside a flow or a task of Prefect.")
        with self.get_client() as client:
            job = Job(
                key=f"prefect {_run(place).id}",
                task=task,
                grant_id=grant_of(client, self.owners, owner, task),
                parameters=parameters or {},
                reference=f"Prefect {_run(place).name}",
            )
            begun = begun_when_answered(client, job, _show)
            with carried_out(begun, lambda error: _verdict(error, place)) as attempt:
                yield attempt


def _run(place: Any) -> Any:
    """The task run or flow run of a context."""
    return place.task_run if isinstance(place, TaskRunContext) else place.flow_run


def _show(prompt_url: str) -> None:
    get_run_logger().warning("Waiting for the owner's task credential; they answer at %s", prompt_url)
    create_link_artifact(
        link=prompt_url,
        link_text="Answer in taskcred",
        key="taskcred-prompt",
        description="This run waits for a task credential of its owner, who alone can answer.",
    )


def _verdict(error: BaseException, place: Any) -> Verdict:
    """What Prefect will make of an exception, said in our words."""
    if isinstance(error, CancelledError) and _is_late(place):
        error = TimeoutError("the time-out of the task or flow")  # what Prefect makes of it once we are left
    if not isinstance(error, Exception):
        return Verdict("failed")  # an interrupt: Prefect ends the run
    # Prefect shows each TimeoutError as TimedOut, a job's own as well.
    outcome: Literal["timed_out", "failed"] = "timed_out" if isinstance(error, TimeoutError) else "failed"
    return Verdict(outcome, again=_is_tried_again(error, place))


def _is_late(place: Any) -> bool:
    step = place.task if isinstance(place, TaskRunContext) else place.flow
    spent = datetime.now(UTC) - place.start_time
    return step.timeout_seconds is not None and bool(spent.total_seconds() >= step.timeout_seconds)


def _is_tried_again(error: Exception, place: Any) -> bool:
    """Prefect's own decision, which it takes only once the block is left: so `retry_condition_fn` is asked
    here, too."""
    if not isinstance(place, TaskRunContext):
        return bool(_run(place).run_count <= place.flow.retries)
    if place.task_run.run_count > place.task.retries:
        return False
    condition = place.task.retry_condition_fn
    if condition is None:
        return True
    if not inspect.isfunction(condition):
        return False  # Prefect asks functions only, and takes anything else for a no
    try:
        answer = condition(place.task, place.task_run, Failed(data=error, message=repr(error)))
        return bool(run_coro_as_sync(answer) if inspect.isawaitable(answer) else answer)
    except Exception:  # noqa: BLE001 - as Prefect has it, which logs the exception when it asks
        return False
