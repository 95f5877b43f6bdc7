"""Grants: an owner's standing consent that one service may start runs of named tasks until a date."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

DEFAULT_DAYS: Final = 90
LONGEST_DAYS: Final = 365
REMIND_BEFORE: Final = timedelta(days=7)  # owners are told so long before a grant expires


class GrantState(StrEnum):
    """A grant's states; the last two are final."""

    ACTIVE = "active"
    ENDED = "ended"
    EXPIRED = "expired"


class GrantEnd(StrEnum):
    """Why a grant ended before its date."""

    OWNER = "owner"  # withdrawn
    REPLACED = "replaced"  # by a newer consent of the same owner to the same service
    SERVICE_ENDED = "service_ended"
    OPERATOR = "operator"  # a restore that could not tell whether it was ended since the backup


@dataclass(frozen=True, slots=True)
class GrantView:
    """A grant as its owner and its service may see it. `state` is "expired" from `expires_at` on, whether
    or not the keeper has recorded it yet; `acting_iam_id` is the person who consented for a service id."""

    id: str
    account_id: str
    iam_id: str
    acting_iam_id: str
    service_id: str
    service_name: str
    service_title: str
    tasks: tuple[str, ...]
    state: GrantState
    created_at: datetime
    expires_at: datetime
    last_used_at: datetime | None
    ended_at: datetime | None
    end_reason: GrantEnd | None
    revision: int
