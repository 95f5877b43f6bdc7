"""What commands print: text and tables for people, JSON for programs. Results go to standard output,
everything else to standard error, so that a pipe carries results only."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any, Final

import typer

from taskcred.cli.exits import exit_code
from taskcred.domain.shown import escaped, of_a_job, plain
from taskcred.errors import TaskcredError

_NO_WIDTH: Final = 10_000


def data(value: Any) -> None:
    """One JSON document on standard output. Instants are ISO 8601 in UTC."""
    typer.echo(escaped(json.dumps(value, indent=2, ensure_ascii=False, default=_plain)))


def line(text: str = "") -> None:
    """A line of the result."""
    typer.echo(plain(text))


def printed(text: str) -> str:
    """What a job printed: to the letter in a pipe, on a terminal without what would steer that."""
    return of_a_job(text) if sys.stdout.isatty() else text


def note(text: str) -> None:
    """A line beside the result: on standard error."""
    typer.echo(plain(text), err=True)


def table(columns: Sequence[str], rows: Iterable[Sequence[Any]], *, empty: str) -> None:
    """Rows under headings; the sentence `empty` where there are none. On a terminal that is too narrow for
    them each row is a block of lines: nothing is cut off, least of all an id to copy."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    shown = [[_words(value) for value in row] for row in rows]
    if not shown:
        note(empty)
        return
    grid = Table(*columns, box=SIMPLE_HEAD, pad_edge=False, header_style="bold")
    for row in shown:
        grid.add_row(*map(Text, row))
    # A pipe has no width: rows are never folded for programs such as grep.
    console = Console(file=sys.stdout, width=_NO_WIDTH, soft_wrap=not sys.stdout.isatty())
    if sys.stdout.isatty():
        width = shutil.get_terminal_size().columns
        if console.measure(grid).maximum > width:
            for row in shown:
                facts(zip(columns, row, strict=True))
                line()
            return
        console.width = width
    console.print(grid)


def facts(pairs: Iterable[tuple[str, Any]]) -> None:
    """A thing's properties, one to a line; those without a value are left out."""
    shown = [(name, _words(value)) for name, value in pairs if value not in (None, "", [], {})]
    width = max((len(name) for name, _ in shown), default=0)
    for name, value in shown:
        line(f"{name:<{width}}  {value}")


def problem(error: TaskcredError, *, as_json: bool) -> None:
    """Say on standard error what happened and what to do."""
    if as_json:
        body = {"code": error.error_code, "message": error.message, "hint": error.hint}
        if error.action_url:
            body["action_url"] = error.action_url
        document = {"error": {**error.details, **body}, "exit_code": int(exit_code(error))}
        note(escaped(json.dumps(document, ensure_ascii=False, default=_plain)))
        return
    note(f"taskcred: {error.message}")
    if error.hint:
        note(f"  What to do: {error.hint}")
    if error.action_url:
        note(f"  {error.action_url}")


def instant(text: str | None) -> datetime | None:
    """The instant that a JSON answer wrote."""
    return datetime.fromisoformat(text).astimezone(UTC) if text else None


def when(text: str | None, *, never: str = "") -> str:
    """An instant of a JSON answer as absolute time and distance: "2026-11-02 08:15 UTC (3 h ago)"."""
    moment = instant(text)
    return f"{moment:%Y-%m-%d %H:%M} UTC ({distance(moment)})" if moment else never


def ago(text: str | None, *, never: str = "") -> str:
    """An instant of a JSON answer as a distance only, for tables."""
    moment = instant(text)
    return distance(moment) if moment else never


def distance(moment: datetime) -> str:
    """How far `moment` is from the present: "3 h ago", "in 2 d"."""
    seconds = (moment - datetime.now(UTC)).total_seconds()
    amount = abs(seconds)
    for unit, size in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if amount >= size:
            words = f"{int(amount // size)} {unit}"
            break
    else:
        words = f"{int(amount)} s"
    return f"in {words}" if seconds > 0 else f"{words} ago"


def _words(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, dict | list):
        return escaped(json.dumps(value, ensure_ascii=False))
    return plain(str(value))


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat()
    return str(value)
