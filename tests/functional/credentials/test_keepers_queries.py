"""The keeper asks several times a second: what it asks must not walk through tables."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

import pytest
import sqlalchemy as sa

from taskcred.store import credentials, intents, tokens

from .conftest import World


@pytest.mark.parametrize(
    "query",
    [credentials.keys_due, intents.due, intents.forget_ended, tokens.due_for_refresh],
    ids=lambda query: query.__name__,
)
@pytest.mark.only_on("sqlite")  # it reads SQLite's plans
def test_no_table_is_scanned(world: World, query: Callable[[sa.Connection, datetime, int], Any]) -> None:
    statements: list[tuple[str, Any]] = []

    @sa.event.listens_for(world.ctx.store.engine, "before_cursor_execute")
    def _remember(_c: Any, _cursor: Any, statement: str, parameters: Any, *_rest: Any) -> None:
        statements.append((statement, parameters))

    with world.ctx.store.read() as connection:
        query(connection, world.clock.now(), 20)
        asked = [item for item in statements if item[0].startswith("SELECT")]
        plan = [
            row.detail
            for statement, parameters in asked
            for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters)
        ]
    assert asked
    assert [step for step in plan if step.startswith("SCAN") and "INDEX" not in step] == []
