"""An attempt that this program carries out: the session of its job, heartbeats, progress, its end."""

from __future__ import annotations

import asyncio
import tempfile
import weakref
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Literal, Self

from taskcred.authorities import write_ca_file
from taskcred.client import operations
from taskcred.client.drivers import AsyncDriver, Connection, SyncDriver
from taskcred.client.heartbeat import Heartbeat
from taskcred.client.models import Begun, Run
from taskcred.client.session import TaskSession
from taskcred.domain.job_environment import ca_variables, job_variables
from taskcred.domain.shown import plain
from taskcred.errors import TaskcredError

_LONGEST_TEXT: Final = 256  # characters that the server takes
_LONGEST_REASON: Final = 512
Outcome = Literal["succeeded", "failed", "timed_out", "cancelled"]


class _Live:
    """What both kinds of attempts share. Everything here returns at once and never fails for an outage."""

    def __init__(self, run: Run, begun: Begun, connection: Connection, driver: SyncDriver) -> None:
        self.id: Final = begun.attempt_id
        self.number: Final = begun.number
        self.run: Final = run  # as it was just before
        self.session: Final = TaskSession(
            connection.url, begun.stand_in_key, ca_file=connection.ca_file, timeout=connection.timeout
        )
        self._begun: Final = begun
        self._key: Final = begun.stand_in_key
        self._sdk_services: Final = begun.sdk_services
        self._connection: Final = connection
        self._patience: Final = begun.silence_seconds
        self._beat: Final = Heartbeat(driver, run.id, begun)
        # A key that is refused has most probably ended with its attempt, and the job must end.
        self.session.when_refused(self._beat.hurry)
        self._result: Run | None = None
        self._ca_file: Path | None = None

    @property
    def cancel_requested(self) -> bool:
        """Whether the run's owner or the service asked for its end: stop, then `end("cancelled")`."""
        return self._beat.cancel_requested

    @property
    def ended(self) -> bool:
        """Whether it is over: ended here, or taken away (silent for too long, its grant ended)."""
        return self._result is not None or self._beat.ended

    @property
    def problem(self) -> TaskcredError | None:
        """Why the server does not hear of the attempt at present; it is tried again. None where all is well."""
        return self._beat.problem

    def progress(self, done: int, total: int, text: str = "") -> None:
        """How far the job is, for the pages; sent with the next heartbeat."""
        self._beat.tell(progress={"done": done, "total": total, "text": _sendable(text)[:_LONGEST_TEXT]})

    def output(self, text: str) -> None:
        """What the job printed, for the pages; sent with the next heartbeats."""
        if text:
            self._beat.tell(
                output=_encodable(text.replace("\x00", "\ufffd"))
            )  # a NUL the server does not keep

    def environment(self, services: Iterable[str] = ()) -> dict[str, str]:
        """Variables for a child process, to be laid over a copy of this one's: the stand-in key where IBM's
        SDKs look for an API key, for each of the task's SDK services and of `services` ("iam_identity") too.
        Give them to nobody else."""
        names = {*self._sdk_services, *services}
        variables = job_variables(self.run.id, self._key, self._connection.url, sorted(names))
        if self._connection.ca_file is not None:
            if self._ca_file is None:
                directory = tempfile.TemporaryDirectory(prefix="taskcred-")
                weakref.finalize(self, directory.cleanup)
                self._ca_file = Path(directory.name) / "ca.pem"
                write_ca_file(Path(self._connection.ca_file), self._ca_file)
            variables |= ca_variables(str(self._ca_file))
        return variables

    def kept(self) -> dict[str, Any]:
        """JSON values for `Client.go_on`, where a process may be replaced before the attempt has ended. As
        secret as the stand-in key that is among them."""
        return {"run_id": self.run.id, **self._begun.kept()}

    def __repr__(self) -> str:
        return f"{type(self).__name__}(id={self.id!r}, number={self.number}, run={self.run.id!r})"

    def _over(self, outcome: str, reason: str, exit_code: int | None, *, again: bool) -> dict[str, Any]:
        said: dict[str, Any] = {
            "outcome": outcome,
            "reason": _sendable(reason)[:_LONGEST_REASON],
            "again": again,
        }
        return said if exit_code is None else said | {"exit_code": exit_code}

    def _leaving(self, error: BaseException) -> tuple[Outcome, str]:
        """How an attempt ends whose block was left by `error`. Its text may hold anything: not told."""
        if self.cancel_requested:
            return "cancelled", "Ended as asked for."
        return "failed", f"{type(error).__name__} in the job."

    @property
    def _needs_no_end(self) -> bool:
        """Ended already, or not ours to end: in a fork the block is left as well."""
        return self._result is not None or self._beat.is_copy


class Attempt(_Live):
    """`with client.begin_attempt(run_id) as attempt:` ends it as succeeded, or, where an exception leaves
    the block, as failed with the exception's type."""

    def __init__(self, run: Run, begun: Begun, driver: SyncDriver) -> None:
        super().__init__(run, begun, driver.connection, driver)
        self._driver: Final = driver

    def end(
        self, outcome: Outcome, reason: str = "", exit_code: int | None = None, *, again: bool = False
    ) -> Run:
        """End it; the run with its outcome. `again` queues the run for another attempt. Raises ConflictError
        (code attempt_ended) where it was taken away before."""
        if self._result is None:
            unsent = self._beat.stop()
            said = self._over(outcome, reason, exit_code, again=again)
            self._result = self._driver.run(
                operations.end_attempt(self.run.id, self.id, said, unsent, self._patience)
            )
            self.session.close()
        return self._result

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._needs_no_end:
            return
        if error is None:
            self.end("succeeded")
            return
        try:
            self.end(*self._leaving(error))
        except TaskcredError as problem:  # what left the block matters more
            error.add_note(f"taskcred could not be told: {problem}")


class AsyncAttempt(_Live):
    """`async with await client.begin_attempt(run_id) as attempt:`, as `Attempt`."""

    def __init__(self, run: Run, begun: Begun, driver: AsyncDriver) -> None:
        # Heartbeats come from a thread here too: they must not wait for an event loop that is busy.
        super().__init__(run, begun, driver.connection, SyncDriver(driver.connection))
        self._driver: Final = driver

    async def end(
        self, outcome: Outcome, reason: str = "", exit_code: int | None = None, *, again: bool = False
    ) -> Run:
        """As `Attempt.end`."""
        if self._result is None:
            unsent = await asyncio.to_thread(self._beat.stop)
            said = self._over(outcome, reason, exit_code, again=again)
            self._result = await self._driver.run(
                operations.end_attempt(self.run.id, self.id, said, unsent, self._patience)
            )
            self.session.close()
        return self._result

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._needs_no_end:
            return
        if error is None:
            await self.end("succeeded")
            return
        try:
            await self.end(*self._leaving(error))
        except TaskcredError as problem:  # as above
            error.add_note(f"taskcred could not be told: {problem}")


def _sendable(text: str) -> str:
    """A text for the pages, as the server takes it: a job's words may hold colours of a terminal."""
    return plain(_encodable(text))


def _encodable(text: str) -> str:
    """Without halves of surrogate pairs, which JSON cannot carry."""
    return text.encode("utf-8", "replace").decode()
