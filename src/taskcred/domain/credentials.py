"""Task credentials and their keys: the states of design section 2 and the decisions about them."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final, Literal

from taskcred.domain.secret import Secret

CREDENTIAL_TYPE: Final = "iam_api_key"
DEFAULT_NAME: Final = "Task credential"  # of one whose owner gave it no name
DEFAULT_KEY_LIFE: Final = timedelta(days=90)  # a quarter: long enough to forget, short enough to matter


class CredentialState(StrEnum):
    """A task credential's states. All but ENDED count for one-per-owner."""

    CREATING = "creating"  # an intent is making its first key
    USABLE = "usable"  # has exactly one active key
    LOCKED = "locked"  # ended reversibly, by an administrator or after a restore
    UNUSABLE = "unusable"  # its key expired or the provider refuses it; an answer replaces the key in place
    ENDED = "ended"  # for good; a new one may be made at once


class KeyState(StrEnum):
    """A key's states. A key that is still being made has none: it exists in its intent only."""

    ACTIVE = "active"
    PHASED_OUT = "phased_out"  # replaced; tokens made from it may still live
    EXPIRED = "expired"
    REVOKED = "revoked"  # ended with a reason; its material waits to be destroyed
    DESTROYED = "destroyed"


class Origin(StrEnum):
    """Who made the key: we, at the provider; or the owner, who pasted it."""

    GENERATED = "generated"
    PROVIDED = "provided"


class RevocationReason(StrEnum):
    """After RFC 5280, 5.3.1, the part that applies to keys."""

    UNSPECIFIED = "unspecified"
    KEY_COMPROMISE = "key_compromise"
    SUPERSEDED = "superseded"
    CESSATION_OF_OPERATION = "cessation_of_operation"
    PRIVILEGE_WITHDRAWN = "privilege_withdrawn"


@dataclass(frozen=True, slots=True)
class Provided:
    """Key source: the owner pasted an existing key."""

    api_key: Secret


@dataclass(frozen=True, slots=True)
class Generated:
    """Key source: we make a key at the provider. `show_once` shows it to its owner, once, in the answer.

    It expires at `expires_at`, else after DEFAULT_KEY_LIFE: that it never does has to be said.
    """

    show_once: bool = False
    expires_at: datetime | None = None
    never_expires: bool = False

    def expiry(self, now: datetime) -> datetime | None:
        """When a key made `now` expires; None: never."""
        if self.never_expires:
            return None
        return self.expires_at or now + DEFAULT_KEY_LIFE


KeySource = Provided | Generated


@dataclass(frozen=True, slots=True)
class Drain:
    """When a replaced key ends: when its last token has expired, at once, or at a time."""

    how: Literal["tokens", "now", "at"] = "tokens"
    at: datetime | None = None


@dataclass(frozen=True, slots=True)
class KeyView:
    """A key as its owner may see it; never its material."""

    id: str
    credential_id: str
    name: str
    state: KeyState
    origin: Origin
    last_four: str
    provider_key_id: str | None
    created_at: datetime
    last_used_at: datetime | None
    expires_at: datetime | None
    end_at: datetime | None  # a phased-out key ends then; None: not planned
    ended_at: datetime | None
    reason: RevocationReason | None
    last_token_expires_at: datetime | None  # safe to delete after this instant


@dataclass(frozen=True, slots=True)
class CredentialView:
    """A task credential as its owner may see it."""

    id: str
    account_id: str
    iam_id: str
    name: str
    description: str
    scope: dict[str, object]
    state: CredentialState
    state_reason: str | None  # why locked or unusable, in words for the owner
    created_at: datetime
    created_by: str
    updated_at: datetime
    ended_at: datetime | None
    revision: int
    active_key: KeyView | None = None
    type: str = CREDENTIAL_TYPE


@dataclass(frozen=True, slots=True)
class Created:
    """Answer of create and rotate. `shown_once` holds a generated key's text if its owner asked to see it."""

    credential: CredentialView
    intent_id: str
    stage: str  # the intent's stage; "done" when finished
    shown_once: Secret | None = None


@dataclass(frozen=True, slots=True)
class Impact:
    """What ending the credential would break: the same list everywhere it is asked."""

    schedules: tuple[ImpactItem, ...] = ()
    live_runs: tuple[ImpactItem, ...] = ()
    waiting_runs: int = 0
    live_tokens_until: datetime | None = None
    last_used_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class ImpactItem:
    """One schedule or run: `at` is its next time or its start."""

    id: str
    name: str
    at: datetime | None = field(default=None)


def is_safe_to_delete(key: KeyView, now: datetime) -> bool:
    """Whether no access token made from this key can still be alive."""
    return key.last_token_expires_at is None or key.last_token_expires_at <= now
