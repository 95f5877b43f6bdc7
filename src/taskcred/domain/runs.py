"""Runs, attempts, schedules and prompts: states and the decisions about them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Final

from taskcred.domain.backoff import backoff


class RunState(StrEnum):
    """A run's states; the last three are final."""

    QUEUED = "queued"
    WAITING_FOR_CREDENTIAL = "waiting_for_credential"  # parked: nothing runs, its owner was told
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


FINAL_STATES: Final = frozenset({RunState.SUCCEEDED, RunState.FAILED, RunState.CANCELLED})


class AttemptOutcome(StrEnum):
    """How an attempt ended; None in the record while it is live."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"  # the job said so: exit status, exception, HTTP status
    TIMED_OUT = "timed_out"
    CANCELLED = "cancelled"
    LOST = "lost"  # its worker died; the job was ended with it


class Executor(StrEnum):
    """Who carries a run out."""

    WORKER = "worker"  # ours, by way of the engine's queue
    SERVICE = "service"  # the service that started it, in an engine of its own
    OWNER = "owner"  # its owner, on their own machine: `taskcred exec`


class PromptState(StrEnum):
    """An open request to an owner. Withdrawn: nothing waits for it any more."""

    OPEN = "open"
    ANSWERED = "answered"
    WITHDRAWN = "withdrawn"


class Misfire(StrEnum):
    """What a schedule does about times that passed while taskcred was down or the schedule was late."""

    RUN_ONCE = "run_once"
    SKIP = "skip"


@dataclass(frozen=True, slots=True)
class RetryRule:
    """`max_attempts` counts the first one; back-off doubles from `delay` up to `max_delay`."""

    max_attempts: int = 1
    delay: timedelta = timedelta(seconds=10)
    max_delay: timedelta = timedelta(minutes=10)
    on_lost: bool = True  # whether an attempt lost with its worker may be tried again beyond max_attempts


@dataclass(frozen=True, slots=True)
class Again:
    """Decision: try again after `delay`."""

    delay: timedelta


@dataclass(frozen=True, slots=True)
class End:
    """Decision: the run ends in `state`; `reason` is a sentence for its owner, empty on success."""

    state: RunState
    reason: str = ""


# Where an engine of the executor's own decides what is tried again, the task's rule has no say.
NO_RETRY: Final = RetryRule(max_attempts=0)
LOST_LIMIT: Final = 5  # a run that takes its worker down with it must not do so for ever


def decide_after_attempt(
    rule: RetryRule, outcome: AttemptOutcome, attempts_made: int, lost_before: int, reason: str
) -> Again | End:
    """What becomes of a run when attempt number `attempts_made` ended with `outcome`.

    `lost_before` counts earlier attempts of this run that were lost with their worker.
    """
    match outcome:
        case AttemptOutcome.SUCCEEDED:
            return End(RunState.SUCCEEDED)
        case AttemptOutcome.CANCELLED:
            return End(RunState.CANCELLED, reason)
        case AttemptOutcome.LOST if rule.on_lost and lost_before < LOST_LIMIT:
            return Again(timedelta(0))
        case AttemptOutcome.FAILED | AttemptOutcome.TIMED_OUT if (
            attempts_made - lost_before < rule.max_attempts
        ):
            return Again(backoff(rule.delay, attempts_made - lost_before - 1, rule.max_delay))
        case _:
            return End(RunState.FAILED, reason)


@dataclass(frozen=True, slots=True)
class RunView:
    """A run as its owner may see it."""

    id: str
    account_id: str
    iam_id: str
    task: str
    parameters: dict[str, Any]
    state: RunState
    reason: str
    schedule_id: str | None
    scheduled_for: datetime | None
    started_by: str
    prompt_id: str | None  # the open prompt, while waiting for a credential
    attempts_made: int
    progress_done: int | None
    progress_total: int | None
    progress_text: str
    exit_code: int | None
    isolation: str | None  # how the latest attempt was isolated: "bubblewrap", "user", "none"
    cancel_requested_at: datetime | None
    created_at: datetime
    queued_at: datetime | None
    started_at: datetime | None
    ended_at: datetime | None
    revision: int
    executor: Executor
    service_id: str | None  # the service that started it
    service_name: str | None  # that service, as owners read it
    grant_id: str | None  # the grant it was started under
    acting_iam_id: str  # the person who acted, where the owner is a service id; else empty
    reference: str  # what the service calls it
    return_to: str  # where its owner is led after the prompt, one of the service's callback URLs; or empty


@dataclass(frozen=True, slots=True)
class AttemptView:
    """One try of a run, with what it was handed: times only, never a token."""

    id: str
    number: int
    outcome: AttemptOutcome | None
    reason: str
    executor: str
    started_at: datetime
    ended_at: datetime | None
    exit_code: int | None
    standin_last_four: str
    tokens: tuple[TokenHandOut, ...] = ()
    addresses: tuple[str, ...] | None = None  # networks its stand-in key works from; None: from anywhere


@dataclass(frozen=True, slots=True)
class TokenHandOut:
    """An access token an attempt received: from which key, first and last when, how often."""

    key_id: str
    first_at: datetime
    last_at: datetime
    uses: int
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class ScheduleView:
    """A schedule as its owner may see it; `next_times` are its next five, in UTC: none while it is paused,
    or where its time zone has left the host's database."""

    id: str
    account_id: str
    iam_id: str
    name: str
    task: str
    parameters: dict[str, Any]
    cron: str
    timezone: str
    misfire: Misfire
    paused: bool
    next_at: datetime | None
    next_times: tuple[datetime, ...]
    last_run_id: str | None
    last_at: datetime | None
    created_at: datetime
    revision: int


@dataclass(frozen=True, slots=True)
class PromptView:
    """An open or past prompt; `waiting_runs` counts the parked runs that its answer will queue."""

    id: str
    account_id: str
    iam_id: str
    state: PromptState
    why: str
    waiting_runs: int
    opened_at: datetime
    closed_at: datetime | None


@dataclass(frozen=True, slots=True)
class OutputView:
    """Captured output of an attempt; `next_after` is the cursor for the part that follows."""

    text: str
    next_after: int
    truncated: bool
    finished: bool
