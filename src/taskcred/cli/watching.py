"""Following a run: poll with ETag, print its output as it grows, show a progress bar."""

from __future__ import annotations

import sys
import time
from typing import Any, Final

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from taskcred.cli import output
from taskcred.cli.client import Client
from taskcred.domain.runs import FINAL_STATES
from taskcred.domain.shown import plain

_PERIOD: Final = 0.5  # seconds between polls


def follow(server: Client, run: str, *, quiet: bool) -> dict[str, Any]:
    """The run once it has ended. Its output goes to standard output unless `quiet`, the bar to standard
    error where that is a terminal."""
    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with (
        Progress(
            *columns,
            console=console,
            transient=True,
            disable=quiet or not console.is_terminal,
            redirect_stdout=sys.stdout.isatty(),  # on a terminal the output goes above the bar, else where it was sent
            redirect_stderr=False,
        ) as progress
    ):
        bar = progress.add_task("starting", total=None)
        etag, shown = "", _Shown(server, run)
        seen: dict[str, Any] = {}
        while True:
            fresh, etag = server.get_changed(f"/v1/runs/{run}", etag)
            seen = fresh or seen
            words = seen["progress_text"] or seen["state"].replace("_", " ")
            progress.update(
                bar,
                description=plain(words),
                completed=seen["progress_done"] or 0,
                total=seen["progress_total"],
            )
            if not quiet:
                shown.advance(seen["attempts_made"])
            if seen["state"] in FINAL_STATES:
                return seen
            time.sleep(_PERIOD)


def all_output(server: Client, run: str, attempt: int | None) -> tuple[str, bool]:
    """What an attempt has written so far, and whether more was cut off."""
    text, after = "", 0
    while True:
        part = server.get(f"/v1/runs/{run}/output", after=after, attempt=attempt)
        text += part["text"]
        if part["next_after"] == after:
            return text, part["truncated"]
        after = part["next_after"]


class _Shown:
    """How much of a run's output has been printed; begins anew where another attempt begins."""

    def __init__(self, server: Client, run: str) -> None:
        self._server = server
        self._path = f"/v1/runs/{run}/output"
        self._attempt = 0
        self._after = 0

    def advance(self, attempt: int) -> None:
        """Print what attempt number `attempt` has written since; 0: there is none yet."""
        if attempt != self._attempt:
            self._attempt, self._after = attempt, 0
        while attempt:
            part = self._server.get(self._path, after=self._after, attempt=attempt)
            if part["next_after"] == self._after:
                return
            self._after = part["next_after"]
            sys.stdout.write(output.printed(part["text"]))
            sys.stdout.flush()
