"""The thread that says "still here" for an attempt, and carries its news."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any, Final

from taskcred.client import forking, operations, protocol
from taskcred.client.drivers import SyncDriver
from taskcred.client.models import Begun
from taskcred.domain import masking
from taskcred.errors import ConflictError, InvalidRequestError, NotFoundError, TaskcredError

_SOON: Final = 1.0  # seconds between two heartbeats, at least, where there is news
_PART: Final = 32_768  # characters of output in one heartbeat
_KEPT: Final = 1_048_576  # characters of output that wait for a server that is away; the rest is dropped


class Heartbeat:
    """Beats from its own thread until it is stopped or the server says that the attempt has ended. Outages
    are waited out: whether they were too long is the server's to say."""

    def __init__(self, driver: SyncDriver, run_id: str, begun: Begun) -> None:
        self._driver: Final = driver
        self._run_id: Final = run_id
        self._attempt_id: Final = begun.attempt_id
        self._every: Final = begun.heartbeat_seconds
        # The text itself is needed to be found in what the job prints.
        self._secrets: Final = (begun.stand_in_key.reveal(),)
        self._wake = threading.Condition()
        self._progress: dict[str, Any] | None = None
        self._output = ""
        self._stopped = False
        self._is_hurried = False
        self._is_copy = False
        self.cancel_requested = False
        self.ended = False
        self.problem: TaskcredError | None = None  # why the last heartbeat was not heard
        self._thread = threading.Thread(target=self._beat, name="taskcred-heartbeat", daemon=True)
        self._thread.start()
        forking.follow(self)

    @property
    def is_copy(self) -> bool:
        """Whether this process is a fork of the one that began the attempt: it says nothing for it."""
        return self._is_copy

    def tell(self, *, progress: dict[str, Any] | None = None, output: str = "") -> None:
        """News for the next heartbeat, which is soon. Of several reports of progress the last one counts."""
        self._verify_ours()
        with self._wake:
            self._progress = progress or self._progress
            self._output = masking.mask(self._output + output, self._secrets)[:_KEPT]
            self._wake.notify()

    def hurry(self) -> None:
        """Beat now: something says that the attempt may have ended, and the server's answer tells."""
        if self._is_copy:
            return
        with self._wake:
            self._is_hurried = True
            self._wake.notify()

    def stop(self) -> list[Mapping[str, Any]]:
        """End the thread; the news that it had no time to tell."""
        self._verify_ours()
        with self._wake:
            self._stopped = True
            self._wake.notify()
        self._thread.join()
        unsent: list[Mapping[str, Any]] = []
        while news := self._next():
            unsent.append(news)
        return unsent

    def after_fork(self) -> None:
        """In the child: there is no thread, and none is wanted."""
        self._is_copy = True

    def _verify_ours(self) -> None:
        if self._is_copy:
            raise InvalidRequestError(
                "This process is a fork of the one that began the attempt.",
                hint="Report from there; a fork has the session only.",
            )

    def _beat(self) -> None:
        last, failures = protocol.now(), 0
        while True:
            with self._wake:
                while not self._stopped and not self._is_hurried:
                    has_news = self._progress is not None or self._sendable() > 0
                    due = last + (_SOON if has_news and not failures else self._every)
                    if failures:
                        due = last + min(self._every, protocol.pause_after(failures, None))
                    left = due - protocol.now()
                    if left <= 0:
                        break
                    self._wake.wait(left)
                if self._stopped:
                    return
                self._is_hurried = False
                news = self._next()
            last = protocol.now()
            try:
                asked = self._driver.run(operations.heartbeat(self._run_id, self._attempt_id, news))
            except (ConflictError, NotFoundError):
                self.ended = True
                return
            except (
                InvalidRequestError
            ) as error:  # the news cannot be told; that there was some is told by the next
                failures, self.problem = failures + 1, error
            except (
                TaskcredError
            ) as error:  # whatever it is, somebody may mend it before the silence is too long
                failures, self.problem = failures + 1, error
                self._take_back(news)
            else:
                failures, self.problem = 0, None
                self.cancel_requested = self.cancel_requested or asked

    def _next(self) -> dict[str, Any]:
        """The next part of the news; empty where there is none."""
        news: dict[str, Any] = {}
        if self._progress is not None:
            news["progress"], self._progress = self._progress, None
        size = min(_PART, self._sendable())
        if size:
            news["output"], self._output = self._output[:size], self._output[size:]
        return news

    def _sendable(self) -> int:
        """How much of the output may go: not a key of which only the beginning was printed yet. The server masks
        keys as well, and sees one heartbeat at a time."""
        return len(self._output) - (0 if self._stopped else masking.begun(self._output, self._secrets))

    def _take_back(self, news: Mapping[str, Any]) -> None:
        with self._wake:
            self._progress = self._progress or news.get("progress")
            self._output = (news.get("output", "") + self._output)[:_KEPT]
