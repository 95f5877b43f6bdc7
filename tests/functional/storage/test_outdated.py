"""Records that an older release left, under a program that expects more of them."""

from __future__ import annotations

from pathlib import Path

import pytest
import sqlalchemy as sa

from taskcred.errors import StoreBusyError
from taskcred.store import tables as t
from taskcred.testing import make_context


@pytest.mark.parametrize(
    ("change", "statement"),
    [
        ("ALTER TABLE runs RENAME COLUMN reference TO other", sa.select(t.runs)),
        ("ALTER TABLE workers RENAME COLUMN name TO other", t.workers.insert().values(id="a", name="b")),
        ("DROP TABLE leases", sa.select(t.leases)),
    ],
)
def test_an_outdated_shape_is_called_so(tmp_path: Path, change: str, statement: sa.Executable) -> None:
    store = make_context(tmp_path).store
    with store.write() as connection:
        connection.exec_driver_sql(change)
    with pytest.raises(StoreBusyError) as caught, store.write() as connection:
        connection.execute(statement)
    assert caught.value.error_code == "store_outdated"
    assert "starts it again" in caught.value.hint
