"""SIGHUP replaces web and keeper under load: no request is refused, none is cut."""

from __future__ import annotations

import threading
from collections.abc import Callable

import httpx
import pytest

from tests.support.server import Server, eventually


@pytest.mark.promise("never-interrupted")
def test_no_request_is_refused_or_cut_while_web_is_replaced(start_server: Callable[..., Server]) -> None:
    server = start_server()
    stop = threading.Event()
    failures: list[str] = []
    answered = [0] * 16

    def use(number: int) -> None:
        with server.client() as client:  # keep-alive, as IBM's SDKs do
            while not stop.is_set():
                try:
                    answer = client.get("/healthz")
                    if answer.status_code != 200:
                        failures.append(str(answer.status_code))
                except httpx.TransportError as error:
                    failures.append(repr(error))
                answered[number] += 1

    threads = [threading.Thread(target=use, args=(number,)) for number in range(len(answered))]
    for thread in threads:
        thread.start()
    for _ in range(2):
        web, keeper = server.role("web"), server.role("keeper")
        server.hang_up()
        eventually(lambda: server.role("web") not in {web, None}, "a new web serves")  # noqa: B023 - called at once
        eventually(lambda: server.role("keeper") not in {keeper, None}, "a new keeper runs")  # noqa: B023 - called at once
        before = sum(answered)
        eventually(lambda: sum(answered) > before + 200, "requests go on")  # noqa: B023 - called at once
    stop.set()
    for thread in threads:
        thread.join()
    assert failures == []
