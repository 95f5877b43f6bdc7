"""http tasks: the worker itself makes the request, with the owner's access token."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from typing import Any

import pytest

from taskcred.domain.runs import RunState
from tests.support.jobs import Environ, JobsHost

VALUES = {
    "type": "object",
    "properties": {"n": {"type": "integer"}, "text": {"type": "string", "default": "d"}},
}


def http(path: str, **more: Any) -> dict[str, Any]:
    return {"kind": "http", "url": f"SERVER{path}", "parameters": VALUES, **more}


@pytest.fixture(scope="module")
def host(make_host: Callable[..., JobsHost]) -> JobsHost:
    host = make_host(
        {
            "post": http("/hook?from=task"),
            "get": http("/hook?from=task", method="GET"),
            "error": http("/error"),
            "moved": http("/moved"),
            "echo": http("/echo"),
            "big": http("/big", output_limit=67_108_864),
            "hangs": http("/hangs", timeout=1),
            "waits": http("/hangs"),
            "nowhere": {"kind": "http", "url": "http://127.0.0.1:9/", "parameters": VALUES},
            "metadata": {"kind": "http", "url": "http://169.254.169.254:80/"},
        },
        {"http_allow": ["127.0.0.1:9", "169.254.169.254:80"]},
    )
    host.released = threading.Event()

    def serve(environ: Environ) -> tuple[str, Any]:
        match environ["PATH_INFO"]:
            case "/error":
                return "500 Internal Server Error", {"sorry": True}
            case "/moved":
                return "302 Found", {}
            case "/echo":
                return "200 OK", environ["HTTP_AUTHORIZATION"].encode()
            case "/big":
                return "200 OK", b"x" * 5_000_000
            case "/hangs":
                host.released.wait(20)
        return "200 OK", {"fine": True}

    host.serve = serve  # type: ignore[method-assign]  # that is what it is for
    host.start_worker()
    return host


def test_parameters_are_the_body_and_the_token_is_the_owners(host: JobsHost) -> None:
    run = host.wait(host.start("post", n=3))
    assert run.state is RunState.SUCCEEDED, host.log()
    request = host.requests[-1]
    assert request["REQUEST_METHOD"] == "POST"
    assert json.loads(request["body"]) == {"n": 3, "text": "d"}
    assert request["HTTP_AUTHORIZATION"] == f"Bearer {host.access_token}"
    assert host.output(run.id).text == 'HTTP 200\n{"fine": true}'


def test_without_a_body_parameters_join_the_query(host: JobsHost) -> None:
    host.wait(host.start("get", n=3))
    assert host.requests[-1]["QUERY_STRING"] == "from=task&n=3&text=d"


def test_an_answer_that_is_no_success_fails_the_run(host: JobsHost) -> None:
    run = host.wait(host.start("error"))
    assert (run.state, run.reason) == (RunState.FAILED, "127.0.0.1 answered 500.")
    assert host.output(run.id).text.startswith("HTTP 500\n")


def test_a_redirect_is_not_followed(host: JobsHost) -> None:
    before = len(host.requests)
    run = host.wait(host.start("moved"))
    assert run.state is RunState.FAILED
    assert "not followed" in run.reason
    assert len(host.requests) == before + 1


@pytest.mark.promise("key-stays-home")
def test_a_token_that_comes_back_is_masked_and_never_logged(host: JobsHost) -> None:
    run = host.wait(host.start("echo"))
    assert host.output(run.id).text == "HTTP 200\nBearer ********"
    assert host.access_token not in host.log()


def test_only_so_much_of_an_answer_is_read(host: JobsHost) -> None:
    run = host.wait(host.start("big"))
    assert run.state is RunState.SUCCEEDED
    with host.ctx.store.read() as connection:
        kept = connection.exec_driver_sql("select max(output_bytes) from attempts").scalar_one()
    assert kept == len("HTTP 200\n") + 1_048_576


def test_a_service_that_hangs_is_given_up(host: JobsHost) -> None:
    run = host.wait(host.start("hangs"))
    assert run.state is RunState.FAILED
    assert [attempt.outcome for attempt in host.attempts(run.id)] == ["timed_out"]


def test_a_waiting_request_can_be_cancelled(host: JobsHost) -> None:
    run_id = host.start("waits")
    host.wait(run_id, [RunState.RUNNING])
    host.cancel(run_id)
    assert host.wait(run_id).state is RunState.CANCELLED
    host.released.set()


def test_a_service_that_is_not_there_fails_the_run(host: JobsHost) -> None:
    run = host.wait(host.start("nowhere"))
    assert (run.state, run.reason) == (RunState.FAILED, "127.0.0.1: ConnectError.")


def test_cloud_metadata_is_never_called_even_where_somebody_listed_it(host: JobsHost) -> None:
    run = host.wait(host.start("metadata"))
    assert run.state is RunState.FAILED
    assert "may not call" in run.reason
