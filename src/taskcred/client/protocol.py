"""What an operation says to whoever drives it: requests to send and pauses to make.

An operation is a generator. It yields a `Request` and receives the `Response`, or yields a `Pause` and
receives NOTHING; what cannot be answered is thrown into it as an error of the tree. So each operation is
written once, and runs blocking or in an event loop (drivers.py).
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

from taskcred.client.errors import error_of
from taskcred.errors import TaskcredError, UnavailableError

T = TypeVar("T")

PATIENCE: Final = 20.0  # seconds over which a request is repeated while what refuses it may pass
_FIRST_PAUSE: Final = 0.25
_LONGEST_PAUSE: Final = 5.0


@dataclass(frozen=True, slots=True)
class Request:
    """One request. `form` and `body` (JSON) exclude each other and may hold a secret; an `anonymous` one
    goes without the client's own credentials. `timeout` is the least number of seconds to wait for the answer."""

    method: str
    path: str
    query: Mapping[str, Any] = field(default_factory=dict)
    body: Any = field(default=None, repr=False)
    form: Mapping[str, str] | None = field(default=None, repr=False)
    headers: Mapping[str, str] = field(default_factory=dict)
    anonymous: bool = False
    timeout: float = 0.0


@dataclass(frozen=True, slots=True)
class Response:
    """The answer. Header names are in lower case."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    content: bytes = field(default=b"", repr=False)

    @property
    def value(self) -> Any:
        """The JSON value; None where there is none."""
        try:
            return json.loads(self.content) if self.content else None
        except ValueError:
            return None


@dataclass(frozen=True, slots=True)
class Pause:
    """Do nothing for this many seconds."""

    seconds: float


NOTHING: Final = Response(0)

Step = Request | Pause
Operation = Generator[Step, Response, T]


def now() -> float:
    """Seconds that never go back, for ages. On Linux they count while the machine sleeps, as tokens do."""
    return time.clock_gettime(_CLOCK)


_CLOCK: Final[int] = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def ask(request: Request, patience: float = PATIENCE) -> Operation[Response]:
    """The answer to `request`, which must be safe to repeat: it is, for up to `patience` seconds, while
    there is no answer or one that says "later". Raises an error of the tree for every refusal."""
    end = now() + patience
    failures = 0
    while True:
        try:
            answer = yield request
        except UnavailableError as problem:
            error: TaskcredError = problem
        else:
            if 200 <= answer.status < 300 or answer.status == 304:
                return answer
            error = error_of(answer.status, answer.headers, answer.value, request.path)
        if error.retry != "later" and error.error_code != "idempotency_in_progress":
            raise error
        wait = pause_after(failures, error.retry_after)
        if now() + wait > end:
            raise error
        failures += 1
        yield Pause(wait)


def pause_after(failures: int, retry_after: int | None) -> float:
    """Seconds before trying again after `failures` earlier ones: doubling, at least what the server asked
    for, and never the same for two clients, so that they do not come back all at once."""
    backoff: float = min(_FIRST_PAUSE * 2 ** min(failures, 10), _LONGEST_PAUSE)
    spread: float = random.uniform(0.5, 1.0)  # noqa: S311 - spreads load, protects nothing
    return (retry_after or 0) + backoff * spread
