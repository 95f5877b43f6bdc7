"""What the adapters share: one run for one job of an engine, however often the engine tries it.

An engine repeats: it retries, it takes a job up again after a worker died, a person clears a task. A try must
find the run of the try before it without keeping a note of its own. So a run is started under an
Idempotency-Key made of the job's name in the engine; the server answers a repetition with the same run, for a
day. Where that run has ended, the next is started under a key made of its id, and so on: the same chain,
whoever walks it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

from taskcred.client import Attempt, Client, Run
from taskcred.client.attempt import Outcome
from taskcred.client.errors import WaitingForCredential
from taskcred.domain.runs import RunState
from taskcred.errors import ConflictError, TaskcredError


@dataclass(frozen=True, slots=True)
class Job:
    """A job of an engine. `key` names it among all jobs of the service, the same at each try; `reference` is
    what people read at the run."""

    key: str
    task: str
    grant_id: str
    parameters: Mapping[str, Any] = field(default_factory=dict)
    reference: str = ""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What an exception means for its attempt; `again`: the engine will try once more."""

    outcome: Literal["succeeded", "failed", "timed_out"]  # "cancelled" is its owner's word
    again: bool = False


def run_of(client: Client, job: Job) -> Run:
    """The run of `job` that has not ended: an earlier try's, or a new one.

    Raises ConflictError (code cancelled) where it was cancelled: no repetition overrides its owner.
    """
    # Whatever the request says is part of the key: the server keeps its answer for that request alone.
    named = json.dumps([job.key, job.task, job.grant_id, job.parameters, job.reference], sort_keys=True)
    while True:
        started = client.start_run(
            job.task,
            dict(job.parameters),
            grant_id=job.grant_id,
            reference=job.reference,
            idempotency_key=hashlib.sha256(named.encode()).hexdigest(),
        )
        run = client.run(started.id)  # a replayed answer tells the state of then
        if not run.is_final:
            return run
        if run.state == RunState.CANCELLED:
            raise ended_meanwhile(run)
        named += run.id


def ended_meanwhile(run: Run) -> ConflictError:
    """The refusal to go on with a run that has ended before it was carried out."""
    return ConflictError(
        f"The run {run.id} is {run.state}: {run.reason or 'no reason was given.'}",
        hint="Start the job anew where its owner still wants it.",
        code=run.state,
    )


def begun_when_answered(client: Client, job: Job, tell: Callable[[str], None]) -> Attempt:
    """An attempt of `job`'s run, for an engine that cannot put a job aside: of a parked run `tell` gets the
    address of the prompt, and this waits for its owner's answer. Raises ConflictError where the run ends
    meanwhile."""
    run_id = run_of(client, job).id
    while True:
        try:
            return client.begin_attempt(run_id)
        except WaitingForCredential as parked:
            tell(parked.prompt_url or "")
        run = client.wait(run_id)
        if run.is_final:
            raise ended_meanwhile(run)


@contextmanager
def carried_out(attempt: Attempt, judge: Callable[[BaseException], Verdict]) -> Iterator[Attempt]:
    """End `attempt` as succeeded when the block is left, or as `judge` sees the exception that left it."""
    try:
        yield attempt
    except BaseException as error:
        verdict = judge(error)
        asked = attempt.cancel_requested
        outcome: Outcome = "cancelled" if asked else verdict.outcome
        again = verdict.again and not asked
        try:
            # The type alone: an exception's text may hold what its job worked on.
            attempt.end(outcome, reason=f"{type(error).__name__} in the job.", again=again)
        except TaskcredError as unsaid:  # taken away before; or the server is away, and silence ends it
            error.add_note(f"taskcred was not told: {unsaid.message}")
        raise
    attempt.end("succeeded")
