"""What a fork must not share with its parent: locks that another thread may hold, and open connections."""

from __future__ import annotations

import os
import weakref
from typing import Final, Protocol


class Follows(Protocol):
    """Something that renews itself in the child of a fork."""

    def after_fork(self) -> None:
        """Called in the child, before anything else runs there."""


_followers: Final[weakref.WeakSet[Follows]] = weakref.WeakSet()


def follow(one: Follows) -> None:
    """Have `one.after_fork()` called in every child, for as long as `one` exists."""
    _followers.add(one)


def _renew() -> None:
    for one in list(_followers):
        one.after_fork()


os.register_at_fork(after_in_child=_renew)
