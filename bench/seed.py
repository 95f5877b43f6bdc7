"""Filling a stopped server's databases with many rows at once."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import sqlalchemy as sa

from taskcred.domain.keytext import USER_KEY_PREFIX, new_key
from taskcred.store import tables as t
from taskcred.store.engine import sqlite_engine
from taskcred.vaults.embedded import EmbeddedVault
from taskcred.vaults.master_key import MasterKeyFile
from tests.support.server import Server

NOW = datetime.now(UTC)


@contextmanager
def records(server: Server) -> Iterator[sa.Connection]:
    """One transaction on the records of a stopped server."""
    engine = sqlite_engine(server.data_dir / "records.db")
    with engine.begin() as connection:
        yield connection
    engine.dispose()


def _owner(number: int) -> dict[str, str]:
    return {"account_id": "seeded", "iam_id": f"IBMid-seeded-{number}"}


def credentials(server: Server, count: int) -> None:
    """`count` owners with a usable credential each, key material in the vault included."""
    vault = EmbeddedVault(
        server.data_dir / "vault.db", MasterKeyFile.locate(server.data_dir, None, os.environ)
    )
    credential_rows: list[dict[str, Any]] = []
    key_rows: list[dict[str, Any]] = []
    for number in range(count):
        credential, key = str(uuid.uuid4()), str(uuid.uuid4())
        vault.store(f"credentials/{credential}/{key}", new_key(USER_KEY_PREFIX))
        credential_rows.append(
            {"id": credential, **_owner(number), "name": "seeded", "scope": {}, "state": "usable"}
            | {"created_at": NOW, "created_by": "seed", "updated_at": NOW}
        )
        key_rows.append(
            {
                "id": key,
                "credential_id": credential,
                "name": "seeded",
                "state": "active",
                "origin": "provided",
            }
            | {"last_four": "seed", "created_at": NOW}
        )
    vault.close()
    with records(server) as connection:
        connection.execute(t.task_credentials.insert(), credential_rows)
        connection.execute(t.keys.insert(), key_rows)


def parked_runs(server: Server, count: int) -> None:
    """`count` runs of as many owners, each waiting for a credential with its prompt open."""
    with records(server) as connection:
        connection.execute(
            t.runs.insert(),
            [
                {"id": str(uuid.uuid4()), **_owner(number), "task": "sleep", "parameters": {}}
                | {"state": "waiting_for_credential", "started_by": "seed", "created_at": NOW}
                for number in range(count)
            ],
        )
        connection.execute(
            t.prompts.insert(),
            [
                {"id": str(uuid.uuid4()), **_owner(number), "state": "open", "why": "missing"}
                | {"opened_at": NOW, "notify_at": NOW + timedelta(days=1)}
                for number in range(count)
            ],
        )


def schedules(server: Server, count: int) -> None:
    """`count` schedules, none due for a year."""
    with records(server) as connection:
        connection.execute(
            t.schedules.insert(),
            [
                {"id": str(uuid.uuid4()), **_owner(number % 10_000), "name": "seeded", "task": "sleep"}
                | {
                    "parameters": {},
                    "cron": "0 2 * * *",
                    "timezone": "UTC",
                    "misfire": "run_once",
                    "paused": False,
                }
                | {
                    "next_at": NOW + timedelta(days=365, seconds=number),
                    "created_at": NOW,
                    "created_by": "seed",
                }
                for number in range(count)
            ],
        )
