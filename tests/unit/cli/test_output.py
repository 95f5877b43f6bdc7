"""Tables on terminals of several widths."""

from __future__ import annotations

import contextlib
import os
import pty
import subprocess
import sys

import pytest

ROW = ("My nightly reports", "Phased out", "3f23eed1-8db9-4247-860d-7c0aed195ca0")
PROGRAM = f"""
from taskcred.cli import output
output.table(["NAME", "STATE", "KEY ID"], [{ROW}] * 2, empty="None.")
"""


def on_a_terminal(columns: int) -> str:
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM],
        stdin=theirs,
        stdout=theirs,
        env=os.environ | {"COLUMNS": str(columns), "TERM": "dumb"},
    )
    os.close(theirs)
    shown = bytearray()
    with contextlib.suppress(OSError):  # how a pseudo-terminal says that nobody writes to it any more
        while chunk := os.read(ours, 4096):
            shown += chunk
    os.close(ours)
    assert process.wait(timeout=60) == 0
    return shown.decode().replace("\r\n", "\n")


@pytest.mark.parametrize("columns", [90, 200])
def test_rows_that_fit_stand_under_their_headings(columns: int) -> None:
    lines = on_a_terminal(columns).splitlines()
    assert max(map(len, lines)) <= columns
    assert sum("KEY ID" in line for line in lines) == 1
    assert sum(all(word in line for word in ROW) for line in lines) == 2


def test_rows_that_do_not_fit_are_blocks_and_nothing_is_cut_off() -> None:
    lines = on_a_terminal(60).splitlines()
    assert max(map(len, lines)) <= 60
    assert (
        lines
        == [
            "NAME    My nightly reports",
            "STATE   Phased out",
            "KEY ID  3f23eed1-8db9-4247-860d-7c0aed195ca0",
            "",
        ]
        * 2
    )


def test_a_pipe_gets_one_line_for_each_row() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"COLUMNS": "40"},
    )
    assert sum(all(word in line for word in ROW) for line in done.stdout.splitlines()) == 2
