"""Dagster: a resource that opens attempts inside ops and assets."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from dagster import (
    AssetExecutionContext,
    ConfigurableResource,
    DagsterError,
    Failure,
    OpExecutionContext,
    RetryRequested,
)
from pydantic import Field

from taskcred.adapters.attempts import Job, Verdict, begun_when_answered, carried_out
from taskcred.adapters.owners import grant_of
from taskcred.client import Attempt, Client


class TaskcredResource(ConfigurableResource):
    """The service that Dagster is in taskcred: as `taskcred admin service create` printed it.

    `owners` says which iam_id a name of ours stands for; `ca_file` is a PEM file of the server's authority.
    Take `client_secret` from an `EnvVar`: other values are shown in Dagster's pages.
    """

    url: str
    client_id: str
    client_secret: str
    owners: dict[str, str] = Field(default={})
    ca_file: str | None = None

    def get_client(self) -> Client:
        """A client that signs in as the service."""
        return Client(
            self.url, client_id=self.client_id, client_secret=self.client_secret, ca_file=self.ca_file
        )

    @contextmanager
    def attempt(
        self,
        context: OpExecutionContext | AssetExecutionContext,
        task: str,
        *,
        owner: str,
        parameters: Mapping[str, Any] | None = None,
    ) -> Iterator[Attempt]:
        """An attempt of `task` for `owner`, a name in `owners`, around what the op or asset does.

        Retries of a step, and re-executions of a Dagster run, are further attempts of the same run while
        that has not ended. Where the owner has no usable task credential this waits, and logs the address of
        the prompt.
        """
        step = context.get_step_execution_context()
        with self.get_client() as client:
            job = Job(
                key=f"dagster {step.dagster_run.root_run_id or step.run_id} {step.step.key}",
                task=task,
                grant_id=grant_of(client, self.owners, owner, task),
                parameters=parameters or {},
                reference=f"Dagster {step.job_name}.{step.step.key} {step.run_id}",
            )

            def tell(prompt_url: str) -> None:
                context.log.warning(f"Waiting for the owner's task credential; they answer at {prompt_url}")

            begun = begun_when_answered(client, job, tell)
            with carried_out(begun, lambda error: _verdict(error, step)) as attempt:
                yield attempt


def _verdict(error: BaseException, step: Any) -> Verdict:
    """What Dagster will make of an exception, said in our words."""
    policy = step.op_retry_policy
    if isinstance(error, RetryRequested):
        retries = error.max_retries
    elif (
        policy is None
        or not isinstance(error, Exception)  # an interrupt
        or isinstance(error, DagsterError)
        or (isinstance(error, Failure) and not error.allow_retries)
    ):
        retries = 0
    else:
        retries = policy.max_retries
    again = not step.retry_mode.disabled and step.previous_attempt_count < retries
    return Verdict("failed", again)
