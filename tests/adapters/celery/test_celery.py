"""What becomes of a run as Celery carries its task: retried, revoked, killed, redelivered, parked."""

from __future__ import annotations

import json
import os
import signal
import time

import pytest
from celery import chain
from celery.exceptions import TaskRevokedError
from kombu.exceptions import OperationalError

from tests.adapters.celery.conftest import Platform, create_credential
from tests.support.server import eventually

WITHIN = 30  # seconds


@pytest.mark.promise("key-stays-home")
def test_a_message_carries_the_run_and_nothing_secret(platform: Platform) -> None:
    (owner,) = platform.owners(1)
    sent = platform.jobs.inventory.apply_async((1,), grant_id=owner.grant_id)
    (message,) = platform.jobs.app.backend.client.lrange("celery", 0, -1)
    assert json.loads(message)["headers"]["taskcred_run"] == sent.run.id
    assert b"tcs_" not in message
    assert b"eyJ" not in message
    assert owner.grant_id.encode() not in message
    assert (sent.run.iam_id, sent.run.reference, sent.run.executor) == (owner.iam_id, sent.id, "service")

    platform.start_worker("-c", "1")
    assert sent.get(WITHIN)["owners"] == [owner.iam_id]
    assert platform.ends(sent).state == "succeeded"
    assert "tcs_" not in platform.log
    assert "eyJ" not in platform.log


def test_whoever_shows_the_owners_token_sends_the_run_it_started(platform: Platform) -> None:
    (owner,) = platform.owners(1)
    run = platform.client.start_run("inventory", {"number": 2}, subject_token=owner.signed_in.token)
    sent = platform.jobs.inventory.apply_async((2,), run_id=run.id)
    platform.start_worker("-c", "1")
    assert sent.get(WITHIN)["owners"] == [owner.iam_id]


def test_a_step_of_a_chain_acts_for_the_owner_it_was_set_for(platform: Platform) -> None:
    one, other = platform.owners(2)
    inventory = platform.jobs.inventory
    platform.start_worker("-c", "1")
    sent = chain(
        inventory.si(1).set(grant_id=one.grant_id), inventory.si(2).set(grant_id=other.grant_id)
    ).apply_async()
    assert sent.get(WITHIN)["owners"] == [other.iam_id]
    assert sent.parent.get(WITHIN)["owners"] == [one.iam_id]


def test_nothing_is_sent_that_is_nobodys_work(platform: Platform) -> None:
    with pytest.raises(TypeError, match="grant_id or run_id"):
        platform.jobs.inventory.delay(1)
    assert platform.jobs.app.backend.client.llen("celery") == 0


def test_a_run_whose_message_cannot_be_sent_does_not_wait(platform: Platform) -> None:
    (owner,) = platform.owners(1)
    with platform.jobs.app.connection("redis://127.0.0.1:1/0") as nowhere, pytest.raises(OperationalError):
        platform.jobs.inventory.apply_async((1,), grant_id=owner.grant_id, connection=nowhere, retry=False)
    (run,) = owner.signed_in.request("GET", "/v1/runs").json()["items"]
    assert run["state"] == "cancelled"


def test_a_retry_is_another_attempt_of_the_same_run(platform: Platform) -> None:
    (owner,) = platform.owners(1)
    platform.start_worker("-c", "2")
    sent = platform.jobs.troubled.apply_async((2,), grant_id=owner.grant_id)
    assert sent.get(WITHIN) == 3
    assert platform.ends(sent).state == "succeeded"
    attempts = owner.signed_in.request("GET", f"/v1/runs/{sent.run.id}/access").json()["items"]
    assert [each["outcome"] for each in attempts] == ["failed", "failed", "succeeded"]


def test_the_last_failure_is_the_runs_and_keeps_its_text(platform: Platform) -> None:
    (owner,) = platform.owners(1)
    platform.start_worker("-c", "1")
    sent = platform.jobs.troubled.apply_async((5,), grant_id=owner.grant_id)
    with pytest.raises(Exception, match="nobody's business"):
        sent.get(WITHIN)
    run = platform.ends(sent)
    assert (run.state, run.reason, run.attempts_made) == ("failed", "TroubleError in the job.", 3)


@pytest.mark.promise("dead-with-the-run")
@pytest.mark.parametrize("died", ["worker", "process"])
def test_a_redelivered_job_gets_a_new_key_and_the_old_one_is_refused(platform: Platform, died: str) -> None:
    (owner,) = platform.owners(1)
    worker = platform.start_worker("-c", "1", VISIBILITY_TIMEOUT="3")
    sent = platform.jobs.long.apply_async((1,), grant_id=owner.grant_id)
    process, first = platform.key(1)
    assert platform.is_good(first)
    if died == "worker":
        worker.kill()
        worker.wait()
        time.sleep(3)  # Redis holds a message back for the visibility timeout
        platform.start_worker("-c", "1", VISIBILITY_TIMEOUT="3")
    else:
        os.kill(process, signal.SIGKILL)
    _, second = platform.key(2)
    assert not platform.is_good(first)
    assert platform.is_good(second)
    (platform.directory / "go-on").touch()
    assert sent.get(WITHIN) == 2
    assert platform.ends(sent).state == "succeeded"
    attempts = owner.signed_in.request("GET", f"/v1/runs/{sent.run.id}/access").json()["items"]
    assert [each["outcome"] for each in attempts] == ["lost", "succeeded"]


def test_a_message_that_comes_again_after_the_end_is_dropped(platform: Platform) -> None:
    (owner,) = platform.owners(1)
    platform.start_worker("-c", "1")
    sent = platform.jobs.inventory.apply_async((1,), grant_id=owner.grant_id)
    sent.get(WITHIN)
    platform.ends(sent)
    platform.jobs.inventory.apply_async((1,), run_id=sent.run.id)
    eventually(lambda: "Dropped: The run has ended." in platform.log, "the message is dropped")
    assert platform.client.run(sent.run.id).attempts_made == 1


@pytest.mark.parametrize("by", ["SIGTERM", "SIGKILL"])
def test_a_revoked_job_is_cancelled_and_its_key_dead(platform: Platform, by: str) -> None:
    (owner,) = platform.owners(1)
    platform.start_worker("-c", "1")
    sent = platform.jobs.long.apply_async((1,), grant_id=owner.grant_id)
    _, key = platform.key(1)
    sent.revoke(terminate=True, signal=by)
    assert platform.ends(sent).state == "cancelled"
    assert not platform.is_good(key)
    with pytest.raises(TaskRevokedError):
        sent.get(WITHIN)


def test_a_task_revoked_before_its_start_is_cancelled(platform: Platform) -> None:
    (owner,) = platform.owners(1)
    platform.start_worker("-c", "1")
    before = platform.jobs.long.apply_async((1,), grant_id=owner.grant_id)
    platform.key(1)
    sent = platform.jobs.inventory.apply_async((1,), grant_id=owner.grant_id)
    sent.revoke()
    (platform.directory / "go-on").touch()
    before.get(WITHIN)
    run = platform.ends(sent)
    assert (run.state, run.attempts_made) == ("cancelled", 0)


def test_a_job_whose_owner_cancels_is_terminated(platform: Platform) -> None:
    (owner,) = platform.owners(1)
    platform.start_worker("-c", "1")
    sent = platform.jobs.long.apply_async((1,), grant_id=owner.grant_id)
    _, key = platform.key(1)
    assert owner.signed_in.request("POST", f"/v1/runs/{sent.run.id}/cancel").status_code == 200
    assert platform.ends(sent).state == "cancelled"
    assert not platform.is_good(key)
    with pytest.raises(TaskRevokedError):
        sent.get(WITHIN)


def test_a_run_cancelled_in_line_is_dropped_and_its_result_says_so(platform: Platform) -> None:
    (owner,) = platform.owners(1)
    sent = platform.jobs.inventory.apply_async((1,), grant_id=owner.grant_id)
    owner.signed_in.request("POST", f"/v1/runs/{sent.run.id}/cancel")
    platform.start_worker("-c", "1")
    with pytest.raises(TaskRevokedError, match="cancelled"):
        sent.get(WITHIN)


@pytest.mark.promise("parked-not-failed")
def test_a_parked_run_is_looked_at_again_until_its_owner_has_answered(platform: Platform) -> None:
    (owner,) = platform.owners(1, with_credential=False)
    platform.start_worker("-c", "1")
    sent = platform.jobs.troubled.apply_async((0,), grant_id=owner.grant_id)
    assert sent.run.prompt_url
    # More often than the task may be retried: this is no failure of its own.
    eventually(lambda: platform.log.count(f"{sent.run.prompt_url}") >= 4, "the run is looked at again")
    assert sent.state == "RETRY"
    create_credential(owner.signed_in)
    assert sent.get(WITHIN) == 1
    assert platform.ends(sent).state == "succeeded"


def test_a_job_past_its_time_limit_has_timed_out(platform: Platform) -> None:
    (owner,) = platform.owners(1)
    platform.start_worker("-c", "1")
    sent = platform.jobs.stuck.apply_async((1,), grant_id=owner.grant_id, time_limit=1)
    run = platform.ends(sent)
    assert (run.state, run.reason) == ("failed", "The job took longer than its time limit.")


def test_a_process_that_died_for_good_fails_its_run(platform: Platform) -> None:
    (owner,) = platform.owners(1)
    platform.start_worker("-c", "1")
    sent = platform.jobs.stuck.apply_async((1,), grant_id=owner.grant_id)
    process, _ = platform.key(1)
    os.kill(process, signal.SIGKILL)
    run = platform.ends(sent)
    assert (run.state, run.reason) == ("failed", "The worker process carrying it out died.")


def test_threads_of_one_worker_act_each_for_its_own_owner(platform: Platform) -> None:
    owners = platform.owners(4)
    platform.start_worker("-P", "threads", "-c", "4")
    sent = [
        (owner, platform.jobs.inventory.apply_async((number,), grant_id=owner.grant_id))
        for number in range(4)
        for owner in owners
    ]
    for owner, result in sent:
        assert result.get(WITHIN)["owners"] == [owner.iam_id]
