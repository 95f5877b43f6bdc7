"""The command line: `taskcred`. Thin: it reads flags, asks a service or the server, and says the result.

Commands import what they need when they run, so that `taskcred --help` answers at once.
"""

from __future__ import annotations

import sys
from typing import NoReturn


def main(arguments: list[str] | None = None) -> NoReturn:
    """Run `arguments` (default: those of the process) and exit with a code of `exits.EXIT_CODES`."""
    from taskcred.cli.app import run

    sys.exit(run(sys.argv[1:] if arguments is None else arguments))
