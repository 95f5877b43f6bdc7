"""What a start need not load, it does not. (The worker does: DBOS loads it.)"""

from __future__ import annotations

import subprocess
import sys

_START = """
import sys
import taskcred.wiring.web, taskcred.wiring.keeper, taskcred.wiring.prepare
from pathlib import Path
from taskcred.store.engine import sqlite_engine
sqlite_engine(Path(sys.argv[1])).connect().close()
print([name for name in sys.modules if name == "psycopg" or name.startswith("sqlalchemy.dialects.postgresql")])
"""


def test_on_sqlite_nothing_of_postgresql_is_loaded(tmp_path: object) -> None:
    said = subprocess.run(
        [sys.executable, "-c", _START, f"{tmp_path}/records.db"], capture_output=True, text=True, check=True
    )
    assert said.stdout.strip() == "[]"
