"""Attempts and their output: queries. An attempt is live while it has no outcome."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final

import sqlalchemy as sa

from taskcred.domain.runs import AttemptOutcome, AttemptView, Executor, OutputView
from taskcred.store import tables as t

_PART: Final = 262_144  # characters of output in one answer


def insert(
    connection: sa.Connection,
    *,
    attempt_id: str,
    run_id: str,
    number: int,
    credential_id: str,
    executor: str,
    standin_digest: bytes,
    standin_last_four: str,
    now: datetime,
    addresses: list[str] | None = None,
) -> None:
    """A new live attempt. Only the digest of its stand-in key is kept."""
    connection.execute(
        t.attempts.insert().values(
            id=attempt_id,
            run_id=run_id,
            number=number,
            credential_id=credential_id,
            executor=executor,
            standin_digest=standin_digest,
            standin_last_four=standin_last_four,
            addresses=addresses,
            started_at=now,
            heartbeat_at=now,
        )
    )


def find(connection: sa.Connection, attempt_id: str) -> sa.Row[Any] | None:
    """The attempt's row."""
    return connection.execute(sa.select(t.attempts).where(t.attempts.c.id == attempt_id)).first()


def find_for_change(connection: sa.Connection, attempt_id: str) -> sa.Row[Any] | None:
    """The same, locked until the transaction ends."""
    query = sa.select(t.attempts).where(t.attempts.c.id == attempt_id)
    return connection.execute(query.with_for_update(key_share=True)).first()


def live_of_run(connection: sa.Connection, run_id: str) -> sa.Row[Any] | None:
    """The run's live attempt: there is at most one."""
    c = t.attempts.c
    return connection.execute(sa.select(t.attempts).where(c.run_id == run_id, c.outcome.is_(None))).first()


def set_key(
    connection: sa.Connection, attempt_id: str, standin_digest: bytes, last_four: str, now: datetime
) -> None:
    """Give a live attempt another stand-in key; the one before is forgotten."""
    connection.execute(
        t.attempts.update()
        .where(t.attempts.c.id == attempt_id)
        .values(standin_digest=standin_digest, standin_last_four=last_four, heartbeat_at=now)
    )


def end(
    connection: sa.Connection,
    attempt_id: str,
    outcome: AttemptOutcome,
    reason: str,
    exit_code: int | None,
    now: datetime,
) -> bool:
    """End a live attempt; whether it was live."""
    c = t.attempts.c
    done = connection.execute(
        t.attempts.update()
        .where(c.id == attempt_id, c.outcome.is_(None))
        .values(outcome=outcome, reason=reason, exit_code=exit_code, ended_at=now)
    )
    return done.rowcount == 1


def beat(connection: sa.Connection, attempt_ids: list[str], now: datetime) -> set[str]:
    """Say that these attempts go on; answers which of them are still live."""
    c = t.attempts.c
    live = sa.and_(c.id.in_(attempt_ids), c.outcome.is_(None))
    connection.execute(t.attempts.update().where(live).values(heartbeat_at=now))
    return set(connection.execute(sa.select(c.id).where(live)).scalars())


def set_launcher(connection: sa.Connection, attempt_id: str, launcher: dict[str, Any]) -> bool:
    """Which process must be gone before the run may be tried again; False where the attempt has ended."""
    c = t.attempts.c
    done = connection.execute(
        t.attempts.update().where(c.id == attempt_id, c.outcome.is_(None)).values(launcher=launcher)
    )
    return done.rowcount == 1


def heartbeats(connection: sa.Connection) -> dict[str, datetime]:
    """When each live attempt was last heard of."""
    c = t.attempts.c
    rows = connection.execute(sa.select(c.id, c.heartbeat_at).where(c.outcome.is_(None)))
    return {row.id: row.heartbeat_at for row in rows}


def live_elsewhere(connection: sa.Connection) -> list[sa.Row[Any]]:
    """The live attempts that no worker of ours carries out: id, started_at, and of their runs task and
    cancel_requested_at."""
    a, r = t.attempts.c, t.runs.c
    query: sa.Select[Any] = (
        sa.select(a.id, a.started_at, r.task, r.cancel_requested_at)
        .join(t.runs, r.id == a.run_id)
        .where(a.outcome.is_(None), r.executor != Executor.WORKER)
    )
    return list(connection.execute(query))


def append_output(
    connection: sa.Connection, attempt_id: str, chunks: list[str], *, output_bytes: int, truncated: bool
) -> None:
    """Further chunks, and the new totals of the attempt."""
    c = t.run_output.c
    if chunks:
        last = connection.execute(
            sa.select(sa.func.coalesce(sa.func.max(c.seq), 0)).where(c.attempt_id == attempt_id)
        ).scalar_one()
        connection.execute(
            t.run_output.insert(),
            [
                {"attempt_id": attempt_id, "seq": seq, "text": text}
                for seq, text in enumerate(chunks, last + 1)
            ],
        )
    connection.execute(
        t.attempts.update()
        .where(t.attempts.c.id == attempt_id)
        .values(output_bytes=output_bytes, output_truncated=truncated)
    )


def output(
    connection: sa.Connection, run_id: str, after: int, number: int | None = None
) -> OutputView | None:
    """Output after chunk `after` of the attempt numbered, else the latest; None where there is none."""
    a, c = t.attempts.c, t.run_output.c
    query = sa.select(a.id, a.outcome, a.output_truncated).where(a.run_id == run_id)
    if number is not None:
        query = query.where(a.number == number)
    attempt = connection.execute(query.order_by(a.number.desc()).limit(1)).first()
    if attempt is None:
        return None
    parts: list[str] = []
    size, last, complete = 0, after, True
    chunks = sa.select(c.seq, c.text).where(c.attempt_id == attempt.id, c.seq > after).order_by(c.seq)
    with connection.execute(chunks) as rows:
        for row in rows:
            if parts and size + len(row.text) > _PART:
                complete = False
                break
            parts.append(row.text)
            size += len(row.text)
            last = row.seq
    return OutputView(
        "".join(parts),
        last,
        truncated=attempt.output_truncated,
        finished=complete and attempt.outcome is not None,
    )


def of_run(connection: sa.Connection, run_id: str) -> list[AttemptView]:
    """A run's attempts, oldest first, without their tokens."""
    c = t.attempts.c
    rows = connection.execute(sa.select(t.attempts).where(c.run_id == run_id).order_by(c.number))
    return [
        AttemptView(
            row.id,
            row.number,
            None if row.outcome is None else AttemptOutcome(row.outcome),
            row.reason,
            row.executor,
            row.started_at,
            row.ended_at,
            row.exit_code,
            row.standin_last_four,
            addresses=None if row.addresses is None else tuple(row.addresses),
        )
        for row in rows
    ]
