"""Notices are delivered at least once, back off, and are given up where one can see it."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import pairwise

import pytest
import sqlalchemy as sa

from taskcred.errors import NotFoundError
from taskcred.services import notices
from taskcred.services.notices import Message, NotDelivered
from taskcred.store import tables as t
from taskcred.store.engine import is_transaction_open

from .conftest import Room


@dataclass
class Recorder:
    """A sender that answers by script, then takes everything."""

    script: list[NotDelivered | None] = field(default_factory=list)
    sent: list[Message] = field(default_factory=list)

    def send(self, message: Message) -> NotDelivered | None:
        """See `services.notices.Sender`."""
        assert not is_transaction_open()
        self.sent.append(message)
        return self.script.pop(0) if self.script else None


def _next_try(room: Room) -> datetime | None:
    with room.ctx.store.read() as connection:
        return connection.execute(sa.select(sa.func.min(t.notices.c.next_try_at))).scalar_one()


def test_a_notice_reaches_every_channel_once(room: Room) -> None:
    owner = room.owner()
    run = room.run(owner)
    mail, webhook = Recorder(), Recorder()
    senders = {"mail": mail, "webhook": webhook}

    assert notices.deliver_due(room.ctx, senders) == 2
    assert notices.deliver_due(room.ctx, senders) == 0

    (message,) = mail.sent
    assert message.to == "ann@example.test"
    assert message.action_url == f"https://taskcred.test/prompts/{run.prompt_id}"
    assert message.title == "A task credential is needed"
    assert webhook.sent[0].data == {"prompt_id": run.prompt_id, "why": "missing"}


@pytest.mark.promise("giving-up-is-visible")
def test_a_delivery_backs_off_and_is_given_up_where_the_owner_sees_it(room: Room) -> None:
    owner = room.owner()
    room.run(owner)
    away = Recorder(script=[NotDelivered("The webhook answered with status 503.")] * 1000)
    senders = {"webhook": away, "mail": Recorder()}
    tries = [room.clock.now()]
    while not any(note.kind == "notice_given_up" for note in notices.own(room.ctx, owner)):
        assert notices.deliver_due(room.ctx, senders) <= 1  # the mail, once
        if (due := _next_try(room)) is not None:
            room.clock.advance(due - room.clock.now() - timedelta(seconds=1))
            assert notices.deliver_due(room.ctx, senders) == 0
            tries.append(room.clock.advance(timedelta(seconds=1)))
    assert len(away.sent) == len(tries)
    waits = [(later - earlier).total_seconds() for earlier, later in pairwise(tries)]

    assert waits[:5] == [30, 60, 120, 240, 480]
    assert max(waits) == 3600
    assert sum(waits) == pytest.approx(timedelta(days=2).total_seconds(), rel=0.05)
    assert "notice:deliver given_up" in room.actions(owner)
    told = next(note for note in notices.own(room.ctx, owner) if note.kind == "notice_given_up")
    assert "status 503" in told.payload["text"]
    assert notices.deliver_due(room.ctx, senders) == 0


def test_an_owner_without_a_known_address_is_not_told_by_mail(room: Room) -> None:
    owner = room.owner(mail="")
    room.run(owner)
    mail, webhook = Recorder(), Recorder()
    assert notices.deliver_due(room.ctx, {"mail": mail, "webhook": webhook}) == 1
    assert mail.sent == []


def test_a_server_that_hangs_is_asked_once_a_round_and_holds_up_nobody_else(room: Room) -> None:
    for _ in range(3):
        room.run(room.owner())
    hanging = Recorder(script=[NotDelivered("The mail server could not be used (TimeoutError).")])
    webhook = Recorder()
    senders = {"mail": hanging, "webhook": webhook}
    assert notices.deliver_due(room.ctx, senders) == 3
    assert (len(hanging.sent), len(webhook.sent)) == (1, 3)
    room.clock.advance(timedelta(seconds=31))
    assert notices.deliver_due(room.ctx, senders) == 3
    assert len({message.id for message in hanging.sent}) == 3


def test_a_refusal_for_good_is_not_tried_again(room: Room) -> None:
    room.run(room.owner())
    gone = Recorder(script=[NotDelivered("Gone.", for_good=True)])
    senders = {"webhook": gone, "mail": Recorder()}
    for _ in range(3):
        notices.deliver_due(room.ctx, senders)
        room.clock.advance(timedelta(hours=2))
    assert len(gone.sent) == 1


def test_a_crash_before_the_record_repeats_the_delivery_under_the_same_id(room: Room) -> None:
    room.run(room.owner())

    class Crash(Recorder):
        def send(self, message: Message) -> NotDelivered | None:
            super().send(message)
            raise KeyboardInterrupt

    crashing = Crash()
    with pytest.raises(KeyboardInterrupt):
        notices.deliver_due(room.ctx, {"webhook": crashing, "mail": crashing})
    after = Recorder()
    senders = {"webhook": after, "mail": after}
    assert notices.deliver_due(room.ctx, senders) == 0  # still claimed
    room.clock.advance(timedelta(minutes=3))
    assert notices.deliver_due(room.ctx, senders) == 2
    assert crashing.sent[0].id in {message.id for message in after.sent}


def test_an_answered_prompt_is_not_told_of_any_more(room: Room) -> None:
    owner = room.owner()
    room.run(owner)
    room.give_credential(owner)
    sender = Recorder()
    assert notices.deliver_due(room.ctx, {"webhook": sender, "mail": sender}) == 0
    assert notices.own(room.ctx, owner) == []
    assert [note.state for note in notices.own(room.ctx, owner, unread=False)] == ["withdrawn"]


def test_an_owner_puts_their_own_notices_away(room: Room) -> None:
    owner, stranger = room.owner(), room.owner()
    room.run(owner)
    (note,) = notices.own(room.ctx, owner)
    with pytest.raises(NotFoundError):
        notices.mark_read(room.ctx, stranger, note.id)
    notices.mark_read(room.ctx, owner, note.id)
    notices.mark_read(room.ctx, owner, note.id)
    assert notices.own(room.ctx, owner) == []


def test_a_kind_without_words_is_told_clumsily(room: Room) -> None:
    owner = room.owner()
    with room.ctx.store.write() as connection:
        notices.add(room.ctx, connection, owner.account_id, owner.iam_id, "disk_on_fire", {})
    assert [note.payload["title"] for note in notices.own(room.ctx, owner)] == ["Disk on fire"]


def test_looking_for_deliveries_costs_no_write_when_none_is_due(room: Room) -> None:
    begun: list[bool] = []
    sa.event.listen(
        room.ctx.store.engine,
        "begin",
        lambda connection: begun.append(bool(connection.get_execution_options().get("read_only", False))),
    )
    notices.deliver_due(room.ctx, {})
    assert begun == [True]
