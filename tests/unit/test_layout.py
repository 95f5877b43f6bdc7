"""The house's arrows point one way, and the worker does not know how to open a vault."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[2] / "src" / "taskcred"

# What a room may import of ours, besides itself.
MAY_IMPORT = {
    "domain": set(),
    "ports": {"domain"},
    "store": {"errors", "domain"},
    "bulkhead": {"errors"},
    "vaults": {"errors", "domain", "ports", "bulkhead", "store"},  # of store: how to open an SQLite file
    "identity": {"errors", "domain", "ports", "bulkhead", "wsgi"},
    # of store: column types, opening and migrating a file
    "iam": {"errors", "domain", "ports", "store", "wsgi", "clock"},
    "services": {"errors", "domain", "ports", "store"},
    "notify": {"errors", "domain", "services", "config"},
    "client": {"errors", "domain", "authorities", "__version__"},
    "adapters": {"client", "errors", "domain", "__version__"},
    "jobs": {"errors", "domain", "authorities", "config", "data_dir", "services", "store"},
    "http": {"errors", "domain", "ports", "store", "services", "identity", "wsgi", "__version__"},
    "web": {"errors", "domain", "ports", "services", "store", "http"},
    "roles": {"errors", "domain", "services", "store", "wsgi"},
}


def imports_of(room: str) -> set[tuple[str, str]]:
    """(file, imported room) for every import of our own inside `room`."""
    found = set()
    for file in (
        sorted((SOURCE / room).rglob("*.py")) if (SOURCE / room).is_dir() else [SOURCE / f"{room}.py"]
    ):
        for node in ast.walk(ast.parse(file.read_text())):
            names = []
            if isinstance(node, ast.ImportFrom) and node.module:
                names = (
                    [node.module] if node.module != "taskcred" else [f"taskcred.{a.name}" for a in node.names]
                )
            elif isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            for name in names:
                parts = name.split(".")
                if parts[0] == "taskcred" and len(parts) > 1 and parts[1] != room:
                    found.add((str(file.relative_to(SOURCE)), parts[1]))
    return found


@pytest.mark.parametrize("room", sorted(MAY_IMPORT))
def test_a_room_imports_only_what_lies_before_it(room: str) -> None:
    wrong = {(file, other) for file, other in imports_of(room) if other not in MAY_IMPORT[room]}
    assert wrong == set()


def test_what_serves_does_not_load_the_library_of_a_vault_that_was_not_chosen() -> None:
    program = "import sys, taskcred.wiring.serve; print('hvac' in sys.modules, 'requests' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]


def test_the_worker_does_not_import_vault_identity_or_iam() -> None:
    program = "import sys, taskcred.wiring.worker; print(*sorted(name for name in sys.modules if name.startswith('taskcred.')))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    rooms = {name.split(".")[1] for name in done.stdout.split()}
    assert rooms.isdisjoint({"vaults", "identity", "iam", "web", "http"}), rooms
