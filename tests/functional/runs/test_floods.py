"""What a service does over and over reaches the owner it acts for a few times only."""

from __future__ import annotations

from datetime import timedelta

from taskcred.services import notices, prompts, runs
from taskcred.store import tables as t

from .conftest import Room


def test_an_owner_is_told_of_a_few_of_the_prompts_that_open_in_a_day(room: Room) -> None:
    owner, neighbour, service = room.owner(), room.owner("bob@example.test"), room.service()
    channels = 3  # page, mail, webhook
    for _ in range(5):
        runs.cancel(room.ctx, service, room.start(service, owner).id)
    assert (room.count(t.prompts), room.count(t.notices)) == (5, 3 * channels)
    room.start(service, neighbour)  # each owner has their own
    assert room.count(t.notices) == 4 * channels

    waiting = room.start(service, owner)
    assert notices.own(room.ctx, owner) == []
    assert len(prompts.list_own(room.ctx, owner)[0]) == 6  # it is on the pages all the same
    room.clock.advance(timedelta(days=1))
    prompts.remind_due(room.ctx)
    assert [notice.kind for notice in notices.own(room.ctx, owner)] == [prompts.REMINDER]

    runs.cancel(room.ctx, service, waiting.id)
    room.start(service, owner)
    assert [notice.kind for notice in notices.own(room.ctx, owner)] == [prompts.OPENED]
