"""The outermost edge: help at once, errors in words, bugs with an id, everything with its exit code."""

from __future__ import annotations

import stat
import subprocess
import sys
from pathlib import Path

import pytest

from taskcred.cli import app, configuration
from tests.functional.cli.conftest import Shell

HEAVY = {"alembic", "dbos", "flask", "httpx", "pydantic_settings", "rich", "sqlalchemy"}


@pytest.mark.parametrize(
    "arguments", [["--help"], ["run", "start", "--help"], ["iam", "create-user", "--help"]]
)
def test_help_loads_nothing_it_does_not_need(arguments: list[str]) -> None:
    # What takes time to start is loaded by the commands that need it: that is what keeps help instant.
    program = (
        "import sys; from taskcred.cli.app import run; "
        f"code = run({arguments!r}); print(*sorted({{n.split('.')[0] for n in sys.modules}}), file=sys.stderr); sys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0
    assert "Usage: taskcred" in done.stdout
    assert HEAVY.isdisjoint(done.stderr.split())


def test_the_version_is_printed(cli: Shell) -> None:
    done = cli("--version")
    assert (done.code, done.out.split()[0]) == (0, "taskcred")


@pytest.mark.parametrize(
    "arguments", [["rnu"], ["run", "start"], ["run", "list", "--limit", "0"], ["--nope"]]
)
def test_a_wrong_flag_is_a_usage_error(cli: Shell, arguments: list[str]) -> None:
    done = cli(*arguments)
    assert done.code == 2
    assert done.out == ""
    assert "Error:" in done.err


def test_a_wrong_setting_is_told_with_its_place_and_cure(cli: Shell) -> None:
    file = cli.home / "t.toml"
    file.write_text("[server]\nprot = 1\n")
    done = cli("config", "check", "--config", file)
    assert done.code == 7
    assert f"taskcred: {file}: server.prot: there is no such setting. Did you mean port?" in done.err
    assert "What to do:" in done.err


def test_with_json_an_error_is_one_document_on_standard_error(cli: Shell) -> None:
    done = cli("config", "check", "--config", cli.home / "none.toml", "--json")
    assert (done.code, done.out) == (7, "")
    assert done.problem["exit_code"] == 7
    assert done.problem["error"]["code"] == "configuration"
    assert done.problem["error"]["hint"]


def test_variables_that_mean_nothing_are_told_beside_the_result(cli: Shell) -> None:
    done = cli("config", "show", "--json", TASKCRED_SERVR__PORT="1")
    assert done.code == 0
    assert done.json["settings"]
    assert "did you mean TASKCRED_SERVER__PORT?" in done.err


def test_a_command_that_needs_a_sign_in_says_so(cli: Shell) -> None:
    done = cli("run", "list", "--url", "http://127.0.0.1:9")
    assert done.code == 4
    assert "taskcred login" in done.err


def test_without_any_server_the_cure_is_named(cli: Shell) -> None:
    done = cli("run", "list")
    assert done.code == 7
    assert "--url" in done.err


def test_a_url_that_is_none_is_refused(cli: Shell) -> None:
    assert cli("login", "--url", "localhost:8300").code == 2


def test_a_server_that_does_not_answer_is_unavailable(cli: Shell) -> None:
    done = cli("login", "--url", "http://127.0.0.1:9")
    assert done.code == 6
    assert "taskcred serve" in done.err


def test_a_bug_gets_an_id_and_its_traceback_a_private_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError("what somebody typed")

    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.setattr(configuration.local, "settings", broken)
    assert app.run(["config", "check"]) == 1
    said = capsys.readouterr().err
    log = tmp_path / "taskcred" / "errors.log"
    number = said.split("error ")[1][:8]
    assert "what somebody typed" not in said
    assert "Traceback" not in said
    assert str(log) in said
    assert number in log.read_text()
    assert "ZeroDivisionError" in log.read_text()
    assert stat.S_IMODE(log.stat().st_mode) == 0o600


def test_debug_shows_the_traceback_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.setattr(configuration.local, "settings", lambda *_: 1 / 0)
    assert app.run(["--debug", "config", "check"]) == 1
    assert "Traceback" in capsys.readouterr().err
