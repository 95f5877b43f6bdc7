"""The base install is enough for the client and for the commands of a person; the server is an extra."""

from __future__ import annotations

import hashlib
import re
import subprocess
import sys
import tomllib
import venv
from importlib import metadata
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
NAME = re.compile(r"[A-Za-z0-9._-]+")

HIDE = """
import sys

class Hide:
    allowed = {allowed!r}

    def find_spec(self, name, path=None, target=None):
        top = name.partition(".")[0]
        is_python_s = top in sys.stdlib_module_names or top.startswith("_sysconfigdata")
        if not is_python_s and top not in self.allowed:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Hide())
"""


def closure(names: list[str]) -> set[str]:
    """Distributions that these need, themselves included, without extras."""
    found: set[str] = set()
    while names:
        name = names.pop().lower().replace("_", "-")
        if name in found:
            continue
        try:
            needs = metadata.requires(name) or []
        except metadata.PackageNotFoundError:
            continue  # for another platform or Python
        found.add(name)
        names += [match[0] for need in needs if "extra ==" not in need and (match := NAME.match(need))]
    return found


BASE = closure([match[0] for each in PROJECT["dependencies"] if (match := NAME.match(each))])
MODULES = {
    module
    for module, distributions in metadata.packages_distributions().items()
    if any(name.lower().replace("_", "-") in BASE for name in distributions)
}


def run(program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", HIDE.format(allowed={*MODULES, "taskcred"}) + program, *arguments],
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_base_is_small() -> None:
    assert {"httpx", "rich", "typer"} <= BASE
    assert BASE.isdisjoint({"sqlalchemy", "flask", "granian", "dbos", "cryptography", "pydantic-settings"})


@pytest.mark.parametrize(
    "module",
    [
        *("client", "client.adapters", "cli.app", "cli.client", "cli.login", "cli.watching", "cli.exec"),
        *("cli.transport", "cli.where", "adapters.attempts"),
    ],
)
def test_what_a_program_or_a_person_uses_needs_the_base_only(module: str) -> None:
    done = run(f"import taskcred.{module}")
    assert done.returncode == 0, done.stderr


def test_a_command_of_the_server_says_what_to_install() -> None:
    for words in (["serve"], ["doctor"], ["iam", "create-account", "--name", "A"], ["admin", "intents"]):
        done = run("from taskcred.cli import main; main(sys.argv[1:])", *words)
        assert done.returncode == 7, (words, done.stderr)
        assert "pip install 'taskcred[server]'" in done.stderr, words
        assert len(done.stderr.strip().splitlines()) == 2, done.stderr


@pytest.mark.slow
def test_the_base_installs_into_an_empty_environment(tmp_path: Path) -> None:
    """From the pinned versions, by hash; what is not in pip's cache comes from the package index."""
    pins = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    pinned = re.findall(r"^\S+==.*(?:\n    .*)*", pins, flags=re.MULTILINE)
    wanted = [each for each in pinned if each.partition("==")[0] in BASE]
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    (wheel,) = tmp_path.glob("*.whl")
    wanted.append(f"{wheel} --hash=sha256:{hashlib.sha256(wheel.read_bytes()).hexdigest()}")
    (tmp_path / "base.txt").write_text("\n".join(wanted), encoding="utf-8")
    venv.create(tmp_path / "venv")
    pip = [sys.executable, "-m", "pip", "--python", str(tmp_path / "venv"), "--disable-pip-version-check"]
    got = subprocess.run(
        [
            *pip,
            "install",
            "--quiet",
            "--no-compile",
            "--require-hashes",
            "--requirement",
            str(tmp_path / "base.txt"),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    if got.returncode:
        pytest.skip(f"pip cannot install here: {got.stderr.strip().splitlines()[-1]}")
    taskcred = str(tmp_path / "venv" / "bin" / "taskcred")
    helped = subprocess.run([taskcred, "--help"], capture_output=True, text=True, check=True).stdout
    assert all(f"\n  {command} " in helped for command in ("login", "exec", "run"))
    served = subprocess.run([taskcred, "serve"], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert served.returncode == 7
    assert "pip install 'taskcred[server]'" in served.stderr
