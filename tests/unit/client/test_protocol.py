"""Operations, driven by hand: what is repeated, after which pauses, and what is not."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from taskcred.client import errors, operations, protocol
from taskcred.client.protocol import NOTHING, Pause, Request, Response, ask
from taskcred.domain.secret import Secret
from taskcred.errors import ConfigurationError, UnavailableError

GET = Request("GET", "/x")


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(protocol, "now", clock)
    return clock


def answer(status: int, body: Any = None, **headers: str) -> Response:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Response(status, named, b"" if body is None else json.dumps(body).encode())


def drive(
    operation: protocol.Operation[Any], answers: Iterator[Response | Exception], clock: Clock
) -> tuple[Any, list[Request], list[float]]:
    """What it returns, what it sent, and how long it paused each time."""
    sent: list[Request] = []
    pauses: list[float] = []
    step = next(operation)
    while True:
        try:
            if isinstance(step, Pause):
                clock.now += step.seconds
                pauses.append(step.seconds)
                step = operation.send(NOTHING)
                continue
            sent.append(step)
            given = next(answers)
            step = operation.throw(given) if isinstance(given, Exception) else operation.send(given)
        except StopIteration as end:
            return end.value, sent, pauses


@pytest.mark.promise("never-interrupted")
@pytest.mark.parametrize(
    "passing", [UnavailableError("away"), answer(502), answer(503), answer(504), answer(429)]
)
def test_what_may_pass_is_tried_again(passing: Response | Exception, clock: Clock) -> None:
    got, sent, pauses = drive(ask(GET), iter([passing, passing, answer(200, 1)]), clock)
    assert got.value == 1
    assert sent == [GET] * 3
    assert all(0 < pause <= 6 for pause in pauses)


def test_pauses_grow_differ_and_wait_for_the_server(clock: Clock) -> None:
    ranges = [[protocol.pause_after(failures, None) for _ in range(50)] for failures in range(8)]
    assert all(len(set(each)) > 40 for each in ranges)
    assert [max(each) <= top for each, top in zip(ranges, [0.25, 0.5, 1, 2, 4, 5, 5, 5], strict=True)] == [
        True
    ] * 8
    assert min(ranges[7]) >= 2.5
    _, _, pauses = drive(ask(GET), iter([answer(503, retry_after="7"), answer(200)]), clock)
    assert 7 < pauses[0] < 8


def test_patience_ends_with_the_error(clock: Clock) -> None:
    with pytest.raises(errors.UnavailableError) as refused:
        drive(
            ask(GET, patience=5),
            iter([answer(503, {"detail": "Sealed.", "code": "vault_sealed"})] * 99),
            clock,
        )
    assert clock.now <= 5
    assert (refused.value.error_code, refused.value.status) == ("vault_sealed", 503)
    with pytest.raises(errors.RateLimitedError) as slow:
        drive(ask(GET, patience=5), iter([answer(429, retry_after="60")]), clock)
    assert slow.value.retry_after == 60


@pytest.mark.parametrize("final", [400, 401, 403, 404, 409, 412, 422, 500])
def test_what_stays_is_not_tried_again(final: int, clock: Clock) -> None:
    with pytest.raises(errors.TaskcredError) as refused:
        drive(
            ask(GET),
            iter([answer(final, {"detail": "No.", "hint": "So.", "action_url": "https://a/"})]),
            clock,
        )
    error = refused.value
    assert (error.status, error.message, error.hint, error.action_url) == (final, "No.", "So.", "https://a/")


@pytest.mark.parametrize(
    "strange",
    [
        Response(200, {}, b"<html>"),
        Response(200, {}, b"[]"),
        answer(200, {"id": "r"}),
        answer(302, None, location="https://b/"),
    ],
)
def test_what_is_no_answer_of_ours_is_said(strange: Response, clock: Clock) -> None:
    for operation in (
        operations.get_run("r"),
        operations.heartbeat("r", "a", {}),
        operations.events(None, 1),
        operations.grants(),
        operations.runs(None, 1),
        operations.output("r", 0, 1),
        operations.exchange(Secret("k"), 1),
    ):
        with pytest.raises(errors.ConfigurationError) as refused:
            drive(operation, iter([strange]), clock)
        assert "URL" in refused.value.hint


@pytest.mark.parametrize("status", [401, 404, 418, 500, 502])
def test_a_refusal_by_somebody_else_has_a_hint_too(status: int, clock: Clock) -> None:
    with pytest.raises(errors.TaskcredError) as refused:
        drive(ask(GET, patience=0), iter([Response(status, {}, b"<html>")]), clock)
    assert refused.value.message == f"/x answered {status}."
    assert refused.value.hint


@pytest.mark.parametrize(
    "strange",
    [
        answer(400, {"code": ["a"], "detail": "No."}),
        answer(400, {"detail": {"a": 1}}),
        answer(400, {"status_code": 400, "errors": ["a"]}),
        answer(400, {"status_code": 400, "errors": {"a": 1}}),
        answer(400, {"errorMessage": 1}),
        answer(400, {}, retry_after="\u00b2"),
    ],
)
def test_a_refusal_of_a_strange_shape_is_an_error_of_ours(strange: Response, clock: Clock) -> None:
    with pytest.raises(errors.InvalidRequestError) as refused:
        drive(ask(GET), iter([strange]), clock)
    assert refused.value.message == "/x answered 400."
    assert refused.value.retry_after is None


def test_a_certificate_that_is_not_trusted_is_not_tried_again(clock: Clock) -> None:
    with pytest.raises(errors.ConfigurationError):
        drive(ask(GET), iter([ConfigurationError("not trusted")]), clock)


def test_a_start_under_way_is_waited_for(clock: Clock) -> None:
    busy = answer(409, {"code": "idempotency_in_progress", "detail": "Under way."})
    run = answer(201, {"id": "r", "task": "t", "state": "queued", "unheard_of": 1})
    start = operations.start_run(
        "t", None, subject_token=Secret("s"), grant_id=None, reference="", return_to="", idempotency_key=None
    )
    got, sent, _ = drive(start, iter([busy, run]), clock)
    assert got.id == "r"
    keys = {request.headers["Idempotency-Key"] for request in sent}
    assert len(keys) == 1
    assert "s" in sent[0].body.values()
    assert "'s'" not in repr(sent[0])


def test_waiting_polls_with_the_etag_ever_more_rarely(clock: Clock) -> None:
    def run(state: str) -> Response:
        return answer(200, {"id": "r", "task": "t", "state": state}, etag='"1"')

    unchanged = [answer(304)] * 20
    got, sent, pauses = drive(
        operations.wait("r", {"queued"}, None),
        iter([run("waiting_for_credential"), *unchanged, run("queued")]),
        clock,
    )
    assert got.state == "queued"
    assert not sent[0].headers
    assert all(request.headers == {"If-None-Match": '"1"'} for request in sent[1:])
    assert pauses == sorted(pauses)
    assert (pauses[0], pauses[-1]) == (0.5, 5.0)


def test_waiting_ends_in_time(clock: Clock) -> None:
    waiting = {"id": "r", "task": "t", "state": "waiting_for_credential", "prompt_url": "https://p/"}
    with pytest.raises(errors.WaitTimeoutError) as late:
        drive(operations.wait("r", {"queued"}, 3), iter([answer(200, waiting)] * 99), clock)
    assert clock.now == 3
    assert late.value.action_url == "https://p/"


def test_the_latest_runs_are_listed_page_by_page_up_to_a_limit(clock: Clock) -> None:
    def page(number: int, following: str | None) -> Response:
        items = [{"id": "r", "task": "t", "state": "queued"}] * number
        return answer(200, {"items": items, "next": following})

    got, sent, _ = drive(operations.runs("queued", 150), iter([page(100, "c"), page(50, "d")]), clock)
    assert len(got) == 150
    assert [request.query["limit"] for request in sent] == [100, 50]
    assert {request.query["state"] for request in sent} == {"queued"}
    assert sent[1].query["after"] == "c"
    assert len(drive(operations.runs(None, 9), iter([page(3, None)]), clock)[0]) == 3


def test_output_is_read_to_its_end_of_one_attempt(clock: Clock) -> None:
    def part(text: str, next_after: int, *, finished: bool = False) -> Response:
        told = {"text": text, "next_after": next_after, "truncated": False, "finished": finished}
        return answer(200, told)

    run = answer(200, {"id": "r", "task": "t", "state": "running", "attempts_made": 2})
    got, sent, _ = drive(
        operations.output("r", 0, None), iter([run, part("a", 4), part("b", 5), part("", 5)]), clock
    )
    assert (got.text, got.next_after, got.attempt, got.finished) == ("ab", 5, 2, False)
    assert [request.query for request in sent[1:]] == [{"after": after, "attempt": 2} for after in (0, 4, 5)]
    got, sent, _ = drive(operations.output("r", 5, 2), iter([part("c", 6, finished=True)]), clock)
    assert (got.text, got.finished) == ("c", True)
    assert len(sent) == 1


def test_a_run_without_an_attempt_has_printed_nothing(clock: Clock) -> None:
    for state, finished in (("queued", False), ("cancelled", True)):
        run = answer(200, {"id": "r", "task": "t", "state": state, "attempts_made": 0})
        got, _, _ = drive(operations.output("r", 0, None), iter([run]), clock)
        assert (got.text, got.attempt, got.finished) == ("", 0, finished)


@pytest.mark.parametrize("status", [400, 401, 403])
def test_a_refused_key_is_final_whatever_the_providers_words(status: int, clock: Clock) -> None:
    body = {"errorCode": "BXNIM0415E", "errorMessage": "Provided API key could not be found."}
    with pytest.raises(errors.KeyRefusedError) as refused:
        drive(operations.exchange(Secret("k"), 20), iter([answer(status, body)]), clock)
    assert "could not be found" in refused.value.message
    assert refused.value.error_code == "key_refused"


def test_ids_stay_one_part_of_the_path(clock: Clock) -> None:
    run = answer(200, {"id": "r", "task": "t", "state": "queued"})
    _, sent, _ = drive(operations.get_run("../grants?x"), iter([run]), clock)
    assert sent[0].path == "/v1/runs/..%2Fgrants%3Fx"


def test_reprs_hold_no_secret() -> None:
    secret = "a-secret-text"
    shown: list[Callable[[], object]] = [
        lambda: Request("POST", "/x", form={"apikey": secret}),
        lambda: Request("POST", "/x", body={"subject_token": secret}),
        lambda: Response(200, {"set-cookie": secret}, secret.encode()),
    ]
    assert all(secret not in repr(make()) for make in shown)


@pytest.mark.promise("never-interrupted")
def test_news_that_are_refused_do_not_keep_the_end_from_being_told(clock: Clock) -> None:
    run = answer(200, {"id": "r", "task": "t", "state": "succeeded"})
    end = operations.end_attempt("r", "a", {"outcome": "succeeded"}, [{"output": "x"}, {}], 20)
    ended, sent, _ = drive(end, iter([answer(400, {"detail": "No."}), answer(200, {}), run]), clock)
    assert ended.state == "succeeded"
    assert [each.path.rpartition("/")[2] for each in sent] == ["heartbeat", "heartbeat", "end"]
