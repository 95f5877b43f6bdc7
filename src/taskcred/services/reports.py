"""What a worker reports of the jobs it runs: their process, their pulse, their output, their progress."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Final

import sqlalchemy as sa

from taskcred.domain.runs import RunState
from taskcred.domain.shown import plain
from taskcred.errors import NotFoundError
from taskcred.services.context import Context
from taskcred.services.runs import UNKNOWN_TASK
from taskcred.store import attempts as store
from taskcred.store import runs as run_store

_CHUNK: Final = 65_536  # characters of one row of output
_MAX_COUNT: Final = 2**31 - 1


def set_launcher(
    ctx: Context, attempt_id: str, launcher: dict[str, Any], isolation: str | None = None
) -> bool:
    """Record the process that must be gone before a retry, {"pid", "started"}, and how the job is isolated.

    Called before the job begins. False where the attempt has ended meanwhile: the job must not begin.
    """
    with ctx.store.write() as connection:
        attempt = find_attempt(connection, attempt_id)
        if not store.set_launcher(connection, attempt_id, launcher):
            return False
        return run_store.move(connection, attempt.run_id, (RunState.RUNNING,), isolation=isolation)


def heartbeat(ctx: Context, attempt_ids: Collection[str]) -> set[str]:
    """Say that these attempts go on; answers those that are over, whose jobs the worker must end."""
    if not attempt_ids:
        return set()
    with ctx.store.write(shared=True) as connection:
        live = store.beat(connection, list(attempt_ids), ctx.clock.now())
    return set(attempt_ids) - live


def cancel_requested(ctx: Context) -> set[str]:
    """Ids of the running runs whose owner asked for their end."""
    with ctx.store.read() as connection:
        return run_store.cancel_requested(connection)


def append_output(ctx: Context, attempt_id: str, text: str) -> bool:
    """Keep what the job printed, up to its task's limit in bytes; False once the limit is passed.

    The caller has masked the stand-in key. The last lines may arrive after the attempt has ended.
    """
    with ctx.store.write(shared=True) as connection:
        attempt = _found(store.find_for_change(connection, attempt_id))  # its bytes are counted
        run = run_store.find(connection, attempt.run_id)
        return keep_output(ctx, connection, attempt, run.task if run else "", text)


def keep_output(ctx: Context, connection: sa.Connection, attempt: sa.Row[Any], task: str, text: str) -> bool:
    """See `append_output`; in the caller's transaction."""
    if attempt.output_truncated:
        return False
    clean = text.replace("\x00", "\ufffd").encode("utf-8", "replace")  # PostgreSQL stores no NUL
    room = max(0, ctx.tasks.get(task, UNKNOWN_TASK).output_limit - attempt.output_bytes)
    kept = clean[:room].decode("utf-8", "ignore")
    truncated = len(clean) > room
    chunks = [kept[start : start + _CHUNK] for start in range(0, len(kept), _CHUNK)]
    total = attempt.output_bytes + len(kept.encode())
    store.append_output(connection, attempt.id, chunks, output_bytes=total, truncated=truncated)
    return not truncated


def progress(ctx: Context, attempt_id: str, done: int, total: int, text: str = "") -> None:
    """How far the job says it is; nothing happens where the attempt has ended."""
    with ctx.store.write(shared=True) as connection:
        attempt = find_attempt(connection, attempt_id)
        if attempt.outcome is None:
            note_progress(connection, attempt.run_id, done, total, text)


def note_progress(connection: sa.Connection, run_id: str, done: int, total: int, text: str) -> None:
    """See `progress`; in the caller's transaction."""
    run_store.move(
        connection,
        run_id,
        (RunState.RUNNING,),
        progress_done=max(0, min(done, _MAX_COUNT)),
        progress_total=max(0, min(total, _MAX_COUNT)),
        progress_text=plain(text).encode("utf-8", "replace").decode()[:256],
    )


def find_attempt(connection: sa.Connection, attempt_id: str) -> sa.Row[Any]:
    """The attempt's row. Raises NotFoundError."""
    return _found(store.find(connection, attempt_id))


def _found(row: sa.Row[Any] | None) -> sa.Row[Any]:
    if row is None:
        raise NotFoundError("There is no such attempt.", hint="Its run may have been removed.")
    return row
