"""What the server tells, as values. Members that a newer server adds are ignored."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Self

from taskcred.domain.runs import FINAL_STATES, RunState
from taskcred.domain.secret import Secret
from taskcred.errors import ConfigurationError


@contextlib.contextmanager
def understood() -> Iterator[None]:
    """Inside, an answer is taken apart that should be taskcred's."""
    try:
        yield
    except (AttributeError, KeyError, TypeError, ValueError):
        raise ConfigurationError(
            "The answer is not that of a taskcred server.",
            hint="Check the URL; or a proxy in between has answered.",
        ) from None


class _Told:
    """Made from a JSON object: members by name, instants from RFC 3339."""

    @classmethod
    def of(cls, told: Mapping[str, Any]) -> Self:
        """The value that `told` describes. Raises ConfigurationError where it describes none."""
        known = {each.name: each for each in dataclasses.fields(cls)}  # type: ignore[arg-type]  # subclasses are
        with understood():
            return cls(**{name: _value(known[name], value) for name, value in told.items() if name in known})


def _value(known: dataclasses.Field[Any], value: Any) -> Any:
    if value is not None and "datetime" in str(known.type):
        return datetime.fromisoformat(value)
    return tuple(value) if isinstance(value, list) else value


@dataclass(frozen=True, slots=True, kw_only=True)
class Run(_Told):
    """One execution of a task for an owner. `prompt_url` is where its owner answers while it is waiting for
    a credential; `executor` is "worker", "service" or "owner"; `reference` is what the service calls it."""

    id: str
    task: str
    state: str
    reason: str = ""
    parameters: Mapping[str, Any] = field(default_factory=dict)
    executor: str = "worker"
    prompt_id: str | None = None
    prompt_url: str | None = None
    account_id: str = ""
    iam_id: str = ""
    acting_iam_id: str = ""
    service_id: str | None = None
    grant_id: str | None = None
    reference: str = ""
    schedule_id: str | None = None
    attempts_made: int = 0
    progress_done: int | None = None
    progress_total: int | None = None
    progress_text: str = ""
    exit_code: int | None = None
    cancel_requested_at: datetime | None = None
    created_at: datetime | None = None
    queued_at: datetime | None = None
    started_at: datetime | None = None
    ended_at: datetime | None = None

    @property
    def is_final(self) -> bool:
        """Whether it has ended: succeeded, failed or cancelled."""
        return self.state in FINAL_STATES

    @property
    def is_waiting(self) -> bool:
        """Whether it is parked until its owner answers the prompt."""
        return self.state == RunState.WAITING_FOR_CREDENTIAL


@dataclass(frozen=True, slots=True, kw_only=True)
class Output(_Told):
    """What attempt number `attempt` printed (0: there is none yet). `next_after` is the cursor for what
    follows, unless it is `finished`; where `truncated`, more was printed than the server keeps."""

    text: str
    next_after: int
    truncated: bool
    finished: bool
    attempt: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Begun(_Told):
    """An attempt that has begun, with the one telling of its stand-in key. A heartbeat is due every
    `heartbeat_seconds`; after `silence_seconds` without one the server ends the attempt. `sdk_services` are
    those of IBM's SDKs that the task names."""

    attempt_id: str
    number: int
    stand_in_key: Secret
    heartbeat_seconds: float = 10.0
    silence_seconds: float = 60.0
    sdk_services: tuple[str, ...] = ()

    @classmethod
    def of(cls, told: Mapping[str, Any]) -> Self:
        """As above; the key becomes a `Secret`."""
        with understood():
            services = told.get("sdk", {}).get("services", [])
            key = Secret(told["stand_in_key"])
        return super(Begun, cls).of({**told, "stand_in_key": key, "sdk_services": services})

    def kept(self) -> dict[str, Any]:
        """What `of` makes the same value of, in another process; as secret as the key."""
        return {
            "attempt_id": self.attempt_id,
            "number": self.number,
            "stand_in_key": self.stand_in_key.reveal(),  # whoever goes on with the attempt needs it
            "heartbeat_seconds": self.heartbeat_seconds,
            "silence_seconds": self.silence_seconds,
            "sdk": {"services": list(self.sdk_services)},
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant(_Told):
    """An owner's standing consent that this service may start runs of `tasks` until `expires_at`.
    `state` is "active", "ended" or "expired"."""

    id: str
    state: str
    service_id: str
    service_name: str = ""
    service_title: str = ""
    account_id: str
    iam_id: str
    acting_iam_id: str = ""
    tasks: tuple[str, ...] = ()
    created_at: datetime | None = None
    expires_at: datetime | None = None
    last_used_at: datetime | None = None
    ended_at: datetime | None = None
    end_reason: str | None = None

    @property
    def is_active(self) -> bool:
        """Whether runs may be started under it."""
        return self.state == "active"


@dataclass(frozen=True, slots=True, kw_only=True)
class Event(_Told):
    """Something that happened to a run or grant of this service. `id` is the cursor for what follows; the
    webhook told of the same event has `webhook_id`."""

    id: int
    webhook_id: str = ""
    type: str
    data: Mapping[str, Any] = field(default_factory=dict)
    timestamp: datetime | None = None
