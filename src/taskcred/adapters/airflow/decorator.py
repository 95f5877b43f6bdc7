"""`@task.taskcred`: a Python task that acts for its owner.

A run is started for the owner, its attempt is begun when the task's function is, and ends with it. Where the
owner has no usable task credential the task is deferred until they answered.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from inspect import signature
from typing import Any, ClassVar, Final, Literal

from airflow.providers.standard.operators.python import PythonOperator
from airflow.sdk.bases.decorator import DecoratedOperator, task_decorator_factory
from airflow.sdk.exceptions import (
    AirflowFailException,
    AirflowSensorTimeout,
    AirflowSkipException,
    AirflowTaskTerminated,
    AirflowTaskTimeout,
)
from airflow.sdk.log import mask_secret

from taskcred.adapters.airflow import DEFAULT_CONNECTION
from taskcred.adapters.airflow.hook import TaskcredHook
from taskcred.adapters.airflow.trigger import PromptTrigger
from taskcred.adapters.attempts import Job, Verdict, carried_out, run_of
from taskcred.client import Attempt, Client
from taskcred.client.errors import WaitingForCredential
from taskcred.errors import ConflictError

_SESSION: Final = "session"  # the parameter that receives the TaskSession


class TaskcredOperator(DecoratedOperator, PythonOperator):
    """Runs a Python function inside an attempt of a taskcred run.

    `taskcred_task` is the task of the catalogue; `taskcred_parameters` are the run's. `taskcred_owner` is a
    name that the connection's `owners` knows: without it, who triggered the DAG run, and for a scheduled one
    the task's `owner`. A parameter of the function called `session` receives the TaskSession.
    """

    template_fields: Sequence[str] = (*PythonOperator.template_fields, "taskcred_parameters")
    custom_operator_name: ClassVar[str] = "@task.taskcred"
    op_kwargs: Mapping[str, Any]

    def __init__(
        self,
        *,
        python_callable: Callable[..., Any],
        op_args: Collection[Any] = (),
        op_kwargs: Mapping[str, Any] | None = None,
        taskcred_task: str,
        taskcred_parameters: Mapping[str, Any] | None = None,
        taskcred_owner: str | None = None,
        taskcred_conn_id: str = DEFAULT_CONNECTION,
        **kwargs: Any,
    ) -> None:
        named = dict(op_kwargs or {})
        if _SESSION in signature(python_callable).parameters:
            named.setdefault(_SESSION, None)  # there is one when the function runs
        upstream = {"python_callable": python_callable, "op_args": op_args, "op_kwargs": named}
        super().__init__(kwargs_to_upstream=upstream, **upstream, **kwargs)
        self.taskcred_task = taskcred_task
        self.taskcred_parameters = dict(taskcred_parameters or {})
        self.taskcred_owner = taskcred_owner
        self.taskcred_conn_id = taskcred_conn_id
        self._attempt: Attempt | None = None

    def execute(self, context: Any) -> Any:
        """A try: find or start the run, and carry it out."""
        hook = TaskcredHook(self.taskcred_conn_id)
        with hook.get_conn() as client:
            owner = self.taskcred_owner or _owner(context)
            job = Job(
                key=_key(context["ti"]),
                task=self.taskcred_task,
                grant_id=hook.grant_of(owner, self.taskcred_task),
                parameters=self.taskcred_parameters,
                reference=f"Airflow {context['ti'].dag_id}.{context['ti'].task_id} {context['run_id']}",
            )
            try:
                run = run_of(client, job)
            except ConflictError as error:
                raise AirflowFailException(f"{error.message} {error.hint}") from error
            return self._carry_out(client, run.id, context)

    def go_on(self, context: Any, event: Mapping[str, Any], run_id: str) -> Any:
        """The run no longer waits; Airflow has given the task a worker slot again."""
        if event["ended"]:
            raise AirflowFailException(event["ended"])
        with TaskcredHook(self.taskcred_conn_id).get_conn() as client:
            return self._carry_out(client, run_id, context)

    def on_kill(self) -> None:
        """Airflow ends the task (marked, cleared, its worker shut down): nothing may outlive it."""
        if self._attempt is not None:
            self._attempt.end("failed", reason="Airflow ended the task.")

    def _carry_out(self, client: Client, run_id: str, context: Any) -> Any:
        try:
            attempt = client.begin_attempt(run_id)
        except WaitingForCredential as waiting:
            self.log.info("Waiting for the owner's task credential; they answer at %s", waiting.prompt_url)
            self.defer(
                trigger=PromptTrigger(self.taskcred_conn_id, run_id),
                method_name="go_on",
                kwargs={"run_id": run_id},
            )
        self._attempt = attempt
        variables = attempt.environment()
        mask_secret(variables["IBMCLOUD_API_KEY"])
        if _SESSION in self.op_kwargs:
            self.op_kwargs = {**self.op_kwargs, _SESSION: attempt.session}
        with (
            carried_out(attempt, lambda error: _verdict(error, context)),
            _environment(variables),
        ):
            return super().execute(context)


def taskcred_task(
    python_callable: Callable[..., Any] | None = None, multiple_outputs: bool | None = None, **kwargs: Any
) -> Any:
    """What `@task.taskcred(taskcred_task="…")` calls."""
    return task_decorator_factory(
        python_callable=python_callable,
        multiple_outputs=multiple_outputs,
        decorated_operator_class=TaskcredOperator,
        **kwargs,
    )


def _owner(context: Any) -> str:
    """A run that a person triggered is that person's; any other is of the task's owner."""
    return str(context["dag_run"].triggering_user_name or context["task"].owner)


def _key(ti: Any) -> str:
    return "\n".join(("airflow", ti.dag_id, ti.run_id, ti.task_id, str(ti.map_index)))


def _verdict(error: BaseException, context: Any) -> Verdict:
    """What Airflow will make of an exception, said in our words."""
    if isinstance(error, AirflowSkipException):
        return Verdict("succeeded")
    outcome: Literal["timed_out", "failed"] = (
        "timed_out" if isinstance(error, AirflowTaskTimeout) else "failed"
    )
    return Verdict(outcome, again=_is_tried_again(error, context))


def _is_tried_again(error: BaseException, context: Any) -> bool:
    """Airflow's own decision, which it takes only later: so a task's `retry_policy` is asked here, too."""
    ti = context["ti"]
    if isinstance(error, (AirflowFailException, AirflowSensorTimeout, AirflowTaskTerminated)):
        return False
    if ti.try_number > ti.max_tries:
        return False
    policy = getattr(ti.task, "retry_policy", None)  # from Airflow 3.3 on
    if policy is None:
        return True
    try:
        decision = policy.evaluate(
            exception=error, try_number=ti.try_number, max_tries=ti.max_tries, context=context
        )
    except Exception:  # noqa: BLE001 - as Airflow has it, which logs the exception when it asks
        return True
    return bool(decision.action.value != "fail")


@contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    """Set variables for a while. A task of Airflow's has its process to itself, so unmodified SDK code that
    looks there finds the stand-in key."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
