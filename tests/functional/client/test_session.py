"""A session against the real token endpoint: one request for all, through expiry, outages and forks."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
import requests
from ibm_platform_services import IamIdentityV1

from taskcred.client import TaskSession, errors, protocol
from tests.functional.client.conftest import in_new_loop
from tests.support.proxy import Proxy
from tests.support.server import Person, Server, eventually

TOKEN = "/identity/token"
THREADS = 1000


class Clock:
    """The client's clock, ahead by as much as a test says."""

    def __init__(self) -> None:
        self.ahead = 0.0
        self._real = protocol.now

    def __call__(self) -> float:
        return self._real() + self.ahead


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(protocol, "now", clock)
    return clock


@pytest.fixture
def session(proxy: Proxy, person: Person) -> TaskSession:
    assert person.api_key is not None
    return TaskSession(proxy.url, person.api_key)


def age(session: TaskSession, share: float, clock: Clock) -> None:
    """Let the held token be as old as this share of its life."""
    held = session._held
    assert held is not None
    life = (held.ends_at - held.refresh_at) / 0.2
    clock.ahead += held.ends_at - (1 - share) * life - protocol.now()


@pytest.mark.promise("never-interrupted")
def test_a_thousand_threads_at_a_tokens_end_make_one_request(
    session: TaskSession, proxy: Proxy, clock: Clock
) -> None:
    first = session.token()
    assert proxy.count(TOKEN) == 1
    age(session, 1.0, clock)
    time.sleep(1.1)  # the server's tokens differ by their second
    proxy.open.clear()  # the request is under way until every thread has asked
    barrier = threading.Barrier(THREADS + 1)
    tokens: list[str] = []

    def ask() -> None:
        barrier.wait()
        tokens.append(session.token())

    threads = [threading.Thread(target=ask) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    barrier.wait()
    eventually(lambda: proxy.count(TOKEN) == 2, "the request is under way")
    proxy.open.set()
    for thread in threads:
        thread.join()
    assert proxy.count(TOKEN) == 2
    assert len(tokens) == THREADS
    assert set(tokens) == {session.token()} != {first}


def test_threads_and_tasks_share_the_request(session: TaskSession, proxy: Proxy) -> None:
    async def ask() -> list[str]:
        return await asyncio.gather(*(session.token_async() for _ in range(100)))

    proxy.open.clear()
    with ThreadPoolExecutor(9) as pool:
        loop = pool.submit(asyncio.run, ask())
        others = [pool.submit(session.token) for _ in range(8)]
        eventually(lambda: proxy.count(TOKEN) == 1, "the request is under way")
        proxy.open.set()
        assert {*loop.result(), *(other.result() for other in others)} == {session.token()}
    assert proxy.count(TOKEN) == 1


@pytest.mark.promise("never-interrupted")
def test_nobody_waits_for_a_refresh_while_the_token_is_good(
    session: TaskSession, proxy: Proxy, clock: Clock
) -> None:
    old = session.token()
    age(session, 0.79, clock)
    assert session.token() == old
    assert proxy.count(TOKEN) == 1  # not yet due
    age(session, 0.81, clock)
    proxy.open.clear()
    assert [session.token() for _ in range(50)] == [old] * 50
    eventually(lambda: proxy.count(TOKEN) == 2, "one refresh is under way")
    time.sleep(1.1)  # the server's tokens differ by their second
    proxy.open.set()
    eventually(lambda: session.token() != old, "the fresh token")
    assert proxy.count(TOKEN) == 2


@pytest.mark.promise("never-interrupted")
def test_a_token_serves_through_an_outage_until_it_ends(
    session: TaskSession, proxy: Proxy, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(protocol, "PATIENCE", 0.5)
    old = session.token()
    with proxy.away():
        age(session, 0.9, clock)
        assert session.token() == old
        eventually(lambda: proxy.count(TOKEN) >= 2, "it is tried")
        assert session.token() == old
        clock.ahead += 10_000
        with pytest.raises(errors.UnavailableError) as refused:
            session.token()
    assert refused.value.hint
    assert session.token()  # and when the server is back, so are we


def test_the_server_says_when_to_come_back(session: TaskSession, proxy: Proxy) -> None:
    proxy.script.extend([(503, {"Retry-After": "1"}), (429, {"Retry-After": "1"})])
    began = time.monotonic()
    assert session.token()
    assert time.monotonic() - began >= 2
    assert proxy.count(TOKEN) == 3


def test_a_refusal_is_final_and_typed(proxy: Proxy, person: Person) -> None:
    session = TaskSession(proxy.url, f"{person.api_key}x")
    for _ in range(3):
        with pytest.raises(errors.KeyRefusedError) as refused:
            session.token()
    assert (refused.value.status, refused.value.error_code) == (400, "key_refused")
    assert str(person.api_key) not in f"{refused.value}{refused.value.hint}{session!r}"
    assert proxy.count(TOKEN) == 1


FORKS = """
import os, sys, threading
from taskcred.client import TaskSession, protocol

session = TaskSession(sys.argv[1], os.environ["KEY"])
first = session.token()
session._lock.acquire()            # as another thread may hold it at the moment of the fork
pool = session._driver._http
child = os.fork()
if child == 0:
    assert session._driver._http is None
    assert session.token() == first
    real = protocol.now
    protocol.now = lambda: real() + 100_000
    assert session.token()
    assert session._driver._http is not pool
    os._exit(0)
session._lock.release()
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
real = protocol.now
protocol.now = lambda: real() + 100_000
assert session.token()
assert session._driver._http is pool
"""


def test_after_a_fork_both_processes_are_fresh(proxy: Proxy, person: Person) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", FORKS, proxy.url],
        env=os.environ | {"KEY": str(person.api_key)},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert proxy.count(TOKEN) == 3


def test_the_libraries_people_use_take_a_session(
    session: TaskSession, proxy: Proxy, server: Server, person: Person
) -> None:
    url = f"{server.url}/v1/apikeys/details"
    headers = {"IAM-ApiKey": str(person.api_key)}

    async def by_httpx() -> httpx.Response:
        async with httpx.AsyncClient(auth=session.httpx_auth()) as client:
            return await client.get(url, headers=headers)

    with httpx.Client(auth=session.httpx_auth()) as client:
        answers = [client.get(url, headers=headers), in_new_loop(by_httpx())]
    assert [answer.status_code for answer in answers] == [200, 200]
    assert requests.get(url, headers=headers, auth=session.requests_auth(), timeout=30).status_code == 200
    service = IamIdentityV1(authenticator=session.ibm_authenticator())
    service.set_service_url(server.url)
    assert service.list_api_keys(scope="entity").get_result()["apikeys"]
    assert proxy.count(TOKEN) == 1


def test_a_job_finds_its_session_in_the_environment(server: Server, person: Person) -> None:
    environment = {"IBMCLOUD_API_KEY": str(person.api_key), "TASKCRED_URL": f"{server.url}/"}
    assert TaskSession.from_environment(environment).token()
    for missing in environment:
        with pytest.raises(errors.ConfigurationError) as refused:
            TaskSession.from_environment({**environment, missing: ""})
        assert refused.value.hint
