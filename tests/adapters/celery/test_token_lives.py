"""Jobs of several owners by four processes, while their access tokens expire twice and more."""

from __future__ import annotations

import sqlite3
import time
from itertools import pairwise

import pytest

from tests.adapters.celery.conftest import Owner, Platform
from tests.support.server import eventually

OWNERS = 5
LIFE = 5  # seconds, of an access token
REFRESHED = 4  # seconds: before the last fifth of its life is the next one made, never sooner
CONFIGURATION = f"[iam]\ntoken_ttl = {LIFE}\n"


def expiries(platform: Platform, owner: Owner) -> list[float]:
    """When each access token expires, or did, that was made for the owner's runs; in seconds since 1970."""
    query = "SELECT expires_at / 1000000.0 FROM run_tokens WHERE credential_id = ? ORDER BY expires_at"
    with sqlite3.connect(f"file:{platform.server.data_dir / 'records.db'}?mode=ro", uri=True) as database:
        return [expires_at for (expires_at,) in database.execute(query, (owner.credential_id,))]


def carry_out(platform: Platform, owners: list[Owner], each: int) -> None:
    """Send so many jobs of each owner at once, and see them all succeed."""
    sent = [
        (owner, platform.jobs.inventory.apply_async((number,), grant_id=owner.grant_id))
        for number in range(each)
        for owner in owners
    ]
    for owner, result in sent:
        assert result.get(60)["owners"] == [owner.iam_id]


@pytest.mark.slow
@pytest.mark.promise("never-interrupted")
def test_jobs_cost_one_exchange_for_each_owner_and_token_life(platform: Platform) -> None:
    owners = platform.owners(OWNERS)
    platform.start_worker("-c", "4")

    # With jobs under way at each expiry, and then with none, and all at once after it.
    while min(len(expiries(platform, owner)) for owner in owners) < 3:
        carry_out(platform, owners, 2)
    eventually(lambda: all(time.time() > expiries(platform, owner)[-1] for owner in owners), "silence")
    before = {owner.iam_id: len(expiries(platform, owner)) for owner in owners}
    carry_out(platform, owners, 8)

    made = platform.exchanges()
    for owner in owners:
        tokens = expiries(platform, owner)
        assert made[owner.iam_id] == len(tokens) > before[owner.iam_id]  # none was made for nothing
        assert all(later - earlier >= REFRESHED for earlier, later in pairwise(tokens)), tokens
