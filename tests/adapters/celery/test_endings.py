"""What Celery makes of a task, in taskcred's words; the others of these are seen in a worker's log or at a run."""

from __future__ import annotations

from typing import Any

import pytest
from celery.exceptions import Ignore, Reject, Retry, SoftTimeLimitExceeded

from taskcred.adapters.celery import _ending


@pytest.mark.parametrize(
    ("state", "result", "outcome", "again"),
    [
        ("SUCCESS", 42, "succeeded", False),
        ("FAILURE", ValueError("kept"), "failed", False),
        ("FAILURE", SoftTimeLimitExceeded(), "timed_out", False),
        ("RETRY", Retry(), "failed", True),
        ("REJECTED", Reject("kept", requeue=True), "failed", True),
        ("REJECTED", Reject("kept"), "failed", False),
        ("IGNORED", Ignore(), "cancelled", False),
        (None, None, "failed", True),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_each_state_of_a_task_ends_its_attempt(
    state: str | None, result: Any, outcome: str, again: bool
) -> None:
    ending = _ending(state, result)
    assert (ending.outcome, ending.again) == (outcome, again)
    assert "kept" not in ending.reason
