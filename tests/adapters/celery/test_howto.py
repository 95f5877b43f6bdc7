"""docs/howto/celery.md, followed to the letter: a key rotated and the server replaced meanwhile."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from scripts.adapter_checks import celery as page
from tests.support.howto import here


@pytest.mark.slow
@pytest.mark.promise("never-interrupted")
def test_the_how_to_is_true(tmp_path: Path) -> None:
    if shutil.which("redis-server") is None:
        pytest.skip("redis-server is not on PATH: apt-get install redis-server")
    with here("celery", tmp_path) as world:
        page.check(world)
