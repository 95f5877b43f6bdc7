"""Fixtures of the tests that run real jobs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.jobs import JobsHost


@pytest.fixture(scope="module")
def make_host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., JobsHost]]:
    """`make_host(tasks, jobs)`: a host whose workers are stopped when the module's tests are done."""
    made: list[JobsHost] = []
    directory: Path = tmp_path_factory.mktemp("hosts")

    def make(*arguments: object) -> JobsHost:
        made.append(JobsHost(directory / f"host{len(made)}", *arguments))  # type: ignore[arg-type]  # passed through
        return made[-1]

    yield make
    for host in made:
        host.close()
