"""Every operation, once: generators that say what to send (protocol.py)."""

from __future__ import annotations

import uuid
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any, Final
from urllib.parse import quote

from taskcred.client import protocol
from taskcred.client.errors import WaitingForCredential, WaitTimeoutError
from taskcred.client.models import Begun, Event, Grant, Output, Run, understood
from taskcred.client.protocol import Operation, Pause, Request, ask
from taskcred.domain.runs import FINAL_STATES, RunState
from taskcred.domain.secret import Secret
from taskcred.errors import ConflictError, InvalidRequestError, KeyRefusedError, RequestError

UNTIL: Final[Collection[str]] = frozenset({RunState.QUEUED, RunState.RUNNING, *FINAL_STATES})
ENDED: Final[Collection[str]] = FINAL_STATES
_API_KEY_GRANT: Final = "urn:ibm:params:oauth:grant-type:apikey"
_BEHIND_IT_AN_EXCHANGE: Final = 30.0  # seconds: the server may have to ask the identity provider first
_FIRST_LOOK: Final = 0.5  # seconds between two looks at a run
_LAST_LOOK: Final = 5.0
_PAGE: Final = 100  # items; the server gives no more at once


def start_run(
    task: str,
    parameters: Mapping[str, Any] | None,
    *,
    subject_token: str | Secret | None,
    grant_id: str | None,
    reference: str,
    return_to: str,
    idempotency_key: str | None,
) -> Operation[Run]:
    """Start a run. A repetition on the way changes nothing: it carries an Idempotency-Key."""
    body: dict[str, Any] = {"task": task, "parameters": dict(parameters or {})}
    if reference:
        body["reference"] = reference
    if return_to:
        body["return_to"] = return_to
    if grant_id is not None:
        body["grant_id"] = grant_id
    if subject_token is not None:
        # The server verifies it: it says for whom, and that they are there.
        body["subject_token"] = subject_token.reveal() if isinstance(subject_token, Secret) else subject_token
    headers = {"Idempotency-Key": idempotency_key or str(uuid.uuid4())}
    return Run.of((yield from ask(Request("POST", "/v1/runs", body=body, headers=headers))).value)


def get_run(run_id: str) -> Operation[Run]:
    """The run as it is now."""
    return Run.of((yield from ask(Request("GET", _of_run(run_id)))).value)


def runs(state: str | None, limit: int) -> Operation[list[Run]]:
    """The latest runs, newest first; at most `limit`."""
    found: list[Run] = []
    query: dict[str, Any] = {} if state is None else {"state": state}
    while len(found) < limit:
        size = min(_PAGE, limit - len(found))
        answer = yield from ask(Request("GET", "/v1/runs", query={**query, "limit": size}))
        with understood():
            found += [Run.of(each) for each in answer.value["items"]]
            following = answer.value["next"]
        if following is None:
            break
        query["after"] = following
    return found


def output(run_id: str, after: int, attempt: int | None) -> Operation[Output]:
    """What there is to read after the cursor `after`, of one attempt: another that begins meanwhile has
    output and cursors of its own."""
    if attempt is None:
        run = yield from get_run(run_id)
        attempt = run.attempts_made
        if attempt == 0:
            return Output(text="", next_after=0, truncated=False, finished=run.is_final, attempt=0)
    text = ""
    while True:
        query = {"after": after, "attempt": attempt}
        answer = yield from ask(Request("GET", f"{_of_run(run_id)}/output", query=query))
        with understood():
            part = Output.of({**answer.value, "attempt": attempt})
        text += part.text
        if part.finished or part.next_after == after:
            return replace(part, text=text)
        after = part.next_after


def cancel_run(run_id: str) -> Operation[Run]:
    """End the run, or ask its executor to."""
    return Run.of((yield from ask(Request("POST", f"{_of_run(run_id)}/cancel"))).value)


def wait(run_id: str, until: Collection[str], timeout: float | None) -> Operation[Run]:
    """The run once it is in one of the states `until`. Raises WaitTimeoutError after `timeout` seconds.

    Looks often at first, then every few seconds; an unchanged run costs the server a 304.
    """
    end = None if timeout is None else protocol.now() + timeout
    pause, tag, run = _FIRST_LOOK, "", None
    while True:
        answer = yield from ask(
            Request("GET", _of_run(run_id), headers={"If-None-Match": tag} if tag else {})
        )
        if answer.status != 304:
            run, tag, pause = Run.of(answer.value), answer.headers.get("etag", ""), _FIRST_LOOK
        if run is not None and run.state in until:
            return run
        left = None if end is None else end - protocol.now()
        if left is not None and left <= 0:
            state = "unknown" if run is None else run.state
            raise WaitTimeoutError(
                f"The run is {state.replace('_', ' ')} after {timeout:g} s.",
                hint="Wait on, or cancel it.",
                action_url=run.prompt_url if run else None,
            )
        yield Pause(pause if left is None else min(pause, left))
        pause = min(pause * 1.5, _LAST_LOOK)


def begin_attempt(run_id: str, addresses: Sequence[str]) -> Operation[tuple[Run, Begun]]:
    """Begin an attempt. An earlier one that is live ends with it. Raises WaitingForCredential."""
    run = yield from get_run(run_id)
    body = {"addresses": list(addresses)} if addresses else {}
    # Safe to repeat: what a lost answer began ends with the repetition.
    request = Request("POST", f"{_of_run(run_id)}/attempts", body=body, timeout=_BEHIND_IT_AN_EXCHANGE)
    try:
        answer = yield from ask(request)
    except ConflictError as error:
        if error.error_code != WaitingForCredential.code:
            raise
        raise WaitingForCredential(error.action_url or run.prompt_url) from None
    return run, Begun.of(answer.value)


def heartbeat(run_id: str, attempt_id: str, news: Mapping[str, Any]) -> Operation[bool]:
    """Say that the attempt lives, and what is new; whether its end was asked for. Not repeated: the next
    one is due soon."""
    path = f"{_of_run(run_id)}/attempts/{attempt_id}/heartbeat"
    answer = yield from ask(Request("POST", path, body=dict(news)), patience=0)
    with understood():
        return bool(answer.value["cancel_requested"])


def end_attempt(
    run_id: str,
    attempt_id: str,
    said: Mapping[str, Any],
    unsent: Sequence[Mapping[str, Any]],
    patience: float,
) -> Operation[Run]:
    """End the attempt, after the `unsent` news. Raises ConflictError (code attempt_ended) where it was
    taken away before; saying the same twice is no conflict."""
    path = f"{_of_run(run_id)}/attempts/{attempt_id}"
    for news in unsent:
        with suppress(InvalidRequestError):  # news that cannot be told must not keep the end from being told
            yield from ask(Request("POST", f"{path}/heartbeat", body=dict(news)), patience)
    return Run.of((yield from ask(Request("POST", f"{path}/end", body=dict(said)), patience)).value)


def events(after: int | None, limit: int) -> Operation[list[Event]]:
    """What happened to this service's runs and grants, oldest first."""
    query = {"limit": limit} | ({} if after is None else {"after": after})
    answer = yield from ask(Request("GET", "/v1/events", query=query))
    with understood():
        return [Event.of(each) for each in answer.value["items"]]


def grants() -> Operation[list[Grant]]:
    """All grants that the caller may see."""
    found: list[Grant] = []
    query: dict[str, Any] = {"limit": _PAGE}
    while True:
        answer = yield from ask(Request("GET", "/v1/grants", query=query))
        with understood():
            found += [Grant.of(each) for each in answer.value["items"]]
            following = answer.value["next"]
        if following is None:
            return found
        query["after"] = following


def grant(grant_id: str) -> Operation[Grant]:
    """One grant."""
    return Grant.of((yield from ask(Request("GET", f"/v1/grants/{quote(grant_id, safe='')}"))).value)


def exchange(key: Secret, patience: float) -> Operation[tuple[Secret, float]]:
    """An access token for an API key or a stand-in key, and the seconds it is still good for, counted from
    before the request. Raises KeyRefusedError, which is final."""
    # The token endpoint is where the key belongs; nobody else is sent it.
    form = {"grant_type": _API_KEY_GRANT, "apikey": key.reveal()}
    request = Request("POST", "/identity/token", form=form, anonymous=True, timeout=_BEHIND_IT_AN_EXCHANGE)
    try:
        answer = yield from ask(request, patience)
    except RequestError as error:
        if error.status not in {400, 401, 403}:
            raise
        refusal = KeyRefusedError(
            f"The token endpoint refuses this key: {error.message}",
            hint="A stand-in key ends with its attempt: begin another. An API key of your own: check it.",
            action_url=error.action_url,
        )
        refusal.status = error.status
        raise refusal from None
    with understood():
        return Secret(answer.value["access_token"]), float(answer.value["expires_in"])


def _of_run(run_id: str) -> str:
    """Ids may come from a program's own users: they stay one part of the path."""
    return f"/v1/runs/{quote(run_id, safe='')}"
