"""A service carries runs out by the client, against a real server."""

from __future__ import annotations

import contextlib
import gc
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from ibm_platform_services import IamIdentityV1

from taskcred.client import ENDED, AsyncClient, Client, TaskSession, errors
from taskcred.domain.keytext import is_standin_key
from tests.functional.client.conftest import CALLBACK, CONFIG, Owner, Service, in_new_loop
from tests.support.proxy import Proxy
from tests.support.server import Person, Server, eventually


def test_a_run_is_started_carried_out_and_reported(client: Client, owner: Owner) -> None:
    run = client.start_run("train", {"epochs": 3}, subject_token=owner.token, reference="notebook 7")
    assert (run.state, run.executor, run.reference, run.prompt_url) == (
        "queued",
        "service",
        "notebook 7",
        None,
    )
    with client.begin_attempt(run.id) as attempt:
        service = IamIdentityV1(authenticator=attempt.session.ibm_authenticator())
        service.set_service_url(client.url)
        assert service.list_api_keys(scope="entity").get_result()["apikeys"]
        attempt.progress(1, 3, "first")
        attempt.output("one\n")
        eventually(lambda: client.run(run.id).progress_text == "first", "the progress is told")
        attempt.progress(3, 3, "x" * 1000)
        attempt.output("two\x00\udcff\n")
    ended = client.run(run.id)
    assert (ended.state, ended.is_final, ended.progress_done) == ("succeeded", True, 3)
    assert owner.request("GET", f"/v1/runs/{run.id}/output")["text"] == "one\ntwo\ufffd?\n"
    assert attempt.ended
    with pytest.raises(errors.KeyRefusedError):
        TaskSession(client.url, attempt.environment()["IBMCLOUD_API_KEY"]).token()


def test_the_result_is_read_afterwards_by_whoever_knows_the_run(client: Client, owner: Owner) -> None:
    run = client.start_run("train", subject_token=owner.token)
    assert client.output(run.id).text == ""
    attempt = client.begin_attempt(run.id)
    attempt.output("one\n")
    eventually(lambda: client.output(run.id).text, "the output is told")
    seen = client.output(run.id)
    assert (seen.text, seen.finished, seen.attempt) == ("one\n", False, 1)
    attempt.output("two\n")
    attempt.end("succeeded", exit_code=0)
    ended = client.wait(run.id, ENDED, timeout=30)
    assert (ended.state, ended.exit_code) == ("succeeded", 0)
    rest = client.output(run.id, seen.next_after, seen.attempt)
    assert (rest.text, rest.finished, rest.truncated) == ("two\n", True, False)
    assert client.output(run.id).text == "one\ntwo\n"
    assert run.id in {each.id for each in client.runs()}
    assert run.id in {each.id for each in client.runs("succeeded")}
    assert run.id not in {each.id for each in client.runs("failed")}
    assert len(client.runs(limit=1)) == 1


@pytest.mark.promise("dead-with-the-run")
def test_a_key_that_is_printed_in_pieces_is_masked(client: Client, owner: Owner) -> None:
    run = client.start_run("train", subject_token=owner.token)
    attempt = client.begin_attempt(run.id)
    key = attempt.environment()["IBMCLOUD_API_KEY"]
    attempt.output(f"first {key[:30]}")
    eventually(lambda: client.output(run.id).text, "the output is told")
    assert client.output(run.id).text == "first "
    attempt.output(f"{key[30:]} second {key[:5]}")
    attempt.end("succeeded")
    assert client.output(run.id).text == f"first ******** second {key[:5]}"


def test_an_exception_fails_the_run_with_its_type_only(client: Client, owner: Owner) -> None:
    run = client.start_run("train", subject_token=owner.token)
    with pytest.raises(ZeroDivisionError), client.begin_attempt(run.id):
        raise ZeroDivisionError("the text may hold anything")
    ended = client.run(run.id)
    assert (ended.state, ended.reason) == ("failed", "ZeroDivisionError in the job.")


@pytest.mark.promise("never-interrupted")
def test_whatever_a_job_says_its_end_is_told(client: Client, owner: Owner) -> None:
    run = client.start_run("train", subject_token=owner.token)
    attempt = client.begin_attempt(run.id)
    attempt.progress(-1, 3, "counted wrongly")
    time.sleep(1.5)
    attempt.progress(1, 3, "\x1b[32mgreen\u009b0m \u202edlo")
    ended = attempt.end("failed", "\x1b[31mred\udcff: no\rsuch file")
    assert (ended.state, ended.reason) == ("failed", "\ufffd[31mred?: no\ufffdsuch file")
    assert ended.progress_text == "\ufffd[32mgreen\ufffd0m \ufffddlo"


def test_an_attempt_may_be_followed_by_another(client: Client, owner: Owner) -> None:
    run = client.start_run("train", subject_token=owner.token)
    with client.begin_attempt(run.id) as attempt:
        assert attempt.end("failed", "Not this time.", 75, again=True).state == "queued"
    with client.begin_attempt(run.id) as second:
        assert second.number == 2
    assert client.run(run.id).state == "succeeded"


@pytest.mark.promise("parked-not-failed")
def test_a_parked_run_says_where_to_answer_and_goes_on(client: Client, newcomer: Owner) -> None:
    run = client.start_run("train", grant_id=newcomer.grant_id)
    assert run.is_waiting
    assert run.prompt_url is not None
    with pytest.raises(errors.WaitingForCredential) as parked:
        client.begin_attempt(run.id)
    assert parked.value.prompt_url == parked.value.action_url == run.prompt_url
    with pytest.raises(errors.WaitTimeoutError) as late:
        client.wait(run.id, timeout=0.1)
    assert isinstance(late.value, TimeoutError)
    assert late.value.action_url == run.prompt_url
    answered = threading.Timer(0.5, newcomer.give_key)
    answered.start()
    assert client.wait(run.id, timeout=30).state == "queued"
    answered.join()
    assert client.begin_attempt(run.id).end("succeeded").is_final


def test_a_cancelled_attempt_hears_of_it(client: Client, owner: Owner) -> None:
    run = client.start_run("train", subject_token=owner.token)
    attempt = client.begin_attempt(run.id)

    def job() -> None:
        with attempt:
            owner.request("POST", f"/v1/runs/{run.id}/cancel")
            attempt.output("news is told at once, and answered")
            eventually(lambda: attempt.cancel_requested, "the attempt hears")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        job()
    ended = client.run(run.id)
    assert (ended.state, ended.reason) == ("cancelled", "Cancelled by its owner.")


def test_an_attempt_that_was_taken_away_hears_of_it(client: Client, owner: Owner) -> None:
    run = client.start_run("train", grant_id=owner.grant_id)
    attempt = client.begin_attempt(run.id)
    assert attempt.session.token()
    owner.request("POST", f"/v1/grants/{owner.grant_id}/end")
    attempt.output("news is told at once, and answered")
    eventually(lambda: attempt.ended, "the attempt hears")
    with pytest.raises(errors.ConflictError) as over:
        attempt.end("succeeded")
    assert over.value.error_code == "attempt_ended"
    assert over.value.hint
    assert client.grant(owner.grant_id).state == "ended"
    assert not client.grant(owner.grant_id).is_active
    assert owner.grant_id in {grant.id for grant in client.grants()}
    told = {event.type for event in client.events(limit=200) if owner.grant_id in json.dumps(event.data)}
    assert "grant.ended" in told


@pytest.mark.promise("never-interrupted")
def test_an_outage_shorter_than_the_silence_costs_nothing(
    client_of: Callable[[str], Client], owner: Owner, proxy: Proxy
) -> None:
    client = client_of(proxy.url)
    run = client.start_run("train", subject_token=owner.token)
    with client.begin_attempt(run.id) as attempt:
        assert attempt.session.token()
        with proxy.away():
            attempt.progress(1, 2, "told later")
            eventually(lambda: attempt.problem, "a heartbeat is not heard")
            assert attempt.session.token()
        eventually(lambda: attempt.problem is None, "heartbeats are heard again")
        assert not attempt.ended
        threading.Timer(0.5, lambda: setattr(proxy, "is_away", False)).start()
        proxy.is_away = True  # the end waits for the server too
    ended = client.run(run.id)
    assert (ended.state, ended.progress_text, ended.attempts_made) == ("succeeded", "told later", 1)


@pytest.mark.promise("never-interrupted")
def test_a_rotation_and_a_new_server_cost_no_call(client: Client, owner: Owner, server: Server) -> None:
    run = client.start_run("train", subject_token=owner.token)
    credential = owner.request("GET", "/v1/task_credentials")["credentials"][0]["id"]
    rotate = f"/v1/task_credentials/{credential}/rotate"
    with client.begin_attempt(run.id) as attempt:
        key = attempt.environment()["IBMCLOUD_API_KEY"]
        for number in range(40):
            if number == 5:
                owner.request("POST", rotate, json={"generate": True, "drain": "tokens"})
            if number == 20:
                server.hang_up()
            session = TaskSession(client.url, key)  # each call asks for a token of its own
            service = IamIdentityV1(authenticator=session.ibm_authenticator())
            service.set_service_url(client.url)
            assert service.list_api_keys(scope="entity").get_result()["apikeys"]
            session.close()
            attempt.progress(number + 1, 40)
    ended = client.run(run.id)
    assert (ended.state, ended.progress_done, ended.attempts_made) == ("succeeded", 40, 1)


def test_a_server_with_an_authority_of_its_own(start_server: Callable[..., Server]) -> None:
    server = start_server(config=CONFIG, arguments=("--tls-self-signed",))
    owner = Owner(server.sign_in(server.create_person("ada@example.com")), "")
    owner.give_key()
    with pytest.raises(errors.ConfigurationError) as stranger:
        Client(server.url, access_token=owner.token).start_run("exec")
    assert "TASKCRED_CA_FILE" in stranger.value.hint
    with Client(server.url, access_token=owner.token, ca_file=server.ca_file) as client:
        run = client.start_run("exec")
        with client.begin_attempt(run.id) as attempt:
            program = "from ibm_platform_services import IamIdentityV1 as I; I.new_instance().list_api_keys(scope='entity')"
            environment = os.environ | attempt.environment(["iam_identity"])
            subprocess.run([sys.executable, "-c", program], env=environment, check=True)
            bundle = Path(environment["REQUESTS_CA_BUNDLE"])
            assert bundle.read_text().count("BEGIN CERTIFICATE") > 1  # the public ones too
        assert client.run(run.id).state == "succeeded"
        del attempt
        gc.collect()
        assert not bundle.exists()


FORK = """
import os, sys, threading, time
from taskcred.client import Client, errors

client = Client()
with client.begin_attempt(sys.argv[1]) as attempt:
    first = attempt.session.token()
    child = os.fork()
    if child == 0:
        assert threading.active_count() == 1      # nobody beats here
        assert attempt.session.token() == first
        assert client.run(sys.argv[1]).state == "running"
        try:
            attempt.progress(1, 2)
        except errors.InvalidRequestError as refused:
            assert "fork" in refused.message
        else:
            os._exit(3)
        try:
            attempt.end("failed")
        except errors.InvalidRequestError:
            pass
        attempt.__exit__(None, None, None)        # as the child's own way out of the block would
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert client.run(sys.argv[1]).state == "running"
"""


def test_a_fork_has_the_session_and_reports_nothing(client: Client, owner: Owner, service: Service) -> None:
    run = client.start_run("train", subject_token=owner.token)
    done = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", FORK, run.id],
        env=os.environ | {"TASKCRED_SERVICE_FILE": str(service.file)},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert client.run(run.id).state == "succeeded"


@pytest.mark.promise("at-once")
def test_a_refused_key_tells_at_once_that_the_attempt_was_taken_away(client: Client, owner: Owner) -> None:
    run = client.start_run("train", grant_id=owner.grant_id)
    kept = client.begin_attempt(run.id).kept()
    attempt = client.go_on({**kept, "heartbeat_seconds": 3600})  # none is due while the test lasts
    owner.request("POST", f"/v1/grants/{owner.grant_id}/end")
    with pytest.raises(errors.KeyRefusedError):
        attempt.session.token()
    eventually(lambda: attempt.ended, "the attempt hears")


def test_a_key_that_is_refused_for_another_reason_ends_nothing(client: Client, owner: Owner) -> None:
    run = client.start_run("train", subject_token=owner.token)
    kept = client.begin_attempt(run.id, addresses=["192.0.2.0/24"]).kept()
    attempt = client.go_on({**kept, "heartbeat_seconds": 3600})
    attempt.progress(1, 2)
    with pytest.raises(errors.KeyRefusedError):
        attempt.session.token()
    eventually(lambda: client.run(run.id).progress_done == 1, "the attempt is heard of")
    assert not attempt.ended
    assert attempt.end("succeeded").state == "succeeded"


def test_the_environment_of_a_child_is_what_sdks_read(client: Client, owner: Owner) -> None:
    run = client.start_run("train", subject_token=owner.token)
    with client.begin_attempt(run.id) as attempt:
        found = attempt.environment(["resource_controller"])
        key = found["IBMCLOUD_API_KEY"]
        assert is_standin_key(key)
        assert found["TASKCRED_RUN_ID"] == run.id
        for service in ("IAM_IDENTITY", "RESOURCE_CONTROLLER"):
            assert found[f"{service}_APIKEY"] == key
            assert found[f"{service}_AUTH_URL"] == client.url
        assert TaskSession.from_environment(found).token() == attempt.session.token()
        assert key not in f"{attempt!r}{attempt.session!r}{client!r}"


def test_a_key_can_be_bound_to_addresses(client: Client, owner: Owner) -> None:
    run = client.start_run("train", subject_token=owner.token)
    attempt = client.begin_attempt(run.id, addresses=["192.0.2.0/24"])
    with pytest.raises(errors.KeyRefusedError):
        attempt.session.token()
    attempt.end("failed")
    run = client.start_run("train", subject_token=owner.token)
    with client.begin_attempt(run.id, addresses=["127.0.0.0/8"]) as attempt:
        assert attempt.session.token()


def test_the_asynchronous_client_does_the_same(server: Server, service: Service, owner: Owner) -> None:
    told = json.loads(service.file.read_text())

    async def work() -> None:
        async with AsyncClient(
            server.url, client_id=told["client_id"], client_secret=told["client_secret"]
        ) as client:
            run = await client.start_run("train", {"epochs": 1}, grant_id=owner.grant_id)
            async with await client.begin_attempt(run.id) as attempt:
                assert await attempt.session.token_async()
                attempt.progress(1, 1)
                attempt.output("done\n")
            assert (await client.wait(run.id, ENDED, timeout=30)).state == "succeeded"
            assert (await client.output(run.id)).text == "done\n"
            assert run.id in {each.id for each in await client.runs("succeeded")}
            failing = await client.start_run("train", grant_id=owner.grant_id)
            async with contextlib.AsyncExitStack() as stack:
                stack.enter_context(pytest.raises(KeyError))
                await stack.enter_async_context(await client.begin_attempt(failing.id))
                raise KeyError
            assert (await client.run(failing.id)).reason == "KeyError in the job."
            late = await client.start_run("train", grant_id=owner.grant_id)
            assert (await client.cancel_run(late.id)).state == "cancelled"
            with pytest.raises(errors.ConflictError):
                await client.begin_attempt(late.id)
            assert owner.grant_id in {grant.id for grant in await client.grants()}
            assert (await client.grant(owner.grant_id)).is_active
            assert [event.type for event in await client.events(limit=1)]

    in_new_loop(work())
    in_new_loop(work())  # a second event loop has connections of its own


def test_an_owner_follows_what_a_worker_does(server: Server, owner: Owner) -> None:
    with Client(server.url, access_token=lambda: owner.token) as client:
        run = client.start_run("wait", idempotency_key=f"once-{time.time()}")
        assert run.executor == "worker"
        with pytest.raises(errors.ConflictError) as refused:
            client.begin_attempt(run.id)
        assert refused.value.error_code == "other_executor"
        assert client.cancel_run(run.id).id == run.id
        assert client.wait(run.id, until=["cancelled"], timeout=30).is_final


def test_the_same_idempotency_key_gives_the_same_run(client: Client, owner: Owner) -> None:
    runs = {client.start_run("train", grant_id=owner.grant_id, idempotency_key="k-1").id for _ in range(2)}
    assert len(runs) == 1
    client.cancel_run(runs.pop())


def test_the_link_for_consent_is_the_page(client: Client, server: Server) -> None:
    link = client.consent_url(tasks=["train"], days=30, return_to=CALLBACK, state="s 1")
    assert link.startswith(f"{server.url}/grants/new?service={client.client_id}&tasks=train&days=30&")
    with server.client() as browser:
        assert browser.get(link).status_code == 303  # to the sign-in, and from there to the page


def test_refusals_are_typed_and_name_the_cure(
    client: Client, server: Server, person: Person, owner: Owner
) -> None:
    with pytest.raises(errors.NotFoundError) as unknown:
        client.run("00000000-0000-4000-8000-000000000000")
    assert unknown.value.status == 404
    programmatic = TaskSession(server.url, str(person.api_key)).token()
    with pytest.raises(errors.ForbiddenError) as refused:
        client.start_run("train", subject_token=programmatic)
    assert (refused.value.error_code, bool(refused.value.hint)) == ("programmatic_token", True)
    run = client.start_run("train", grant_id=owner.grant_id)
    stranger_s = Client(server.url, client_id=str(client.client_id), client_secret="wrong")
    with pytest.raises(errors.InvalidTokenError) as stranger:
        stranger_s.run(run.id)
    assert stranger.value.status == 401
