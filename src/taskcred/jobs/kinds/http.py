"""http: one request, made by the worker itself, with an access token of the owner as bearer.

Where it may go is the administrator's list `jobs.http_allow`, matched by name and again by address:

- "host" allows that host on the default port of the scheme, and only where its name resolves to public
  addresses. Somebody who controls the name's DNS cannot point it into the network taskcred runs in.
- "host:port" allows that very port and, being explicit, private and loopback addresses too.

`services.outbound` says which addresses are never called. Redirects are not followed: they would
carry the token elsewhere. Parameters are the JSON body, for GET and DELETE the query.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final
from urllib.parse import urlsplit

import httpx

from taskcred.domain.runs import AttemptOutcome
from taskcred.domain.secret import Secret
from taskcred.domain.tasks import Task
from taskcred.jobs.kinds.command import with_defaults
from taskcred.services import outbound
from taskcred.services.outbound import DEFAULT_PORTS

_MOST: Final = 1_048_576  # bytes of an answer that are read; the rest is not
_CONNECT: Final = 10.0  # seconds


@dataclass(frozen=True, slots=True)
class Answer:
    """How the request ended: outcome, a sentence for the owner (empty on success), text for the output."""

    outcome: AttemptOutcome
    reason: str
    output: bytes


@dataclass(frozen=True, slots=True)
class _Target:
    scheme: str
    host: str
    port: int
    explicit: bool  # the list names the port, so private addresses are meant


def refuse_url(url: str, allow: tuple[str, ...]) -> tuple[str, str] | None:
    """Why `url` may not be called, as (what, cure); None where it may."""
    target = _target(url, allow)
    return target if isinstance(target, tuple) else None


def _target(url: str, allow: tuple[str, ...]) -> _Target | tuple[str, str]:
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return "is not a URL", "Write https://host/path."
    if parts.scheme not in DEFAULT_PORTS or not parts.hostname:
        return "is not an http(s) URL", "Write https://host/path."
    if parts.username is not None or parts.fragment:
        return "has user information or a fragment", "Write https://host/path; the token is sent by itself."
    host = parts.hostname.lower().rstrip(".")
    shown = f"[{host}]" if ":" in host else host
    chosen = port or DEFAULT_PORTS[parts.scheme]
    entries = {entry.lower() for entry in allow}
    if f"{shown}:{chosen}" in entries:
        return _Target(parts.scheme, host, chosen, explicit=True)
    if shown in entries and chosen == DEFAULT_PORTS[parts.scheme]:
        return _Target(parts.scheme, host, chosen, explicit=False)
    return f"calls {shown}:{chosen}, which jobs.http_allow does not list", f'Add "{shown}:{chosen}" to it.'


def perform(
    task: Task,
    parameters: Mapping[str, Any],
    bearer: Callable[[], Secret],
    allow: tuple[str, ...],
    *,
    is_cancelled: Callable[[], bool],
) -> Answer | None:
    """Make the request; None where `is_cancelled` said so first. `bearer` fetches the access token.

    A request that is given up goes on in its thread until its socket's time-out; its answer is dropped.
    """
    answers: list[Answer] = []
    thread = threading.Thread(
        target=lambda: answers.append(_perform(task, parameters, bearer, allow)),
        name=f"http-task-{task.name}",
        daemon=True,
    )
    thread.start()
    while thread.is_alive():
        thread.join(0.1)
        if is_cancelled():
            return None
    if not answers:
        return Answer(AttemptOutcome.FAILED, "The request could not be made.", b"")
    return answers[0]


def _perform(
    task: Task, parameters: Mapping[str, Any], bearer: Callable[[], Secret], allow: tuple[str, ...]
) -> Answer:
    target = _target(task.url, allow)
    if isinstance(target, tuple):
        return Answer(AttemptOutcome.FAILED, f"The task's URL {target[0]}.", b"")
    try:
        addresses = outbound.addresses(target.host, target.port, explicit=target.explicit)
    except OSError:
        return Answer(AttemptOutcome.FAILED, f"The name {target.host} does not resolve.", b"")
    if not addresses:
        return Answer(
            AttemptOutcome.FAILED,
            f"{target.host} resolves to addresses that http tasks may not call.",
            b"jobs.http_allow: a private address needs an entry with its port.\n",
        )
    try:
        token = bearer()
        return _send(task, with_defaults(task, parameters), target, addresses[0], token)
    except httpx.TimeoutException:
        return Answer(AttemptOutcome.TIMED_OUT, f"{target.host} did not answer in time.", b"")
    except httpx.HTTPError as error:
        return Answer(AttemptOutcome.FAILED, f"{target.host}: {type(error).__name__}.", b"")


def _send(task: Task, values: Mapping[str, Any], target: _Target, address: str, token: Secret) -> Answer:
    pinned = outbound.pinned(task.url, target.host, target.port, address)
    in_query = task.method in ("GET", "DELETE")
    seconds = min(task.timeout, timedelta(hours=1)).total_seconds()
    with (
        # No proxy from the environment: it would connect to an address nobody checked.
        httpx.Client(trust_env=False, timeout=httpx.Timeout(seconds, connect=_CONNECT)) as client,
        client.stream(
            task.method,
            pinned.url,
            params=httpx.QueryParams(urlsplit(task.url).query).merge(_query(values)) if in_query else None,
            json=None if in_query else dict(values),
            # The service called needs the token: that is what the task is for.
            headers={**pinned.headers, "Authorization": f"Bearer {token.reveal()}"},
            extensions=pinned.extensions,
        ) as response,
    ):
        body = bytearray()
        for chunk in response.iter_raw(65_536):
            body += chunk[: _MOST - len(body)]
            if len(body) >= _MOST:
                break
    # The service may send back what it got.
    shown = bytes(body).replace(token.reveal().encode(), b"********")
    output = f"HTTP {response.status_code}\n".encode() + shown
    if response.is_success:
        return Answer(AttemptOutcome.SUCCEEDED, "", output)
    if response.is_redirect:
        reason = f"{target.host} answered with a redirect ({response.status_code}), which is not followed."
        return Answer(AttemptOutcome.FAILED, reason, output)
    return Answer(AttemptOutcome.FAILED, f"{target.host} answered {response.status_code}.", output)


def _query(values: Mapping[str, Any]) -> dict[str, str]:
    return {
        name: value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        for name, value in values.items()
    }
