"""check-adapter NAME…: exit 0 where the how-to of each is true."""

from __future__ import annotations

import importlib
import sys
import tempfile
from pathlib import Path

from scripts.adapter_checks.world import say, world

NAMES = ("airflow", "celery", "cron", "kubernetes", "prefect", "dagster")


def main(names: list[str]) -> None:
    """Check each of `names`, or all."""
    for name in names or NAMES:
        if name not in NAMES:
            raise SystemExit(f"There is no check of {name!r}. There are: {', '.join(NAMES)}.")
        module = importlib.import_module(f"scripts.adapter_checks.{name}")
        if why := getattr(module, "missing", str)():
            say(f"{name}: SKIPPED: {why}")
            continue
        with world(name, Path(tempfile.mkdtemp(prefix=f"taskcred-{name}-"))) as opened:
            module.check(opened)
        say(f"{name}: the how-to is true")


if __name__ == "__main__":
    main(sys.argv[1:])
