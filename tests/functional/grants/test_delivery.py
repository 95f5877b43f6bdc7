"""Events reach services' webhooks: in order, again after a failure, and nobody waits for a slow one."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from taskcred.domain.secret import Secret
from taskcred.services import events, retention
from taskcred.services.event_delivery import Deliverer
from taskcred.services.notices import NotDelivered
from taskcred.services.service_secrets import draw_webhook_secret, rotate_webhook, webhook_path
from taskcred.store import audit
from taskcred.store import events as store
from taskcred.store import tables as t
from taskcred.store.service_tables import service_events, services

from .conftest import Room

AWAY = NotDelivered("The webhook could not be reached (ConnectError).")


class Receivers:
    """Stands for the network: remembers what is sent and answers as told."""

    def __init__(self) -> None:
        self.got: list[tuple[str, str, dict[str, Any]]] = []
        self.secrets: list[str] = []
        self.answers: dict[str, NotDelivered | None] = {}
        self.hold: dict[str, threading.Event] = {}
        self.arrived = threading.Semaphore(0)

    def send(self, url: str, secrets: list[Secret], message_id: str, body: bytes) -> NotDelivered | None:
        self.got.append((url, message_id, json.loads(body)))
        self.secrets = [each.reveal() for each in secrets]
        self.arrived.release()
        if url in self.hold:
            self.hold[url].wait(10)
        return self.answers.get(url)


def _service(room: Room, url: str = "https://one.example.test/hook") -> str:
    service_id = room.service(webhook_url=url)
    room.ctx.vault.store(webhook_path(service_id), draw_webhook_secret())
    return service_id


def _tell(room: Room, service_id: str, *numbers: int) -> None:
    with room.ctx.store.write() as connection:
        for number in numbers:
            events.add(room.ctx, connection, service_id, "run.ended", {"n": number})


def _states(room: Room, service_id: str) -> list[str]:
    with room.ctx.store.read() as connection:
        c = service_events.c
        return list(
            connection.execute(sa.select(c.state).where(c.service_id == service_id).order_by(c.id)).scalars()
        )


def _eventually(is_so: Callable[[], bool]) -> None:
    waited = threading.Event()
    for _ in range(500):
        if is_so():
            return
        waited.wait(0.01)
    raise AssertionError("it did not come to be")


def test_what_is_due_is_sent_in_order_with_what_polling_tells(room: Room) -> None:
    service_id, receivers = _service(room), Receivers()
    _tell(room, service_id, 1, 2, 3)
    Deliverer(room.ctx, receivers).serve(service_id)
    polled = room.told(service_id)
    assert [(message_id, body) for _, message_id, body in receivers.got] == [
        (
            events.message_id(each),
            {"type": each.type, "timestamp": each.created_at.isoformat(), "data": each.data},
        )
        for each in polled
    ]
    assert _states(room, service_id) == ["sent"] * 3


def test_a_service_without_a_webhook_polls(room: Room) -> None:
    service_id, receivers = room.service(), Receivers()
    _tell(room, service_id, 1)
    assert Deliverer(room.ctx, receivers).deliver_due() == 0
    assert _states(room, service_id) == ["no_webhook"]
    assert len(room.told(service_id)) == 1


def test_while_a_secret_is_replaced_every_one_signs(room: Room) -> None:
    service_id, receivers = _service(room), Receivers()
    old = room.ctx.vault.open(webhook_path(service_id))
    new = rotate_webhook(room.ctx, audit.OPERATOR, service_id).secret
    _tell(room, service_id, 1)
    Deliverer(room.ctx, receivers).serve(service_id)
    assert receivers.secrets == [new.reveal(), old.reveal()]
    room.clock.advance(timedelta(hours=24))
    _tell(room, service_id, 1)
    Deliverer(room.ctx, receivers).serve(service_id)
    assert receivers.secrets == [new.reveal()]


def test_a_failure_is_tried_again_later_and_later_under_the_same_id(room: Room) -> None:
    service_id, receivers = _service(room), Receivers()
    url = "https://one.example.test/hook"
    receivers.answers[url] = AWAY
    _tell(room, service_id, 1)
    deliverer = Deliverer(room.ctx, receivers)
    tries = []
    for second in range(120):
        before = len(receivers.got)
        deliverer.serve(service_id)
        tries += [second] * (len(receivers.got) - before)
        room.clock.advance(timedelta(seconds=1))
    assert tries == [0, 5, 15, 35, 75]
    receivers.answers.clear()
    room.clock.advance(timedelta(hours=1))
    deliverer.serve(service_id)
    assert _states(room, service_id) == ["sent"]
    assert len({message_id for _, message_id, _ in receivers.got}) == 1


def test_an_event_its_receiver_cannot_take_does_not_keep_the_others(room: Room) -> None:
    service_id = _service(room)

    class Picky(Receivers):
        def send(self, url: str, secrets: list[Secret], message_id: str, body: bytes) -> NotDelivered | None:
            super().send(url, secrets, message_id, body)
            return AWAY if json.loads(body)["data"]["n"] == 1 else None

    receivers = Picky()
    _tell(room, service_id, 1, 2, 3)
    deliverer = Deliverer(room.ctx, receivers)
    deliverer.serve(service_id)
    assert _states(room, service_id) == ["open", "open", "open"]
    deliverer.serve(service_id)
    assert _states(room, service_id) == ["open", "sent", "sent"]


@pytest.mark.promise("giving-up-is-visible")
def test_after_two_days_it_is_given_up_and_said(room: Room) -> None:
    service_id, receivers = _service(room), Receivers()
    receivers.answers["https://one.example.test/hook"] = AWAY
    _tell(room, service_id, 1, 2, 3)
    room.clock.advance(timedelta(days=2, seconds=1))
    _tell(room, service_id, 4)
    Deliverer(room.ctx, receivers).serve(service_id)
    assert _states(room, service_id) == ["given_up"] * 3 + ["open"]
    with room.ctx.store.read() as connection:
        (event,) = connection.execute(sa.select(t.audit_events).where(t.audit_events.c.outcome == "given_up"))
    assert (event.action, event.target_id, event.details["events"]) == ("event:deliver", service_id, 3)
    assert len(room.told(service_id)) == 4


@pytest.mark.promise("giving-up-is-visible")
def test_a_receiver_that_wants_no_more_is_believed(room: Room) -> None:
    service_id, receivers = _service(room), Receivers()
    receivers.answers["https://one.example.test/hook"] = NotDelivered("Gone.", for_good=True)
    _tell(room, service_id, 1)
    Deliverer(room.ctx, receivers).serve(service_id)
    assert _states(room, service_id) == ["given_up"]


def test_a_receiver_that_hangs_keeps_nobody_else_waiting(room: Room) -> None:
    slow, quick = _service(room, "https://slow.test/"), _service(room, "https://quick.test/")
    receivers = Receivers()
    receivers.hold["https://slow.test/"] = threading.Event()
    deliverer = Deliverer(room.ctx, receivers)
    _tell(room, slow, 1, 2)
    assert deliverer.deliver_due() == 1
    assert receivers.arrived.acquire(timeout=10)
    _tell(room, quick, 1, 2)
    assert deliverer.deliver_due() == 1  # and no second thread for the slow one
    _eventually(lambda: _states(room, quick) == ["sent", "sent"])
    assert _states(room, slow) == ["open", "open"]
    receivers.hold["https://slow.test/"].set()
    _eventually(lambda: _states(room, slow) == ["sent", "sent"])


def test_after_a_failure_the_receiver_is_left_alone_for_a_moment(room: Room) -> None:
    service_id, receivers = _service(room), Receivers()
    receivers.answers["https://one.example.test/hook"] = AWAY
    deliverer = Deliverer(room.ctx, receivers)
    _tell(room, service_id, 1, 2)
    assert deliverer.deliver_due() == 1
    _eventually(lambda: _last_error(room, service_id) is not None and deliverer.deliver_due() == 0)
    assert len(receivers.got) == 1
    receivers.answers.clear()
    room.clock.advance(timedelta(seconds=6))
    _eventually(lambda: deliverer.deliver_due() == 1)
    _eventually(lambda: _states(room, service_id) == ["sent", "sent"])


def test_a_disabled_service_is_told_when_it_is_enabled_again(room: Room) -> None:
    service_id, receivers = _service(room), Receivers()
    _tell(room, service_id, 1)
    _set(room, service_id, state="disabled")
    deliverer = Deliverer(room.ctx, receivers)
    assert deliverer.deliver_due() == 0
    deliverer.serve(service_id)
    assert receivers.got == []
    _set(room, service_id, state="active")
    deliverer.serve(service_id)
    assert len(receivers.got) == 1


def test_a_webhook_that_is_taken_back_gets_nothing_more(room: Room) -> None:
    service_id, receivers = _service(room), Receivers()
    _tell(room, service_id, 1)
    _set(room, service_id, webhook_url="")
    Deliverer(room.ctx, receivers).serve(service_id)
    assert (receivers.got, _states(room, service_id)) == ([], ["no_webhook"])


def test_a_missing_secret_sends_nothing(room: Room) -> None:
    service_id, receivers = room.service(webhook_url="https://one.example.test/hook"), Receivers()
    _tell(room, service_id, 1)
    Deliverer(room.ctx, receivers).serve(service_id)
    assert receivers.got == []
    assert "rotate" in (_last_error(room, service_id) or "")


def test_events_are_forgotten_after_thirty_days(room: Room) -> None:
    service_id = room.service()
    _tell(room, service_id, 1)
    room.clock.advance(timedelta(days=29))
    _tell(room, service_id, 2)
    retention.sweep(room.ctx)
    assert len(room.told(service_id)) == 2
    room.clock.advance(timedelta(days=2))
    retention.sweep(room.ctx)
    assert [each.data for each in room.told(service_id)] == [{"n": 2}]


def test_nothing_waits_for_a_service_that_has_ended(room: Room) -> None:
    ended, living = _service(room), _service(room)
    for service_id in (ended, living):
        _tell(room, service_id, 1)
    _set(room, ended, state="ended")
    Deliverer(room.ctx, Receivers()).close_ended()
    assert (_states(room, ended), _states(room, living)) == (["no_webhook"], ["open"])


@pytest.mark.only_on("sqlite")  # it reads SQLite's plans
def test_what_was_sent_makes_finding_what_is_due_no_dearer(room: Room) -> None:
    plans: list[str] = []

    def explain(_conn: Any, cursor: Any, statement: str, parameters: Any, *_rest: Any) -> None:
        rows = cursor.connection.execute(f"EXPLAIN QUERY PLAN {statement}", parameters)
        plans.extend(row[3] for row in rows if "service_events" in row[3])

    now = room.clock.now()
    with room.ctx.store.write() as connection:
        sa.event.listen(room.ctx.store.engine, "before_cursor_execute", explain)
        store.due_services(connection, now)
        store.next_due(connection, "x", now)
        store.close_all(connection, "x", "sent", now)
        sa.event.remove(room.ctx.store.engine, "before_cursor_execute", explain)
    assert len(plans) == 3
    assert all("ix_service_events_open" in plan for plan in plans), plans


def _last_error(room: Room, service_id: str) -> str | None:
    return next((each.error for each in room.told(service_id) if each.error), None)


def _set(room: Room, service_id: str, **values: Any) -> None:
    with room.ctx.store.write() as connection:
        connection.execute(services.update().where(services.c.id == service_id).values(values))
