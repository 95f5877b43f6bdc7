"""Which isolation is chosen, and what a program inside bubblewrap can see."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from taskcred.errors import ConfigurationError
from taskcred.jobs import isolation

needs_bwrap = pytest.mark.skipif(shutil.which("bwrap") is None, reason="bubblewrap is not installed")
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may run programs as another user")


@pytest.fixture
def no_bwrap(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A host on which bubblewrap is there and does not work."""
    program = tmp_path / "bwrap"
    program.write_text("#!/bin/sh\necho no permission >&2\nexit 1\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)


def inside(script: str, directory: Path, **options: object) -> subprocess.CompletedProcess[str]:
    user = isolation.choose("bubblewrap", None).user
    if user is not None:
        os.chown(directory, *user)
    asked = {"readable": (), "hidden": (), **options}
    argv = isolation.wrap(["sh", "-c", script], directory, user=user, **asked)  # type: ignore[arg-type]  # passed through
    return subprocess.run(argv, capture_output=True, text=True, env={"PATH": "/usr/bin:/bin"}, check=False)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    made = tmp_path / "job"
    made.mkdir()
    return made


@needs_bwrap
def test_bubblewrap_is_the_first_choice() -> None:
    chosen = isolation.choose("auto", None)
    assert (chosen.kind, chosen.runs_jobs) == ("bubblewrap", True)
    assert (chosen.user is None) == (os.geteuid() != 0)  # root's jobs are never root


@needs_root
@pytest.mark.usefixtures("no_bwrap")
def test_another_user_is_the_second_choice() -> None:
    chosen = isolation.choose("auto", "nobody")
    entry = pwd.getpwnam("nobody")
    assert (chosen.kind, chosen.user) == ("user", (entry.pw_uid, entry.pw_gid))


@pytest.mark.usefixtures("no_bwrap")
def test_where_nothing_works_jobs_are_refused_with_the_reason_and_the_cure() -> None:
    chosen = isolation.choose("auto", None)
    assert not chosen.runs_jobs
    assert "no permission" in chosen.words
    assert 'jobs.isolation = "none"' in chosen.words


def test_no_isolation_is_said_aloud() -> None:
    assert "NOT isolated" in isolation.choose("none", None).words


@pytest.mark.parametrize("user", ["root", pwd.getpwuid(os.geteuid()).pw_name])
def test_jobs_are_never_run_as_root_or_as_the_worker(user: str) -> None:
    chosen = isolation.choose("user", user)
    assert chosen.kind == "refused"
    assert "neither root nor the worker's own user" in chosen.words


def test_a_user_that_does_not_exist_is_a_configuration_error() -> None:
    with pytest.raises(ConfigurationError, match="no OS user 'nobody-at-all'"):
        isolation.choose("user", "nobody-at-all")


@needs_bwrap
def test_the_job_is_alone_in_a_place_of_its_own(directory: Path) -> None:
    done = inside(
        "pwd; id -u; touch mine && ls; ls -d /proc/[0-9]* | wc -l; ls /home /root; hostname", directory
    )
    lines = done.stdout.split()
    assert lines[:3] == ["/job", "65534", "mine"]
    assert int(lines[3]) < 6
    assert lines[-1] == "job"
    assert "No such file" in done.stderr or "cannot" in done.stderr
    assert (directory / "mine").exists()


@needs_bwrap
def test_nothing_but_its_own_directory_can_be_written(directory: Path, tmp_path: Path) -> None:
    readable = tmp_path / "readable"
    readable.mkdir()
    readable.chmod(0o755)
    done = inside(
        f"touch /usr/x; touch {readable}/x; touch /etc/x; touch /x; true", directory, readable=(readable,)
    )
    assert done.stderr.count("\n") == 4


@needs_bwrap
def test_it_has_no_capabilities_and_cannot_get_any(directory: Path) -> None:
    done = inside("grep -E 'CapEff|CapPrm|CapBnd|NoNewPrivs' /proc/self/status", directory)
    values = dict(line.split(":\t") for line in done.stdout.splitlines())
    assert int(values["CapEff"], 16) == int(values["CapPrm"], 16) == 0
    assert values["NoNewPrivs"] == "1"


@needs_bwrap
def test_this_python_and_its_packages_work_inside(directory: Path) -> None:
    done = inside(f"{sys.executable} -I -c 'import httpx, taskcred; print(taskcred.__version__)'", directory)
    assert done.stdout.strip(), done.stderr


@needs_bwrap
@pytest.mark.promise("key-stays-home")
def test_hidden_paths_stay_hidden_inside_readable_ones(directory: Path, tmp_path: Path) -> None:
    top = tmp_path / "top"
    for name in ("data", "data/shown", "open"):
        (top / name).mkdir(parents=True)
        (top / name / "file").write_text(name)
    (tmp_path / "link").symlink_to(top)
    master = top / "open" / "master.key"
    master.write_text("master")
    for path in (tmp_path, *tmp_path.rglob("*")):
        path.chmod(0o755)  # only the sandbox hides anything here
    script = "".join(
        f'cat {base}/{name}; echo " {name}"; '
        for base in (top, tmp_path / "link")
        for name in ("data/file", "open/file", "open/master.key", "data/shown/file")
    )
    done = inside(
        script,
        directory,
        readable=(top, tmp_path / "link"),
        hidden=(top / "data", master),
        own=(top / "data" / "shown" / "file",),
    )
    shown = ["data/file", "open open/file", "open/master.key"]
    assert [line.strip() for line in done.stdout.splitlines()] == [
        *shown,
        "data/shown data/shown/file",
        *shown,
        "data/shown/file",
    ], done.stderr
