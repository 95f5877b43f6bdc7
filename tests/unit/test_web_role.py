"""What a web process does beside its requests."""

from __future__ import annotations

import threading

from taskcred.errors import StoreBusyError
from taskcred.roles.web import repeating


def test_work_is_repeated_through_trouble_until_the_block_ends() -> None:
    rounds = 0
    third = threading.Event()

    def work() -> None:
        nonlocal rounds
        rounds += 1
        if rounds == 1:
            raise StoreBusyError("The identity database is busy or away.", hint="Try again.")
        if rounds == 3:
            third.set()

    with repeating(work, 0.001):
        assert third.wait(10)
    assert not any(thread.name == "repeating" for thread in threading.enumerate())
