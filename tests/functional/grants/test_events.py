"""A service polls what it was told, in order, and nothing of others."""

from __future__ import annotations

import pytest

from taskcred.errors import ForbiddenError
from taskcred.services import events
from taskcred.store.service_tables import service_events

from .conftest import Room, as_service


def test_events_are_read_in_order_from_where_the_last_answer_ended(room: Room) -> None:
    service_id, other = room.service(), room.service()
    with room.ctx.store.write() as connection:
        for number in range(5):
            events.add(room.ctx, connection, service_id, "run.queued", {"run_id": str(number)})
            events.add(room.ctx, connection, other, "run.ended", {"run_id": "x"})
    first = events.poll(room.ctx, as_service(service_id), limit=3)
    rest = events.poll(room.ctx, as_service(service_id), after=first[-1].id, limit=3)
    assert [event.data["run_id"] for event in first + rest] == ["0", "1", "2", "3", "4"]
    assert events.poll(room.ctx, as_service(service_id), after=rest[-1].id) == []


def test_nobody_is_told_of_what_no_service_started(room: Room) -> None:
    with room.ctx.store.write() as connection:
        events.add(room.ctx, connection, None, "run.ended", {})
    assert room.count(service_events) == 0


def test_an_event_is_gone_with_the_transaction_it_tells_of(room: Room) -> None:
    service_id = room.service()
    with pytest.raises(RuntimeError), room.ctx.store.write() as connection:  # noqa: PT012 - the block must fail
        events.add(room.ctx, connection, service_id, "run.ended", {})
        raise RuntimeError
    assert room.told(service_id) == []


def test_an_owner_does_not_read_events(room: Room) -> None:
    with pytest.raises(ForbiddenError):
        events.poll(room.ctx, room.owner())
