"""What the adapters share: one run for one job of an engine, and an end that says what the engine does next."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable
from threading import Thread

import pytest

from taskcred.adapters.attempts import Job, Verdict, begun_when_answered, carried_out, run_of
from taskcred.adapters.owners import grant_of
from taskcred.client import Client
from taskcred.errors import ConfigurationError, ConflictError, ForbiddenError
from tests.functional.client.conftest import Owner
from tests.support.server import Server

ClientOf = Callable[[str], Client]


def job(owner: Owner, **options: object) -> Job:
    return Job(f"nightly {secrets.token_hex(4)}", "train", owner.grant_id, **options)  # type: ignore[arg-type]  # passed through


class TryError(Exception):
    """What a job may end with."""


def test_each_try_finds_the_run_of_the_try_before(server: Server, owner: Owner, client_of: ClientOf) -> None:
    client, nightly = client_of(server.url), job(owner, parameters={"epochs": 3}, reference="Night 7")
    run = run_of(client, nightly)
    with (
        pytest.raises(TryError),
        carried_out(client.begin_attempt(run.id), lambda _: Verdict("failed", True)),
    ):
        raise TryError
    again = run_of(client, nightly)
    assert (again.id, again.state, again.attempts_made) == (run.id, "queued", 1)
    with carried_out(client.begin_attempt(run.id), lambda _: Verdict("failed")):
        pass
    assert client.run(run.id).state == "succeeded"


def test_a_job_done_once_more_is_another_run_and_the_same_for_whoever_asks(
    server: Server, owner: Owner, client_of: ClientOf
) -> None:
    nightly = job(owner)
    runs = []
    for _ in range(3):
        client = client_of(server.url)  # a process of its own remembers nothing
        run = run_of(client, nightly)
        assert run_of(client_of(server.url), nightly).id == run.id
        client.begin_attempt(run.id).end("succeeded")
        runs.append(run.id)
    assert len(set(runs)) == 3


@pytest.mark.promise("only-what-the-user-started")
def test_no_repetition_overrides_a_cancelled_run(server: Server, owner: Owner, client_of: ClientOf) -> None:
    client, nightly = client_of(server.url), job(owner)
    run = run_of(client, nightly)
    owner.request("POST", f"/v1/runs/{run.id}/cancel")
    for _ in range(2):
        with pytest.raises(ConflictError) as refused:
            run_of(client, nightly)
        assert refused.value.error_code == "cancelled"


@pytest.mark.parametrize(
    ("verdict", "state"), [(Verdict("failed"), "failed"), (Verdict("timed_out"), "failed")]
)
def test_the_last_try_ends_the_run_and_tells_the_type_of_what_went_wrong(
    server: Server, owner: Owner, client_of: ClientOf, verdict: Verdict, state: str
) -> None:
    client = client_of(server.url)
    run = run_of(client, job(owner))
    with pytest.raises(TryError), carried_out(client.begin_attempt(run.id), lambda _: verdict):
        raise TryError("what the job worked on")
    ended = client.run(run.id)
    assert ended.state == state
    assert "TryError" in ended.reason
    assert "worked on" not in ended.reason


def test_what_went_wrong_comes_through_where_the_attempt_was_taken_away(
    server: Server, owner: Owner, client_of: ClientOf
) -> None:
    client = client_of(server.url)
    run = run_of(client, job(owner))
    attempt = client.begin_attempt(run.id)
    client.begin_attempt(run.id).end("succeeded")
    with pytest.raises(TryError) as left, carried_out(attempt, lambda _: Verdict("failed")):
        raise TryError
    assert any("taskcred was not told" in note for note in left.value.__notes__)
    assert client.run(run.id).state == "succeeded"


@pytest.mark.promise("parked-not-failed")
def test_an_engine_that_cannot_put_a_job_aside_waits_and_shows_the_prompt(
    server: Server, newcomer: Owner, client_of: ClientOf
) -> None:
    client, shown = client_of(server.url), list[str]()
    answer = Thread(target=newcomer.give_key)

    def tell(prompt_url: str) -> None:
        shown.append(prompt_url)
        answer.start()

    attempt = begun_when_answered(client, job(newcomer), tell)
    answer.join()
    assert len(attempt.session.token()) > 100
    assert len(shown) == 1
    assert shown[0].startswith(f"{server.url}/prompts/")
    attempt.end("succeeded")


def test_a_run_that_is_cancelled_while_it_waits_is_not_carried_out(
    server: Server, newcomer: Owner, client_of: ClientOf
) -> None:
    client, waiting = client_of(server.url), job(newcomer)
    run = run_of(client, waiting)
    with pytest.raises(ConflictError) as refused:
        begun_when_answered(client, waiting, lambda _: client.cancel_run(run.id) and None)
    assert refused.value.error_code == "cancelled"


def test_a_name_leads_to_the_grant_of_its_iam_id(server: Server, owner: Owner, client_of: ClientOf) -> None:
    client = client_of(server.url)
    owners = {"ada": owner.signed_in.person.iam_id}
    assert grant_of(client, owners, "ada", "train") == owner.grant_id
    with pytest.raises(ConfigurationError, match="'bob'"):
        grant_of(client, owners, "bob", "train")


def test_without_a_grant_the_refusal_names_the_consent_page(
    server: Server, newcomer: Owner, client_of: ClientOf
) -> None:
    client = client_of(server.url)
    owners = {"ada": newcomer.signed_in.person.iam_id}
    newcomer.request("POST", f"/v1/grants/{newcomer.grant_id}/end")
    with pytest.raises(ForbiddenError) as refused:
        grant_of(client, owners, "ada", "train")
    assert refused.value.error_code == "no_grant"
    assert refused.value.action_url == client.consent_url(tasks=["train"])


def test_another_process_goes_on_with_an_attempt(server: Server, owner: Owner, client_of: ClientOf) -> None:
    run = run_of(client_of(server.url), job(owner))
    first = client_of(server.url).begin_attempt(run.id)
    kept = json.loads(json.dumps(first.kept()))
    second = client_of(server.url).go_on(kept)
    assert (second.id, second.number) == (first.id, first.number)
    assert second.environment() == first.environment()
    second.end("succeeded")
    assert client_of(server.url).run(run.id).state == "succeeded"
