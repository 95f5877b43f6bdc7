"""The agent beside a pod's main container: begins an attempt, keeps its credentials in files, ends it.

It runs as a native sidecar (an init container with `restartPolicy: Always`), so the main container starts
when the agent is ready, which it is when the files are there, and gets its SIGTERM after the main container
has ended. How that went is in the file `exit-code`, written by the main container's last command.

An agent that was started again goes on with the attempt of the one before it, which is in the same volume, under
the same stand-in key; without it, it finds its run by the same key and begins another attempt. Where the run has
ended it stays, not ready, until it is told to stop: leaving would have it started again.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from threading import Event
from typing import Final

from taskcred.adapters.attempts import Job, ended_meanwhile, run_of
from taskcred.adapters.kubernetes.files import EXIT_CODE, SharedFiles
from taskcred.client import Attempt, Client, Run
from taskcred.client.errors import WaitingForCredential
from taskcred.errors import ConflictError, KeyRefusedError, TaskcredError, UnavailableError

_LOOK: Final = 1.0  # seconds between two looks at the attempt, its token and the exit code
_LOOK_WHILE_PARKED: Final = 3.0

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Work:
    """What to carry out, and from which networks its stand-in key may be used."""

    job: Job
    addresses: Sequence[str] = ()


class Agent:
    """`run` until `stop` is set. `status` is a line for probes and people."""

    def __init__(self, client: Client, work: Work, files: SharedFiles, stop: Event) -> None:
        self._client: Final = client
        self._work: Final = work
        self._files: Final = files
        self._stop: Final = stop
        self.status = ""
        self.is_ready = False
        self._say("starting")

    def run(self) -> None:
        """Carry the run out. Raises what cannot be got over; then the kubelet starts the agent again."""
        try:
            if self._files.exit_code() is None:
                self._carry_out()
            else:
                self._say("ended: the main container has ended before")
        except ConflictError as error:
            self._say(f"ended: {error.message}")
        finally:
            self._files.remove_secrets()
        self._stop.wait()

    def _carry_out(self) -> None:
        """Attempt after attempt, until one has ended the run."""
        kept = self._files.read_attempt()
        attempt = None if kept is None else self._client.go_on(kept)
        run_id = run_of(self._client, self._work.job).id if attempt is None else attempt.run.id
        while not self._stop.is_set():
            attempt = attempt or self._begin(run_id)
            if attempt is None:
                return
            self._keep(attempt)
            if self._is_over(attempt):
                self._end(attempt)
                return
            self._files.remove_secrets()
            _log.warning("Attempt %d was taken away.", attempt.number)
            attempt = None
            run = self._client.run(run_id)
            if run.is_final:
                raise ended_meanwhile(run)

    def _begin(self, run_id: str) -> Attempt | None:
        """An attempt, once the run's owner has a usable credential; None where we are told to stop."""
        while True:
            try:
                attempt = self._client.begin_attempt(run_id, addresses=self._work.addresses)
            except WaitingForCredential as parked:
                self._say(f"waiting: the run's owner answers at {parked.prompt_url}")
            else:
                _log.info("Attempt %d of run %s has begun.", attempt.number, run_id)
                self._files.write_attempt(attempt.kept())
                return attempt
            run = self._answered(run_id)
            if run is None:
                return None
            if run.is_final:
                raise ended_meanwhile(run)

    def _answered(self, run_id: str) -> Run | None:
        """The run when it no longer waits; None where we are told to stop."""
        while not self._stop.wait(_LOOK_WHILE_PARKED):
            run = self._client.run(run_id)
            if not run.is_waiting:
                return run
        return None

    def _keep(self, attempt: Attempt) -> None:
        """Keep the files fresh until the main container has ended, or the attempt, or shall not go on."""
        written = ""
        while not (attempt.ended or self._is_over(attempt)):
            try:
                token = attempt.session.token()
            except KeyRefusedError:
                self._say("ended: the stand-in key is refused")  # the next heartbeat tells why
            except UnavailableError as error:
                self._say(f"out of touch: {error.message}")
            else:
                if token != written:
                    self._files.write_credentials(attempt.environment())
                    self._files.write_token(token)
                    written = token
                self._say("ready", is_ready=True)
            self._stop.wait(_LOOK)

    def _is_over(self, attempt: Attempt) -> bool:
        """Whether the work is done, or shall not go on. The main container cannot hear that it was cancelled,
        so it gets no time to stop by itself."""
        return attempt.cancel_requested or self._stop.is_set() or self._files.exit_code() is not None

    def _end(self, attempt: Attempt) -> None:
        code = self._files.exit_code()
        self._files.remove_secrets()
        try:
            if attempt.cancel_requested and code != 0:
                attempt.end("cancelled", exit_code=code)
            elif code is None:
                attempt.end("failed", f"The pod ended, and its main container wrote no {EXIT_CODE}.")
            else:
                attempt.end("succeeded" if code == 0 else "failed", exit_code=code)
        except TaskcredError as error:  # taken away before; or the server is away, and silence ends it
            _log.warning("taskcred was not told of the end: %s", error.message)
        self._say(f"ended: exit code {code}")

    def _say(self, status: str, *, is_ready: bool = False) -> None:
        self.is_ready = is_ready
        if status != self.status:
            self.status = status
            self._files.write_status(status)
            _log.info("%s", status)
