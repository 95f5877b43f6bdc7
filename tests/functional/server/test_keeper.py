"""How a keeper begins."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from taskcred.config import Server, Settings
from taskcred.jobs.queue import DbosQueue
from taskcred.roles.keeper import Duty
from taskcred.wiring.keeper import build_keeper
from taskcred.wiring.prepare import prepare
from taskcred.wiring.trusted import open_trusted


@pytest.fixture
def own_signals() -> Iterator[None]:
    """A keeper takes the signals of its process; they are given back afterwards."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("own_signals")
def test_the_engine_is_loaded_before_any_duty_could_wait_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = Settings(data_dir=tmp_path / "data", server=Server(public_url="http://localhost"))
    prepare(settings)
    order: list[str] = []
    load = DbosQueue.load

    def noted(queue: DbosQueue) -> object:
        order.append("load")
        return load(queue)

    def work() -> int:
        order.append("work")
        os.kill(os.getpid(), signal.SIGTERM)
        return 0

    monkeypatch.setattr(DbosQueue, "load", noted)
    keeper = build_keeper(settings, open_trusted(settings))
    keeper.duties = [Duty("work", work, 60.0)]
    keeper.run()
    assert order == ["load", "work"]
