"""API keys: what is kept about one, and every change to it. Functions over a connection of iam.db.

A key is kept as the SHA-256 digest of its value, which has full entropy: ours by construction, a
caller-chosen one by its owner's care (32 characters or more, as IBM asks).
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import sqlalchemy as sa

from taskcred.domain.keytext import USER_KEY_PREFIX, is_standin_key, new_key
from taskcred.domain.secret import Secret
from taskcred.errors import ConflictError, NotFoundError
from taskcred.iam import tables
from taskcred.iam.database import remember
from taskcred.iam.entities import entity_tag, next_tag
from taskcred.iam.fields import DESCRIPTION_LENGTH, Fields, format_instant, invalid

MOST_PER_IDENTITY: Final = 20
LEAK_ACTIONS: Final = ("none", "disable", "delete")
_MIN_VALUE: Final = 32
_MAX_VALUE: Final = 512

_k = tables.api_keys


@dataclass(frozen=True, slots=True)
class NewKey:
    """What a caller asks for. `value` is None where we draw it."""

    name: str
    description: str = ""
    value: Secret | None = None
    is_stored: bool = False
    support_sessions: bool = False
    action_when_leaked: str = "none"
    expires_at: datetime | None = None
    is_locked: bool = False
    is_disabled: bool = False

    @classmethod
    def read(cls, fields: Fields, now: datetime, *, locked: bool = False, disabled: bool = False) -> NewKey:
        """From the body of a request. Raises InvalidRequestError."""
        raw = fields.text("apikey", at_least=_MIN_VALUE, at_most=_MAX_VALUE)
        if raw and is_standin_key(raw):
            raise invalid("apikey", "Choose another value: this form is kept for stand-in keys of runs.")
        expires_at = fields.instant("expires_at")
        if expires_at is not None and expires_at <= now:
            raise invalid("expires_at", "It must lie in the future.")
        return cls(
            name=fields.text("name", required=True),
            description=fields.text("description", at_most=DESCRIPTION_LENGTH, lines=True),
            value=Secret(raw) if raw else None,
            is_stored=fields.boolean("store_value"),
            support_sessions=fields.boolean("support_sessions"),
            action_when_leaked=fields.choice("action_when_leaked", LEAK_ACTIONS, "none"),
            expires_at=expires_at,
            is_locked=locked,
            is_disabled=disabled,
        )


def new_key_id() -> str:
    """`ApiKey-` and a UUID."""
    return f"ApiKey-{uuid.uuid4()}"


def draw_value() -> Secret:
    """A fresh value in the local IAM's own form."""
    return new_key(USER_KEY_PREFIX)


def add(
    connection: sa.Connection,
    key_id: str,
    new: NewKey,
    *,
    value: Secret,
    account_id: str,
    iam_id: str,
    by: str,
    now: datetime,
) -> None:
    """Create a key. Raises ConflictError where the value is in use or the identity has its twenty keys."""
    count = connection.scalar(
        sa.select(sa.func.count()).where(_k.c.account_id == account_id, _k.c.iam_id == iam_id)
    )
    if (count or 0) >= MOST_PER_IDENTITY:
        raise ConflictError(
            f"This identity has {MOST_PER_IDENTITY} API keys, which is the most there can be.",
            hint="Delete one that is no longer used.",
            code="limit_reached",
        )
    digest = value.digest()
    if connection.execute(sa.select(_k.c.id).where(_k.c.digest == digest)).first():
        raise ConflictError(
            "This value cannot be used for an API key.",
            hint="Choose another value; each may be used once.",
            code="value_in_use",
        )
    connection.execute(
        sa.insert(_k).values(
            id=key_id,
            digest=digest,
            account_id=account_id,
            iam_id=iam_id,
            name=new.name,
            description=new.description,
            locked=new.is_locked,
            disabled=new.is_disabled,
            stored=new.is_stored,
            support_sessions=new.support_sessions,
            action_when_leaked=new.action_when_leaked,
            created_at=now,
            created_by=by,
            modified_at=now,
            expires_at=new.expires_at,
            revision=1,
            tag=next_tag(),
        )
    )
    remember(
        connection,
        at=now,
        action="apikey:create",
        target=key_id,
        iam_id=by,
        account_id=account_id,
        params={"name": new.name, "iam_id": iam_id},
    )


def find(connection: sa.Connection, key_id: str) -> sa.Row[Any] | None:
    """The key's row."""
    return connection.execute(sa.select(_k).where(_k.c.id == key_id)).first()


def find_by_value(connection: sa.Connection, value: Secret) -> sa.Row[Any] | None:
    """The row of the key with this value."""
    return connection.execute(sa.select(_k).where(_k.c.digest == value.digest())).first()


def not_found() -> NotFoundError:
    """One answer for a key that is not there and for one that is not the caller's to see."""
    return NotFoundError("The API key could not be found.", hint="List your API keys to see their ids.")


def delete(connection: sa.Connection, row: sa.Row[Any], *, by: str, now: datetime) -> None:
    """Take a key away: from the commit on it gets no tokens."""
    connection.execute(sa.delete(_k).where(_k.c.id == row.id))
    remember(
        connection,
        at=now,
        action="apikey:delete",
        target=row.id,
        iam_id=by,
        account_id=row.account_id,
        params={"name": row.name, "iam_id": row.iam_id},
    )


def as_json(row: sa.Row[Any], *, value: Secret | None = None) -> dict[str, Any]:
    """A key in IBM's shape. `apikey` is always there, empty where the value is not to be shown: IBM's
    model class cannot be built without it."""
    answer = {
        "id": row.id,
        "entity_tag": entity_tag(row),
        "crn": f"crn:v1:bluemix:public:iam-identity::a/{row.account_id}::apikey:{row.id}",
        "locked": row.locked,
        "disabled": row.disabled,
        "created_at": format_instant(row.created_at),
        "created_by": row.created_by,
        "modified_at": format_instant(row.modified_at),
        "support_sessions": row.support_sessions,
        "action_when_leaked": row.action_when_leaked,
        "name": row.name,
        "iam_id": row.iam_id,
        "account_id": row.account_id,
        "leaked": False,
        # The one who creates a key, or kept its value with store_value, gets it here.
        "apikey": value.reveal() if value else "",
    }
    if row.description:
        answer["description"] = row.description
    if row.expires_at:
        answer["expires_at"] = format_instant(row.expires_at)
    return answer
