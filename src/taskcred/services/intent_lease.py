"""The lease under which one holder at a time advances an intent, and what it may have in hand."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from taskcred.domain.secret import Secret
from taskcred.errors import TaskcredError
from taskcred.services import notices
from taskcred.services.context import Context
from taskcred.store import audit, intents


@dataclass(slots=True)
class Means:
    """What only the request that began an intent has, in memory and nowhere else.

    `authority` is the owner's own access token, `provided` the key the owner pasted, `drawn` the value we
    drew for a key not yet made. The keeper has none of them: it opens the vault and asks the provider.
    """

    actor: audit.Actor = audit.KEEPER
    authority: Secret | None = None
    provided: Secret | None = None
    drawn: Secret | None = None

    @property
    def is_keeper(self) -> bool:
        """Whether nobody waits for the answer."""
        return self.actor is audit.KEEPER


class LeaseLostError(Exception):
    """Another holder has taken the intent over, or it is closed: leave it alone."""


class AbandonError(Exception):
    """What the intent wanted cannot be had; undo what was begun. `cause` is for the caller.

    `maybe_made` is False where the provider has certainly no key of this intent.
    """

    def __init__(self, cause: TaskcredError, *, maybe_made: bool = True) -> None:
        super().__init__(cause.message)
        self.cause = cause
        self.maybe_made = maybe_made


class Lease:
    """One holder's hold on one intent. Every commit goes through it, renews it, and fails with
    LeaseLostError once another holder has taken over."""

    def __init__(self, ctx: Context, intent: intents.Intent, holder: str) -> None:
        self.ctx = ctx
        self.intent = intent
        self.holder = holder

    @property
    def credential_id(self) -> str:
        """The credential the intent is about."""
        if self.intent.credential_id is None:
            raise LeaseLostError
        return self.intent.credential_id

    @contextmanager
    def commit(
        self, *, stage: str, state: intents.State = "open", **values: Any
    ) -> Iterator[tuple[sa.Connection, datetime]]:
        """A transaction that moves the intent to `stage`; `values` are further columns of its row."""
        with self.ctx.store.write() as connection:
            now = self.ctx.clock.now()
            values = {"lease_until": now + self.ctx.policy.intents.lease, **values}
            if not intents.change(
                connection, self.intent.id, self.holder, now, stage=stage, state=state, **values
            ):
                raise LeaseLostError
            yield connection, now
        known = {
            name: values[name] for name in ("data", "error", "attempts", "credential_id") if name in values
        }
        self.intent = replace(self.intent, stage=stage, state=state, **known)

    def read_again(self) -> None:
        """See what another holder has made of the intent."""
        with self.ctx.store.read() as connection:
            self.intent = intents.find(connection, self.intent.id) or self.intent

    def event(
        self,
        action: str,
        actor: audit.Actor,
        outcome: audit.Outcome = "success",
        *,
        target: tuple[str, str] | None = None,
        **details: Any,
    ) -> audit.Event:
        """An audit event about what this intent did; the target is the credential if no other is named."""
        intent = self.intent
        target_type, target_id = target or ("credential", str(intent.data["credential_id"]))
        return audit.Event(
            action,
            outcome,
            actor,
            intent.account_id,
            intent.iam_id,
            target_type,
            target_id,
            details={"intent": intent.id, **details},
        )

    def tell_owner(self, connection: sa.Connection, kind: str, why: str) -> None:
        """A notice to the owner: the intent did not come to what they wanted."""
        intent = self.intent
        notices.add(
            self.ctx,
            connection,
            intent.account_id,
            intent.iam_id,
            kind,
            {
                "intent": intent.id,
                "change": intent.kind,
                "credential_id": intent.data["credential_id"],
                "why": why,
            },
        )
