"""Delivering events by webhook; keeper.

Each service is served by one thread at a time, oldest event first, so that a receiver that is slow or away
keeps its own events waiting and nobody else's. After a failure the event is tried again later and later,
the service's others wait for a moment, and what has not arrived after `give_up_after` is given up:
visibly, and still there for polling.

At least once: a crash between an arrival and its record repeats the event under the same message id.
"""

from __future__ import annotations

import json
import threading
from datetime import timedelta
from typing import Final, Protocol

import structlog

from taskcred.domain.backoff import backoff
from taskcred.domain.secret import Secret
from taskcred.errors import TaskcredError
from taskcred.services.context import Context
from taskcred.services.events import message_id
from taskcred.services.notices import NotDelivered
from taskcred.services.service_secrets import signing_secrets
from taskcred.store import audit
from taskcred.store import events as store
from taskcred.store.events import StoredEvent

log = structlog.get_logger("keeper")

_SLOTS: Final = 16  # services that are served at the same time
_ROUND: Final = 100  # events of one service before it makes room for others
_FIRST_DELAY: Final = timedelta(seconds=5)
_LONGEST_DELAY: Final = timedelta(hours=1)
_LONGEST_REST: Final = timedelta(minutes=5)


class EventSender(Protocol):
    """The way to services' webhooks."""

    def send(self, url: str, secrets: list[Secret], message_id: str, body: bytes) -> NotDelivered | None:
        """None where it arrived. Has a time-out; no secret in the reason."""
        ...


class Deliverer:
    """Serves the services that have something due; one for each keeper."""

    def __init__(self, ctx: Context, sender: EventSender) -> None:
        self._ctx = ctx
        self._sender = sender
        self._lock = threading.Lock()
        self._served: set[str] = set()
        self._failures: dict[str, int] = {}  # in a row
        self._rests_until: dict[str, float] = {}  # by the monotonic clock

    def deliver_due(self) -> int:
        """Begin to serve whom something is due to and nobody serves; answers how many. Does not wait."""
        with self._ctx.store.read() as connection:
            due = store.due_services(connection, self._ctx.clock.now())
        begun = 0
        for service_id in due:
            if not self._take(service_id):
                continue
            # A daemon: a keeper that stops waits for no receiver; the event is repeated by the next one.
            threading.Thread(
                target=self._serve, args=(service_id,), name=f"events-{service_id}", daemon=True
            ).start()
            begun += 1
        return begun

    def close_ended(self) -> None:
        """Wait for nothing any more where the service has ended."""
        with self._ctx.store.write() as connection:
            store.close_of_ended_services(connection, self._ctx.clock.now())

    def serve(self, service_id: str) -> None:
        """Deliver what is due to a service, one after the other, until it fails or nothing is left."""
        for _ in range(_ROUND):
            with self._ctx.store.read() as connection:
                url = store.webhook_url(connection, service_id)
                event = store.next_due(connection, service_id, self._ctx.clock.now())
            if url is None or event is None:
                return
            if not url:
                with self._ctx.store.write() as connection:
                    store.close_all(connection, service_id, "no_webhook", self._ctx.clock.now())
                return
            result = self._deliver(url, event)
            self._record(event, result)
            if result is not None and not result.for_good:
                self._rest(service_id)
                return
            self._failures.pop(service_id, None)

    def _take(self, service_id: str) -> bool:
        with self._lock:
            is_resting = self._rests_until.get(service_id, 0.0) > self._ctx.clock.monotonic()
            if is_resting or service_id in self._served or len(self._served) >= _SLOTS:
                return False
            self._served.add(service_id)
            return True

    def _serve(self, service_id: str) -> None:
        try:
            self.serve(service_id)
        except TaskcredError as error:  # vault or records are away: not the receiver's failure
            log.warning("events delayed", service=service_id, code=error.error_code, why=error.message)
            self._rest(service_id)
        except Exception:
            log.exception("events failed", service=service_id)
            self._rest(service_id)
        finally:
            with self._lock:
                self._served.discard(service_id)

    def _rest(self, service_id: str) -> None:
        failures = self._failures.get(service_id, 0)
        self._failures[service_id] = failures + 1
        pause = backoff(_FIRST_DELAY, failures, _LONGEST_REST)
        self._rests_until[service_id] = self._ctx.clock.monotonic() + pause.total_seconds()

    def _deliver(self, url: str, event: StoredEvent) -> NotDelivered | None:
        secrets = signing_secrets(self._ctx, event.service_id)
        if not secrets:
            return NotDelivered("The service has no signing secret; rotate it.")
        body = json.dumps(
            {"type": event.type, "timestamp": event.created_at.isoformat(), "data": event.data},
            separators=(",", ":"),
        )
        return self._sender.send(url, secrets, message_id(event), body.encode())

    def _record(self, event: StoredEvent, result: NotDelivered | None) -> None:
        now = self._ctx.clock.now()
        with self._ctx.store.write() as connection:
            if result is None:
                store.close(connection, event.id, "sent", now)
                return
            given_up = 0
            if result.for_good:
                store.close(connection, event.id, "given_up", now, result.reason)
                given_up = 1
            else:
                delay = backoff(_FIRST_DELAY, event.attempts, _LONGEST_DELAY)
                store.plan(connection, event.id, now + delay, result.reason)
                # Not this one alone: where the receiver is away, the others are not even tried that often.
                before = now - self._ctx.policy.notices.give_up_after
                given_up = store.close_all(
                    connection, event.service_id, "given_up", now, result.reason, created_before=before
                )
            if given_up:
                given = audit.Event(
                    "event:deliver",
                    "given_up",
                    audit.KEEPER,
                    "",
                    "",
                    "service",
                    event.service_id,
                    details={"events": given_up, "why": result.reason[:512]},
                )
                audit.append(connection, given, now)
