"""The numbers services decide by, as plain values. `config` fills them; tests choose their own."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta


@dataclass(frozen=True, slots=True)
class TokenPolicy:
    """How access tokens are cached and handed out."""

    outage_grace: timedelta = timedelta(seconds=60)  # cached tokens of live runs outlive the database so long
    refresh_after: float = 0.8  # of a token's life; refreshed in the background from then on
    exchange_deadline: timedelta = timedelta(seconds=15)  # a single-flight lease lasts so long
    standin_rate: int = 50  # token requests per second for one stand-in key
    standin_burst: int = 200


@dataclass(frozen=True, slots=True)
class RunPolicy:
    """How runs are limited and kept."""

    attempt_silence: timedelta = timedelta(seconds=60)  # an attempt without a heartbeat is lost after this
    retention: timedelta = timedelta(days=30)  # what has ended is kept so long: runs, prompts, changes
    max_parked: int = 10_000  # waiting runs of one owner
    begin_within: timedelta = timedelta(days=7)  # a run that its service or owner begins no later fails
    again_within: timedelta = timedelta(days=7)  # a service tries a run again for so long, without a grant
    max_attempts: int = 100  # of one run, where its executor asks for them one after the other
    cancel_patience: timedelta = timedelta(minutes=5)  # how long their attempts may go on once told to end


@dataclass(frozen=True, slots=True)
class IntentPolicy:
    """How intents are driven."""

    lease: timedelta = timedelta(seconds=30)  # one advance of an intent takes less
    first_delay: timedelta = timedelta(seconds=1)
    max_delay: timedelta = timedelta(minutes=5)
    give_up_after: timedelta = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class SessionPolicy:
    """Life of a page session."""

    idle: timedelta = timedelta(minutes=30)
    longest: timedelta = timedelta(hours=12)


@dataclass(frozen=True, slots=True)
class NoticePolicy:
    """How owners are told."""

    repeat_prompt: timedelta = timedelta(days=1)
    mail: bool = False  # an SMTP server is configured
    webhook: bool = False  # a webhook is configured
    give_up_after: timedelta = timedelta(days=2)


@dataclass(frozen=True, slots=True)
class Policy:
    """All of them."""

    tokens: TokenPolicy = TokenPolicy()
    runs: RunPolicy = RunPolicy()
    intents: IntentPolicy = IntentPolicy()
    sessions: SessionPolicy = SessionPolicy()
    notices: NoticePolicy = NoticePolicy()
