"""Telling owners: a notice is committed with what it tells of, and delivered afterwards by the keeper."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any, Final, Protocol

import sqlalchemy as sa

from taskcred.domain.backoff import backoff
from taskcred.domain.permissions import Permission, Principal
from taskcred.errors import NotFoundError
from taskcred.services.authorize import authorize
from taskcred.services.context import Context
from taskcred.services.notice_words import words_for
from taskcred.store import audit
from taskcred.store import notices as store
from taskcred.store.notices import Channel, Notice

_CLAIM: Final = timedelta(minutes=2)  # one delivery takes less; its senders have time-outs
_FIRST_DELAY: Final = timedelta(seconds=30)
_MAX_DELAY: Final = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class Message:
    """What a sender is given. `id` stays the same over repeated tries; `to` is a mail address or empty;
    `action_url` is where the owner can act, or empty; `data` holds ids and words."""

    id: str
    kind: str
    account_id: str
    iam_id: str
    to: str
    title: str
    text: str
    action_url: str
    at: datetime
    data: dict[str, Any]


@dataclass(frozen=True, slots=True)
class NotDelivered:
    """Why a message did not arrive; `for_good` where trying again cannot help. No secret in `reason`."""

    reason: str
    for_good: bool = False


class Sender(Protocol):
    """A way to reach owners outside the pages."""

    def send(self, message: Message) -> NotDelivered | None:
        """None when it was taken over by the other side. Has a time-out well under two minutes."""
        ...


def add(
    ctx: Context,
    connection: sa.Connection,
    account_id: str,
    iam_id: str,
    kind: str,
    payload: dict[str, Any],
) -> None:
    """Tell an owner, in the caller's transaction: on the pages; by mail and webhook where configured, by
    mail only where a sign-in has told us an address.

    `kind` is one of `notice_words.WORDS`; `payload` holds the ids and words that its sentences need,
    never a secret. What is stored has the sentences too: "title", "text", and "path", the page to act on.
    """
    channels: list[Channel] = ["page"]
    if ctx.policy.notices.mail and store.mail_address(connection, iam_id):
        channels.append("mail")
    if ctx.policy.notices.webhook:
        channels.append("webhook")
    said = asdict(words_for(kind, payload))
    store.insert(connection, account_id, iam_id, kind, payload | said, channels, ctx.clock.now())


def own(ctx: Context, principal: Principal, *, unread: bool = True, limit: int = 50) -> list[Notice]:
    """The caller's notices on the page, newest first."""
    authorize(ctx, principal, Permission.PROMPT_READ, "notice")
    with ctx.store.read() as connection:
        return store.of_owner(connection, principal.account_id, principal.iam_id, unread=unread, limit=limit)


def mark_read(ctx: Context, principal: Principal, notice_id: str) -> None:
    """Take a notice off the page. Raises NotFoundError for other owners' notices too."""
    authorize(ctx, principal, Permission.PROMPT_READ, "notice", notice_id)
    now = ctx.clock.now()
    with ctx.store.write() as connection:
        known = store.mark_read(connection, notice_id, principal.account_id, principal.iam_id, now)
    if not known:
        raise NotFoundError("There is no such notice.", hint="List your notices.")


def deliver_due(ctx: Context, senders: Mapping[str, Sender], limit: int = 50) -> int:
    """Deliver what is due; keeper. A channel without a sender waits. Answers how many were delivered.

    At least once: a crash between a delivery and its record repeats it under the same message id.
    """
    with ctx.store.read() as connection:
        if not store.is_any_due(connection, ctx.clock.now()):
            return 0
    now = ctx.clock.now()
    with ctx.store.write() as connection:
        claimed = [
            (notice, _message(ctx, connection, notice))
            for notice in store.claim_due(connection, now, now + _CLAIM, limit)
        ]
    delivered = 0
    troubled: dict[str, NotDelivered] = {}
    for notice, message in claimed:
        sender = senders.get(notice.channel)
        if sender is None:
            result: NotDelivered | None = NotDelivered(f"Nothing is configured for {notice.channel}.")
        else:
            # A server that just failed us is left alone for this round, or its time-outs would add up
            # and keep the other channel waiting.
            result = troubled.get(notice.channel) or sender.send(message)
        if result is not None and not result.for_good:
            troubled[notice.channel] = result
        _record(ctx, notice, result)
        delivered += result is None
    return delivered


def _message(ctx: Context, connection: sa.Connection, notice: Notice) -> Message:
    data = dict(notice.payload)
    title, text, path = data.pop("title"), data.pop("text"), data.pop("path")
    return Message(
        id=notice.id,
        kind=notice.kind,
        account_id=notice.account_id,
        iam_id=notice.iam_id,
        to=store.mail_address(connection, notice.iam_id) if notice.channel == "mail" else "",
        title=title,
        text=text,
        action_url=f"{ctx.public_url}{path}",
        at=notice.created_at,
        data=data,
    )


def _tell_on_page(connection: sa.Connection, notice: Notice, why: str, now: datetime) -> None:
    kind = "notice_given_up"
    said = asdict(words_for(kind, {"channel": notice.channel, "why": why}))
    store.insert(connection, notice.account_id, notice.iam_id, kind, said, ["page"], now)


def _record(ctx: Context, notice: Notice, result: NotDelivered | None) -> None:
    now = ctx.clock.now()
    with ctx.store.write() as connection:
        if result is None:
            store.close(connection, notice.id, "sent", now)
            return
        reason = result.reason[:512]
        if not result.for_good and now - notice.created_at < ctx.policy.notices.give_up_after:
            delay = backoff(_FIRST_DELAY, notice.attempts, _MAX_DELAY)
            store.plan(connection, notice.id, now + delay, reason)
            return
        store.close(connection, notice.id, "given_up", now, reason)
        _tell_on_page(connection, notice, reason, now)
        audit.append(
            connection,
            audit.Event(
                "notice:deliver",
                "given_up",
                audit.KEEPER,
                notice.account_id,
                notice.iam_id,
                "notice",
                notice.id,
                details={"channel": notice.channel, "kind": notice.kind, "why": reason},
            ),
            now,
        )
