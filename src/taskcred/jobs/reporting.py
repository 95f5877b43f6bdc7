"""From what a job prints to the records: output for its owner to read, progress for the bar."""

from __future__ import annotations

import time
from typing import Final

import structlog

from taskcred.domain.secret import Secret
from taskcred.errors import UnavailableError
from taskcred.jobs.output import Output, Progress
from taskcred.services import attempts
from taskcred.services.context import Context

_log = structlog.get_logger("taskcred.jobs")

_EVERY: Final = 0.5  # seconds between two writes
_MOST: Final = 65_536  # bytes that wait to be written


class Reporter:
    """Writes an attempt's output and progress, at most every half second where the job prints little."""

    def __init__(self, ctx: Context, attempt_id: str, secrets: tuple[Secret, ...]) -> None:
        self._ctx = ctx
        self._attempt_id = attempt_id
        self._output = Output(secrets)
        self._progress: Progress | None = None
        self._waiting = 0
        self._full = False
        self._next = time.monotonic() + _EVERY

    def feed(self, data: bytes) -> None:
        """Take in what was read (possibly nothing), and write what is due."""
        self._output.feed(data)
        self._waiting += len(data)
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + _EVERY
            self._write()
            self._tell()
        elif self._waiting >= _MOST:
            self._write()

    def close(self) -> None:
        """The job is over: write the rest."""
        self._write(final=True)
        self._tell()

    def _write(self, *, final: bool = False) -> None:
        self._waiting = 0
        printed = self._output.take(final=final)
        self._progress = printed.progress or self._progress
        if not printed.text or self._full:
            return
        try:
            self._full = not attempts.append_output(self._ctx, self._attempt_id, printed.text)
        except UnavailableError as error:
            # The output of a job is worth less than the job: it goes on, and this part is missing.
            _log.warning("output not kept", attempt_id=self._attempt_id, why=error.message)

    def _tell(self) -> None:
        if self._progress is None:
            return
        step, self._progress = self._progress, None
        try:
            attempts.progress(self._ctx, self._attempt_id, step.done, step.total, step.text)
        except UnavailableError as error:
            _log.warning("progress not kept", attempt_id=self._attempt_id, why=error.message)
