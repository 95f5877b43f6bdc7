"""The program around a python task: reads {"entry_point", "parameters"} from standard input, calls it.

Exit status 0 when the function returns, 1 with a traceback in the output when it raises; SystemExit is
honoured. It imports nothing of taskcred: the task's package is all that is loaded.
"""

from __future__ import annotations

import importlib
import json
import os
import sys


def main() -> None:
    """Run as a program."""
    call = json.load(sys.stdin)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)  # a task that reads its input finds the end, as a command does
    os.close(nothing)
    module, _, name = call["entry_point"].partition(":")
    getattr(importlib.import_module(module), name)(**call["parameters"])


if __name__ == "__main__":
    main()
