"""Driving intents: inline for the request that began one, and by the keeper for whatever is left open.

A stage is safe to repeat. A part that is away postpones the intent with back-off; a refusal, or a day
without success, makes a change that has not happened yet undo itself, and ends an undoing or an ending in
the visible state `given_up`.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable
from typing import Final

from taskcred.domain.backoff import backoff
from taskcred.domain.credentials import KeyState, RevocationReason
from taskcred.errors import ConflictError, NotFoundError, StoreBusyError, TaskcredError, UnavailableError
from taskcred.services import intent_ending, intent_making, intent_undoing, usability
from taskcred.services.context import Context
from taskcred.services.intent_lease import AbandonError, Lease, LeaseLostError, Means
from taskcred.store import audit, credentials, intents

_log: Final = logging.getLogger(__name__)

_REFUSALS: Final = 5  # after so many tries an answer other than "away" is taken for final, "away" after a day

_STAGES: Final[dict[str, Callable[[Lease, Means], None]]] = {
    "seal": intent_making.seal,
    "make": intent_making.make,
    "check": intent_making.check,
    intent_undoing.UNDO: intent_undoing.undo,
    "record": intent_ending.record,
    "end": intent_ending.end,
}
_MAKING: Final = frozenset({"seal", "make", "check"})


def new_holder() -> str:
    """A name under which one request, or one keeper's round, holds leases."""
    return uuid.uuid4().hex


def drive(ctx: Context, intent: intents.Intent, holder: str, means: Means) -> intents.Intent:
    """Advance an intent whose lease `holder` has until it is closed, postponed or taken over.

    Raises the cause where the change cannot be had; what was begun is undone, or the keeper undoes it.
    """
    lease = Lease(ctx, intent, holder)
    cause: TaskcredError | None = None
    try:
        while lease.intent.state == "open":
            try:
                _STAGES[lease.intent.stage](lease, means)
            except AbandonError as error:
                cause = error.cause
                intent_undoing.abandon(lease, means, error)
            except TaskcredError as error:
                _postpone(lease, error)
                break
    except LeaseLostError:
        _log.info("intent taken over", extra={"intent": intent.id})
        lease.read_again()
    if cause is not None and not means.is_keeper:
        raise cause
    return lease.intent


def _postpone(lease: Lease, error: TaskcredError) -> None:
    """Give the lease back and come again later; or stop trying."""
    if isinstance(error, StoreBusyError):
        raise error  # nothing can be recorded now; the lease runs out by itself
    intent, policy = lease.intent, lease.ctx.policy.intents
    attempts = intent.attempts + 1
    now = lease.ctx.clock.now()
    is_old = now - intent.created_at >= policy.give_up_after
    # Not at the first failure of an old one: it may have been given up before, and opened again.
    if attempts >= _REFUSALS and (is_old or not isinstance(error, UnavailableError)):
        _give_up(lease, error)
        return
    delay = backoff(policy.first_delay, attempts - 1, policy.max_delay)
    with lease.commit(
        stage=intent.stage,
        attempts=attempts,
        error=error.message[:512],
        next_try_at=now + delay,
        lease_holder=None,
        lease_until=None,
    ):
        pass


def _give_up(lease: Lease, error: TaskcredError) -> None:
    intent = lease.intent
    if intent.stage in _MAKING:
        intent_undoing.abandon(lease, Means(), AbandonError(error))
        with lease.commit(stage=intent_undoing.UNDO, lease_holder=None, lease_until=None):
            pass
        return
    with lease.commit(stage=intent.stage, state="given_up", error=error.message[:512]) as (
        connection,
        now,
    ):
        event = lease.event(
            "intent:give_up", audit.KEEPER, "given_up", kind=intent.kind, why=error.error_code
        )
        audit.append(connection, event, now)
        lease.tell_owner(connection, "intent_given_up", error.message)
    _log.error("intent given up", extra={"intent": intent.id, "kind": intent.kind})


def advance_due(ctx: Context, holder: str, limit: int = 20) -> int:
    """The keeper's part: keys whose time has come, and intents that nobody holds. Returns how many
    intents it took up. Where a part is away it stops early: the others would wait for it as well."""
    end_due_keys(ctx, limit)
    with ctx.store.read() as connection:
        due = intents.due(connection, ctx.clock.now(), limit)
    taken = 0
    for intent_id in due:
        intent = take_up(ctx, intent_id, holder)
        if intent is None:
            continue
        taken += 1
        try:
            after = drive(ctx, intent, holder, Means())
        except Exception as error:  # noqa: BLE001 - one intent's bug must not hold up all the others
            # The text of an unforeseen exception may hold anything: its class has to do.
            _log.error("intent failed: %s", type(error).__name__, extra={"intent": intent.id})
            continue
        if after.state == "open" and after.attempts > intent.attempts:
            break
    return taken


def take_up(ctx: Context, intent_id: str, holder: str) -> intents.Intent | None:
    """Lease an open intent; None where somebody else has it."""
    with ctx.store.write() as connection:
        now = ctx.clock.now()
        return intents.claim(connection, intent_id, holder, now, now + ctx.policy.intents.lease)


def unfinished(ctx: Context) -> list[intents.Intent]:
    """For the operator: everybody's intents that are open or were given up, oldest first."""
    with ctx.store.read() as connection:
        return intents.unfinished(connection)


def retry(ctx: Context, actor: audit.Actor, intent_id: str) -> None:
    """For the operator: open a given-up intent again; the keeper takes it up at once.

    Raises NotFoundError where there is no such intent, ConflictError where it was not given up.
    """
    with ctx.store.write() as connection:
        now = ctx.clock.now()
        intent = intents.find(connection, intent_id)
        if intent is None:
            raise NotFoundError("There is no such intent.", hint="`taskcred admin intents` lists them.")
        if not intents.reopen(connection, intent_id, now):
            raise ConflictError(
                f"This intent is {intent.state}, not given up.",
                hint="An open one is tried again by itself.",
                code="intent_not_given_up",
            )
        event = audit.Event(
            "intent:retry",
            "success",
            actor,
            intent.account_id,
            intent.iam_id,
            "credential",
            str(intent.data["credential_id"]),
            details={"intent": intent.id, "kind": intent.kind},
        )
        audit.append(connection, event, now)


def end_due_keys(ctx: Context, limit: int = 100) -> int:
    """Phased-out keys that are drained are revoked; active ones that expired make their credential
    unusable. Returns how many there were."""
    with ctx.store.read() as connection:
        due = credentials.keys_due(connection, ctx.clock.now(), limit)
    for found in due:
        with ctx.store.write() as connection:
            now = ctx.clock.now()
            key = credentials.key(connection, found.id)
            credential = credentials.find_for_change(connection, found.credential_id)
            if key is None or credential is None or key.state is not found.state:
                continue
            if key.state is KeyState.ACTIVE:
                usability.key_expired(ctx, connection, key, now)
            else:
                intent_ending.revoke(
                    connection, credential, [key], RevocationReason.SUPERSEDED, audit.KEEPER, now
                )
    return len(due)
