"""A thousand jobs of a hundred owners by four processes, while a key is rotated and the server replaced."""

from __future__ import annotations

import sqlite3
from collections import Counter
from typing import Any

import pytest

from tests.adapters.celery.conftest import Owner, Platform
from tests.support.server import eventually

OWNERS = 100
JOBS = 10  # of each
ROTATED = 3  # owners whose key is rotated meanwhile


def tokens_of(platform: Platform) -> Counter[str]:
    """How many access tokens the attempts of each owner were handed."""
    query = """
        SELECT r.iam_id, COUNT(DISTINCT t.token_digest)
        FROM attempt_tokens t JOIN attempts a ON a.id = t.attempt_id JOIN runs r ON r.id = a.run_id
        GROUP BY r.iam_id
    """
    with sqlite3.connect(f"file:{platform.server.data_dir / 'records.db'}?mode=ro", uri=True) as database:
        return Counter(dict(database.execute(query)))


@pytest.mark.slow
@pytest.mark.promise("never-interrupted")
def test_a_thousand_jobs_cost_one_exchange_for_each_owner(platform: Platform) -> None:
    owners = platform.owners(OWNERS)
    platform.start_worker("-c", "4")

    sent: list[tuple[Owner, Any]] = []
    for number in range(JOBS):
        if number == 3:
            for owner in owners[:ROTATED]:
                rotated = owner.signed_in.request(
                    "POST", f"/v1/task_credentials/{owner.credential_id}/rotate", json={"generate": True}
                )
                assert rotated.status_code in (200, 202), rotated.text
        if number == 5:
            old = {platform.server.role("web"), platform.server.role("keeper"), None}
            platform.server.hang_up()
        sent += [
            (owner, platform.jobs.inventory.apply_async((number,), grant_id=owner.grant_id))
            for owner in owners
        ]
    eventually(
        lambda: old.isdisjoint({platform.server.role("web"), platform.server.role("keeper")}),
        "web and keeper are replaced",
    )

    answers = [(owner, result.get(120)) for owner, result in sent]
    assert len(answers) == OWNERS * JOBS
    assert all(answer["owners"] == [owner.iam_id] for owner, answer in answers)
    assert len({answer["process"] for _, answer in answers}) == 4

    for owner in owners:
        runs = owner.signed_in.request("GET", "/v1/runs").json()["items"]
        assert [(run["state"], run["attempts_made"]) for run in runs] == [("succeeded", 1)] * JOBS
    made, tokens = platform.exchanges(), tokens_of(platform)
    for owner in owners[ROTATED:]:
        # The exchange that proved the new key gave the token that all ten jobs were handed.
        assert (made[owner.iam_id], tokens[owner.iam_id]) == (1, 1)
    for owner in owners[:ROTATED]:
        assert made[owner.iam_id] == 2  # one for each of their two keys
