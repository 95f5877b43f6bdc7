"""Finished changes are forgotten after the time configured; given-up ones stay while they matter."""

from __future__ import annotations

from datetime import timedelta

import pytest

from taskcred.domain.credentials import Generated
from taskcred.errors import ConflictError
from taskcred.services import credentials, intents, retention
from taskcred.store import audit
from taskcred.store import tables as t
from taskcred.testing import Failure

from .conftest import World


def _states(world: World) -> list[object]:
    return sorted(row.state for row in world.rows(t.intents))


def test_finished_changes_go_after_their_time(world: World) -> None:
    world.provider.script("create_key", Failure.REFUSE)
    with pytest.raises(ConflictError):
        credentials.create(world.ctx, world.owner, name="work", source=Generated())
    created = credentials.create(world.ctx, world.owner, name="work", source=Generated()).credential
    world.clock.advance(timedelta(days=20))
    world.provider.script("create_key", Failure.UNAVAILABLE)
    credentials.rotate(world.ctx, world.owner, created.id, source=Generated())
    assert _states(world) == ["done", "open", "rolled_back"]
    world.clock.advance(timedelta(days=9))
    assert retention.sweep(world.ctx) == 0

    world.clock.advance(timedelta(days=2))
    assert retention.sweep(world.ctx) == 2

    assert _states(world) == ["open"]
    assert world.events("credential:create")


@pytest.mark.promise("giving-up-is-visible")
def test_a_given_up_change_stays_until_nothing_is_left_of_it(world: World) -> None:
    created = credentials.create(world.ctx, world.owner, name="work", source=Generated()).credential
    credentials.rotate(world.ctx, world.owner, created.id, source=Generated())
    old = credentials.keys(world.ctx, world.owner, created.id)[-1]
    world.provider.script("delete_key", Failure.REFUSE, times=None)
    credentials.end_key(world.ctx, world.owner, created.id, old.id)
    world.keep()
    credentials.delete(world.ctx, world.owner, created.id)
    world.keep()
    world.clock.advance(timedelta(days=100))
    retention.sweep(world.ctx)
    assert _states(world) == ["given_up", "given_up"]  # the end of the old key, that of all keys

    world.provider.recover()
    (delete,) = (intent for intent in intents.unfinished(world.ctx) if intent.kind == "delete")
    intents.retry(world.ctx, audit.OPERATOR, delete.id)
    world.keep()
    assert world.keys_in_vault() == []
    retention.sweep(world.ctx)
    assert _states(world) == ["done"]  # it ended just now; what the other one could not do is done


@pytest.mark.promise("giving-up-is-visible")
@pytest.mark.promise("last-good-key")
def test_a_making_that_could_not_be_undone_stays(world: World) -> None:
    def made(method: str) -> None:
        if method == "create_key":
            world.provider.script("exchange", Failure.UNAVAILABLE)

    world.provider.hook = made
    world.provider.script("create_key", Failure.COMMIT_THEN_DROP)
    world.provider.script("delete_key", Failure.REFUSE, times=None)
    created = credentials.create(world.ctx, world.owner, name="work", source=Generated()).credential
    credentials.delete(world.ctx, world.owner, created.id)
    world.keep()
    assert _states(world) == ["given_up"]
    world.clock.advance(timedelta(days=100))
    retention.sweep(world.ctx)
    assert _states(world) == ["given_up"]
