"""How the command line says for whom a run is."""

from __future__ import annotations

import pytest

from taskcred.cli.runs import started_for


@pytest.mark.parametrize(
    ("service_name", "executor", "reference", "said"),
    [
        ("Notebooks", "service", "cell 1", "Notebooks: cell 1"),
        ("Notebooks", "worker", "", "Notebooks"),
        (None, "owner", "laptop", "yourself: laptop"),
        (None, "owner", "", "yourself"),
        (None, "worker", "mine", "mine"),
        (None, "worker", "", ""),
    ],
)
def test_a_run_says_for_whom_it_is(
    service_name: str | None, executor: str, reference: str, said: str
) -> None:
    run = {"service_name": service_name, "executor": executor, "reference": reference}
    assert started_for(run) == said
