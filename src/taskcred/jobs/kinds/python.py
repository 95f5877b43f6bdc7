"""python: a function of an installed package, in a process of its own."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from taskcred.domain.tasks import Task
from taskcred.jobs.kinds.command import JobCommand, with_defaults

_HOST: Final = Path(__file__).with_name("python_host.py")


def build(task: Task, parameters: Mapping[str, Any]) -> JobCommand:
    """The host program with the entry point and the parameters on its standard input, where no other
    process can read them. -P -s: neither the program's directory nor a home directory is imported from."""
    call = {"entry_point": task.entry_point, "parameters": with_defaults(task, parameters)}
    return JobCommand((sys.executable, "-P", "-s", "-u", str(_HOST)), json.dumps(call))
