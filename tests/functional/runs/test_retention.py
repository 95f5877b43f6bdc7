"""What is old is forgotten; what lives, waits or is on record is not."""

from __future__ import annotations

from datetime import timedelta

import pytest

from taskcred.domain.runs import AttemptOutcome
from taskcred.errors import NotFoundError
from taskcred.services import attempts, retention, runs
from taskcred.store import tables as t

from .conftest import Room


def test_ended_runs_go_with_their_output_and_the_others_stay(room: Room) -> None:
    owner = room.owner()
    waiting = room.run(room.owner())
    room.give_credential(owner)
    old, running = room.run(owner), room.run(owner)
    begun = room.begin(old.id)
    attempts.append_output(room.ctx, begun.attempt_id, "done\n")
    attempts.finish(room.ctx, begun.attempt_id, AttemptOutcome.SUCCEEDED)
    room.begin(running.id)
    room.clock.advance(timedelta(days=29))
    assert retention.sweep(room.ctx) == 0
    owner = room.signed_in(owner.iam_id)
    young = runs.cancel(room.ctx, owner, room.run(owner).id)
    events = len(room.actions(owner))

    room.clock.advance(timedelta(days=2))
    assert retention.sweep(room.ctx) == 2  # the run, and the intent that made the credential

    with pytest.raises(NotFoundError):
        runs.get(room.ctx, owner, old.id)
    left = {run.id for run in runs.list_own(room.ctx, owner)[0]}
    assert left == {running.id, young.id}
    assert room.count(t.runs) == 3, waiting
    assert room.count(t.attempts) == 1
    assert room.count(t.run_output) == 0
    assert len(room.actions(owner)) == events


def test_a_sweep_works_in_batches_and_stops_where_told(room: Room) -> None:
    owner = room.owner()
    room.park_many(250)
    with room.ctx.store.write() as connection:
        connection.execute(t.runs.update().values(state="cancelled", ended_at=room.clock.now()))
    room.clock.advance(timedelta(days=31))
    assert retention.sweep(room.ctx, batches=2) == 200
    assert retention.sweep(room.ctx) == 50
    assert runs.list_own(room.ctx, owner) == ([], None)


def test_closed_prompts_and_notices_go_too(room: Room) -> None:
    owner = room.owner()
    room.run(owner)
    room.give_credential(owner)
    room.run(room.owner())
    room.clock.advance(timedelta(days=31))
    retention.sweep(room.ctx)
    assert room.count(t.prompts) == 1
    assert room.count(t.notices) == 3  # the open prompt's: page, mail, webhook
