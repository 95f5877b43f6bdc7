"""`python -m bench [NAME ...]`: run benchmarks, print a table, keep the figures of a full run in RESULTS.md."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console
from rich.table import Table

from bench import hung_upstream, token_endpoint, whole_server
from bench.harness import Figure

BENCHMARKS: dict[str, Callable[[], list[Figure]]] = {
    "token": token_endpoint.run,
    "hung": hung_upstream.run,
    "start": whole_server.start_up,
    "answer": whole_server.answer_to_start,
    "schedules": whole_server.idle_schedules,
}
RESULTS = Path(__file__).with_name("RESULTS.md")


def machine() -> str:
    """The facts figures depend on."""
    model = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if "model name" in line
        ),
        platform.machine(),
    )
    return f"{os.cpu_count()} cores ({model}), Linux {platform.release()}, Python {platform.python_version()}"


def main(names: list[str]) -> int:
    """Run `names`, or all; 1 where a bound does not hold."""
    console = Console()
    figures: list[tuple[str, Figure]] = []
    for name in names or BENCHMARKS:
        console.print(f"[dim]{name} ...[/dim]")
        figures += [(name, figure) for figure in BENCHMARKS[name]()]
    table = Table("what", "measured", "bound", "holds", "detail", title=machine())
    for _, figure in figures:
        table.add_row(
            figure.name, figure.measured, figure.bound, "yes" if figure.holds else "NO", figure.detail
        )
    console.print(table)
    load = os.getloadavg()[0]
    if load > 2 * (os.cpu_count() or 1):
        console.print(f"The machine was not quiet (load {load:.1f}); absolute times are worth little.")
    if not names:
        _keep(figures)
    return 0 if all(figure.holds for _, figure in figures) else 1


def _keep(figures: list[tuple[str, Figure]]) -> None:
    lines = [
        "# Results",
        "",
        f"{datetime.now(UTC):%Y-%m-%d}, {machine()}. Made by `make bench`; ratios are measured in turn in one run.",
        "",
        "| what | measured | bound | holds | detail | command |",
        "|---|---|---|---|---|---|",
    ]
    for name, figure in figures:
        holds = "yes" if figure.holds else "**no**"
        lines.append(
            f"| {figure.name} | {figure.measured} | {figure.bound} | {holds} | {figure.detail} | `python -m bench {name}` |"
        )
    RESULTS.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
