"""What a restored data directory must not bring back to life.

An older backup knows nothing of what was ended since. The revocation log does: credentials and keys it names
are ended again, here, before a server can start on the files. Where the log is gone nobody can say what was
ended, so every credential comes back locked, every service disabled and every grant ended. What only lives for
a while (sign-ins, sessions, cached access tokens, stand-in keys of running attempts) is ended in any case: it is
cheap to get anew.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

import sqlalchemy as sa

from taskcred.data_dir import DataDir
from taskcred.domain.credentials import CredentialState, CredentialView, KeyState, Origin, RevocationReason
from taskcred.domain.grants import GrantState
from taskcred.iam import tables as iam
from taskcred.revocations import Revocation
from taskcred.services import credentials as credential_services
from taskcred.services import grant_endings, intent_ending, registry, usability
from taskcred.store import audit, credentials, events, grants, migrate, services
from taskcred.store import tables as t
from taskcred.store.engine import sqlite_engine

_REASON: Final = RevocationReason.UNSPECIFIED  # the log has ids and times, no reasons


@dataclass(frozen=True, slots=True)
class Replayed:
    """Numbers. `has_log` is False where the log was gone; `locked` and `disabled` count the credentials and
    services that came back so for that."""

    has_log: bool
    ended_credentials: int = 0
    ended_keys: int = 0
    ended_grants: int = 0
    locked: int = 0
    disabled: int = 0

    def __str__(self) -> str:
        if not self.has_log:
            return (
                f"the revocation log of that time is gone, so {self.locked} task credentials are locked, "
                f"{self.disabled} services disabled and {self.ended_grants} grants ended"
            )
        return (
            f"{self.ended_credentials} task credentials, {self.ended_keys} keys and {self.ended_grants} grants "
            "stay ended"
        )


def make_safe(
    directory: Path, revoked: list[Revocation] | None, created_at: datetime, now: datetime
) -> Replayed:
    """Change the restored `records.db` and `iam.db` in `directory` as the module says. `revoked`: the log's
    entries, None where it is gone; `created_at`: when the backup was taken."""
    engine = sqlite_engine(DataDir(directory).records)
    try:
        migrate.upgrade(engine)
        with engine.begin() as connection:
            _end_what_is_short_lived(connection, now)
            events.leave_gap(connection)
            if revoked is None:
                locked = _lock_all(connection, created_at, now)
                disabled = services.disable_all(connection)
                ended = grants.active(connection, now)
                for grant in ended:
                    grant_endings.end_restored(connection, grant, now)
                replayed = Replayed(False, ended_grants=len(ended), locked=locked, disabled=disabled)
            else:
                replayed = _replay(connection, revoked, now)
            made_by_us = _provider_key_ids(connection, revoked or [])
            details = {"backup_of": created_at.isoformat(), **asdict(replayed)}
            event = audit.Event(
                "data:restore", "success", audit.OPERATOR, "", "", "data", "", details=details
            )
            audit.append(connection, event, now)
    finally:
        engine.dispose()
    _end_in_iam(DataDir(directory).iam, made_by_us, revoked or [])
    return replayed


def _end_what_is_short_lived(connection: sa.Connection, now: datetime) -> None:
    for table in (t.sessions, t.access_tokens, t.leases):
        connection.execute(table.delete())
    # Whoever was at work on an intent is not here any more: the keeper takes it up at once.
    is_open = t.intents.c.state == "open"
    connection.execute(
        t.intents.update().where(is_open).values(lease_holder=None, lease_until=None, next_try_at=now)
    )
    live = sa.select(t.attempts.c.id).where(t.attempts.c.outcome.is_(None))
    for attempt_id in connection.execute(live).scalars().all():
        # Nobody has a key with this digest. The attempt itself is for its worker to end, as after a crash.
        values = {"standin_digest": secrets.token_bytes(32)}
        connection.execute(t.attempts.update().where(t.attempts.c.id == attempt_id).values(values))


def _lock_all(connection: sa.Connection, created_at: datetime, now: datetime) -> int:
    why = (
        f"Restored from a backup of {created_at:%Y-%m-%d %H:%M} UTC without the log of later revocations. "
        "An operator unlocks it once it is clear that it was not ended since."
    )
    c = t.task_credentials.c
    is_to_lock = c.state.not_in([CredentialState.ENDED, CredentialState.LOCKED])
    ids = connection.execute(sa.select(c.id).where(is_to_lock)).scalars().all()
    for credential in _found(connection, ids):
        usability.put_aside(connection, credential, why, audit.OPERATOR, now)
    return len(ids)


def _found(connection: sa.Connection, ids: Iterable[str]) -> Iterator[CredentialView]:
    """Those of the credentials that exist and are not ended."""
    for credential_id in ids:
        credential = credentials.find_for_change(connection, credential_id)
        if credential is not None and credential.state is not CredentialState.ENDED:
            yield credential


def _replay(connection: sa.Connection, revoked: list[Revocation], now: datetime) -> Replayed:
    ended = list(_found(connection, [entry.ref for entry in revoked if entry.kind == "credential"]))
    for credential in ended:
        credential_services.end(connection, credential, _REASON, audit.OPERATOR, now)
    keys = ended_grants = 0
    for entry in revoked:
        if entry.kind == "worker":
            is_it = (t.workers.c.id == entry.ref) & t.workers.c.ended_at.is_(None)
            connection.execute(t.workers.update().where(is_it).values(ended_at=now))
        elif entry.kind == "key":
            keys += _end_key(connection, entry.ref, now)
        elif entry.kind == "grant":
            ended_grants += _end_grant(connection, entry.ref, now)
        elif entry.kind == "service":
            registry.let_go(connection, entry.ref, now)
        elif entry.kind == "service_secret":
            services.end_secret(connection, entry.ref, now)
        elif entry.kind == "service_trust":
            services.forget_trust(connection, entry.ref)
    return Replayed(True, len(ended), keys, ended_grants)


def _end_grant(connection: sa.Connection, grant_id: str, now: datetime) -> int:
    """1 where the grant was active in the backup."""
    grant = grants.find(connection, grant_id, now)
    if grant is None or grant.state is not GrantState.ACTIVE:
        return 0
    grant_endings.end_restored(connection, grant, now)
    return 1


def _end_key(connection: sa.Connection, key_id: str, now: datetime) -> int:
    """1 where the key was alive in the backup."""
    key = credentials.key(connection, key_id)
    owner = credentials.find_for_change(connection, key.credential_id) if key else None
    if key is None or owner is None or key.state in {KeyState.REVOKED, KeyState.DESTROYED}:
        return 0
    intent_ending.revoke(connection, owner, [key], _REASON, audit.OPERATOR, now)
    if key.state is KeyState.ACTIVE:
        why = "Its key was replaced or ended after the backup that was restored. Give it a new key."
        usability.take_out_of_use(connection, owner, CredentialState.UNUSABLE, why, now)
    return 1


def _provider_key_ids(connection: sa.Connection, revoked: list[Revocation]) -> set[str]:
    """The local IAM's ids of what we made for the keys and credentials that the log names."""
    refs = {entry.ref for entry in revoked if entry.kind in {"key", "credential"}}
    c = t.keys.c
    made = sa.select(c.id, c.credential_id, c.provider_key_id).where(
        c.origin == Origin.GENERATED, c.provider_key_id.is_not(None)
    )
    return {
        row.provider_key_id for row in connection.execute(made) if row.id in refs or row.credential_id in refs
    }


def _end_in_iam(database: Path, made_by_us: set[str], revoked: list[Revocation]) -> None:
    """Before the local IAM can answer: end its sign-ins, and what was ended or disabled there since."""
    deleted = made_by_us | {entry.ref for entry in revoked if entry.kind == "iam_key"}
    service_ids = {entry.ref for entry in revoked if entry.kind == "iam_service_id"}
    is_disabled = {
        entry.ref: entry.kind == "iam_key_disabled"  # the latest entry about a key counts
        for entry in revoked
        if entry.kind in {"iam_key_disabled", "iam_key_enabled"}
    }
    keys, ids = iam.api_keys, iam.service_ids
    engine = sqlite_engine(database)
    try:
        with engine.begin() as connection:
            for table in (iam.sign_ins, iam.authorization_codes, iam.refresh_tokens, iam.sign_in_links):
                connection.execute(table.delete())
            for key_id in deleted:
                connection.execute(keys.delete().where(keys.c.id == key_id))
            for service_id in service_ids:
                gone = ids.c.id == service_id
                its_keys = keys.c.iam_id.in_(sa.select(ids.c.iam_id).where(gone))
                connection.execute(keys.delete().where(its_keys))
                connection.execute(ids.delete().where(gone))
            for key_id, disabled in is_disabled.items():
                connection.execute(keys.update().where(keys.c.id == key_id).values(disabled=disabled))
    finally:
        engine.dispose()
