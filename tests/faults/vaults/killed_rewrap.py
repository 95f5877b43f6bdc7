"""A rewrap that kills itself (SIGKILL) at its n-th durable step. Run by test_rewrap.py.

Steps are what leaves a trace on disk: every commit of the vault's database, and every fsync, link, rename and
removal of a file. Each is a crash point before it and, by the next one, after it.

Arguments: data directory, n, new key file or "".
"""

from __future__ import annotations

import os
import pathlib
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from taskcred.vaults import rewrap as rewrap_module
from taskcred.vaults.master_key import MasterKeyFile

steps_left = int(sys.argv[2])


def step(*_: object) -> None:
    global steps_left
    steps_left -= 1
    if steps_left == 0:
        os.kill(os.getpid(), signal.SIGKILL)


def counted(function: Callable[..., Any]) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Any:
        step()
        return function(*args, **kwargs)

    return call


for module, name in ((os, "fsync"), (os, "link"), (pathlib.Path, "replace"), (pathlib.Path, "unlink")):
    setattr(module, name, counted(getattr(module, name)))
sa.event.listen(sa.Engine, "commit", step)

directory, new_key_file = Path(sys.argv[1]), sys.argv[3]
rewrap_module._BATCH = 2  # several batches of a vault that is quickly filled
rewrap_module.rewrap(
    directory / "vault.db",
    MasterKeyFile.locate(directory, None, dict(os.environ)),
    Path(new_key_file) if new_key_file else None,
    lambda _done, _total: None,
)
