"""Queries about task credentials and their keys."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from typing import Any, Final

import sqlalchemy as sa

from taskcred.domain.credentials import (
    CredentialState,
    CredentialView,
    KeyState,
    KeyView,
    Origin,
    RevocationReason,
)
from taskcred.store import tables as t

_c: Final = t.task_credentials.c
_k: Final = t.keys.c


def _key_view(row: Any) -> KeyView:
    return KeyView(
        id=row.id,
        credential_id=row.credential_id,
        name=row.name,
        state=KeyState(row.state),
        origin=Origin(row.origin),
        last_four=row.last_four,
        provider_key_id=row.provider_key_id,
        created_at=row.created_at,
        last_used_at=row.last_used_at,
        expires_at=row.expires_at,
        end_at=row.end_at,
        ended_at=row.ended_at,
        reason=RevocationReason(row.reason) if row.reason else None,
        last_token_expires_at=row.last_token_expires_at,
    )


def _view(connection: sa.Connection, row: Any) -> CredentialView:
    return CredentialView(
        id=row.id,
        account_id=row.account_id,
        iam_id=row.iam_id,
        name=row.name,
        description=row.description,
        scope=row.scope,
        state=CredentialState(row.state),
        state_reason=row.state_reason,
        created_at=row.created_at,
        created_by=row.created_by,
        updated_at=row.updated_at,
        ended_at=row.ended_at,
        revision=row.revision,
        active_key=active_key(connection, row.id),
    )


def insert(
    connection: sa.Connection,
    *,
    credential_id: str,
    account_id: str,
    iam_id: str,
    name: str,
    description: str,
    scope: dict[str, Any],
    created_by: str,
    now: datetime,
) -> None:
    """A credential in state creating. Raises sqlalchemy.exc.IntegrityError where the owner has one
    already (one-per-owner)."""
    connection.execute(
        t.task_credentials.insert().values(
            id=credential_id,
            account_id=account_id,
            iam_id=iam_id,
            name=name,
            description=description,
            scope=scope,
            state=CredentialState.CREATING,
            created_at=now,
            created_by=created_by,
            updated_at=now,
        )
    )


def find(connection: sa.Connection, credential_id: str) -> CredentialView | None:
    """The credential with this id, ended ones too."""
    row = connection.execute(sa.select(t.task_credentials).where(_c.id == credential_id)).one_or_none()
    return None if row is None else _view(connection, row)


def find_for_change(connection: sa.Connection, credential_id: str) -> CredentialView | None:
    """The same, with its row locked until the transaction ends: what is decided on it stays true."""
    row = connection.execute(
        sa.select(t.task_credentials).where(_c.id == credential_id).with_for_update()
    ).one_or_none()
    return None if row is None else _view(connection, row)


def find_own(connection: sa.Connection, account_id: str, iam_id: str) -> CredentialView | None:
    """The owner's one credential that has not ended."""
    row = connection.execute(
        sa.select(t.task_credentials).where(
            _c.account_id == account_id, _c.iam_id == iam_id, _c.state != CredentialState.ENDED
        )
    ).one_or_none()
    return None if row is None else _view(connection, row)


def change(connection: sa.Connection, credential_id: str, now: datetime, **values: Any) -> None:
    """Set columns of a credential; its revision grows."""
    connection.execute(
        t.task_credentials.update()
        .where(_c.id == credential_id)
        .values(updated_at=now, revision=_c.revision + 1, **values)
    )


def remove(connection: sa.Connection, credential_id: str) -> None:
    """Take out a credential that never came to be: it has no keys, and nothing was ever made with it."""
    connection.execute(t.task_credentials.delete().where(_c.id == credential_id))


def active_key(connection: sa.Connection, credential_id: str) -> KeyView | None:
    """The one active key, where there is one."""
    row = connection.execute(
        sa.select(t.keys).where(_k.credential_id == credential_id, _k.state == KeyState.ACTIVE)
    ).one_or_none()
    return None if row is None else _key_view(row)


def key(connection: sa.Connection, key_id: str) -> KeyView | None:
    """The key with this id."""
    row = connection.execute(sa.select(t.keys).where(_k.id == key_id)).one_or_none()
    return None if row is None else _key_view(row)


def keys(
    connection: sa.Connection, credential_id: str, states: Collection[KeyState] = tuple(KeyState)
) -> list[KeyView]:
    """A credential's keys in any of `states`: the active one, then newest first."""
    rows = connection.execute(
        sa.select(t.keys)
        .where(_k.credential_id == credential_id, _k.state.in_(states))
        .order_by(sa.case((_k.state == KeyState.ACTIVE, 0), else_=1), _k.created_at.desc(), _k.id)
    )
    return [_key_view(row) for row in rows]


def held_key(connection: sa.Connection, credential_id: str) -> KeyView | None:
    """The key a lock put aside: phased out with no drain."""
    row = connection.execute(
        sa.select(t.keys).where(
            _k.credential_id == credential_id, _k.state == KeyState.PHASED_OUT, _k.drain.is_(None)
        )
    ).one_or_none()
    return None if row is None else _key_view(row)


def forbids_digest(
    connection: sa.Connection, credential_id: str, digest: bytes, leaked_key_id: str | None
) -> bool:
    """Whether the credential may not be given a key with this keyed digest: it is in use or draining, was
    reported leaked (`leaked_key_id`: just now), or is one that we made and will end at the provider. A pasted
    key that failed may be pasted again once its owner has mended it."""
    query = sa.select(_k.id).where(
        _k.credential_id == credential_id,
        _k.digest == digest,
        sa.or_(
            _k.state.in_((KeyState.ACTIVE, KeyState.PHASED_OUT)),
            _k.reason == RevocationReason.KEY_COMPROMISE,
            _k.id == leaked_key_id,
            _k.origin == Origin.GENERATED,
        ),
    )
    return connection.execute(query).first() is not None


def insert_key(
    connection: sa.Connection,
    *,
    key_id: str,
    credential_id: str,
    name: str,
    origin: Origin,
    last_four: str,
    digest: bytes,
    provider_key_id: str | None,
    expires_at: datetime | None,
    token_expires_at: datetime,
    now: datetime,
) -> None:
    """The credential's new active key, from which a token living until `token_expires_at` was made."""
    connection.execute(
        t.keys.insert().values(
            id=key_id,
            credential_id=credential_id,
            name=name,
            state=KeyState.ACTIVE,
            origin=origin,
            last_four=last_four,
            digest=digest,
            provider_key_id=provider_key_id,
            created_at=now,
            last_used_at=now,
            expires_at=expires_at,
            last_token_expires_at=token_expires_at,
        )
    )


def change_key(connection: sa.Connection, key_id: str, **values: Any) -> None:
    """Set columns of a key."""
    connection.execute(t.keys.update().where(_k.id == key_id).values(**values))


def keys_due(connection: sa.Connection, now: datetime, limit: int) -> list[KeyView]:
    """Keys whose time has come: phased-out ones that are drained, active ones that expired."""
    drained = sa.and_(_is(KeyState.PHASED_OUT), _k.end_at <= now)
    expired = sa.and_(_is(KeyState.ACTIVE), _k.expires_at <= now)
    return [
        _key_view(row)
        for due in (drained, expired)
        for row in connection.execute(sa.select(t.keys).where(due).limit(limit))
    ]


def _is(state: KeyState) -> sa.ColumnElement[bool]:
    """Written out in the statement: a partial index is not chosen for a bound value."""
    return _k.state == sa.literal(state.value, literal_execute=True)
