"""A how-to as a list of steps: the page is the source, nothing of it is repeated in a script.

A fenced block after a line `<!-- check: PLACE -->` is a step. PLACE is where a reader does it:

    config        lines for the server's taskcred.toml
    server        commands on the machine of the server
    owner         commands of the person whose runs they are
    engine        commands on the machine of the engine
    background    a command there that goes on until the end
    file PATH     a file there
    root          commands of the administrator of that machine
    crontab, unit NAME    a person's crontab, and a unit of systemd, there
    cluster       commands of who looks after a cluster

Commands begin with `$ ` and may be continued with a backslash; what follows them is what they print.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_STEP = re.compile(r"^<!-- check: (.+?) -->\n```\w+\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Step:
    """A block of the page."""

    place: str
    text: str


@dataclass(frozen=True)
class Command:
    """A command, and what the page says it prints."""

    line: str
    shown: str


def steps(page: Path) -> list[Step]:
    """The steps of a page, in its order."""
    return [Step(place, text) for place, text in _STEP.findall(page.read_text(encoding="utf-8"))]


def commands(text: str) -> Iterator[Command]:
    """The commands of a console block."""
    for part in re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]:
        line, _, shown = part.partition("\n")
        while line.endswith("\\"):
            more, _, shown = shown.partition("\n")
            line = f"{line[:-1].rstrip()} {more.strip()}"
        yield Command(line, shown)
