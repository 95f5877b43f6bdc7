"""docs/howto/cron.md, followed to the letter: all but that nobody waits for half past two."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from scripts.adapter_checks.page import Step
from tests.support.howto import Here, here

pytestmark = pytest.mark.slow


def places(world: Here) -> dict[str, str]:
    """Directories of the page, and which they are here."""
    programs = world.directory / "venv" / "bin"
    programs.mkdir(parents=True)
    for name, program in {"taskcred": "-m taskcred ", "python": ""}.items():
        (programs / name).write_text(f'#!/bin/sh\nexec {sys.executable} {program}"$@"\n')
        (programs / name).chmod(0o755)
    return {
        "/home/ada/nightly/venv": str(world.directory / "venv"),
        "/home/ada/nightly": str(world.machine),
        "/etc/taskcred/night-machine.json": str(world.machine / "night-machine.json"),
        "User=ada\n": "",  # she has no account on this machine
    }


def as_cron_does(crontab: str, home: Path) -> str:
    """What the one job of a crontab prints when its time has come (crontab(5))."""
    *settings, job = crontab.splitlines()
    command = re.fullmatch(r"(?:\S+ ){5}(.+)", job)
    assert command is not None
    environment = {"HOME": str(home), "SHELL": "/bin/sh", "LOGNAME": "ada"}
    environment |= dict(setting.split("=", 1) for setting in settings)
    done = subprocess.run(
        ["/bin/sh", "-c", command[1]], env=environment, cwd=home, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def as_systemd_does(unit: str, credentials: Path) -> str:
    """What the program of a service prints (systemd.exec(5)): %d is where its credentials are."""
    directive = dict(re.findall(r"^(\w+)=(.+)$", unit, flags=re.MULTILINE))
    name, _, file = directive["LoadCredential"].partition(":")
    credentials.mkdir()
    shutil.copy(file, credentials / name)
    (credentials / name).chmod(0o400)
    done = subprocess.run(
        directive["ExecStart"].replace("%d", str(credentials)).split(" "),
        env={"PATH": "/usr/bin:/bin", "CREDENTIALS_DIRECTORY": str(credentials)},
        cwd=directive["WorkingDirectory"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def verified(units: dict[str, str], directory: Path) -> None:
    """Have systemd read the units, where it is installed."""
    directory.mkdir()
    for name, text in units.items():
        (directory / name).write_text(text)
    if shutil.which("systemd-analyze"):
        done = subprocess.run(
            ["systemd-analyze", "verify", *(str(directory / name) for name in units)],
            capture_output=True,
            text=True,
            check=False,
            env=os.environ | {"SYSTEMD_LOG_LEVEL": "warning"},
        )
        # It reads the machine's own units, too, and may find something there.
        ours = [
            line for line in done.stderr.splitlines() if str(directory) in line or "nightly-report" in line
        ]
        assert (done.returncode, ours) == (0, [])


def test_the_how_to_is_true(tmp_path: Path) -> None:
    with here("cron", tmp_path) as world:
        known = places(world)
        units: dict[str, str] = {}
        printed: list[str] = []
        for step in world.steps:
            kind, _, name = step.place.partition(" ")
            if kind not in {"crontab", "unit"}:
                world.do(step)
                continue
            text = world.here(step.text)
            for shown, actual in known.items():
                text = text.replace(shown, actual)
            if kind == "unit":
                units[name] = text
            else:
                printed.append(as_cron_does(text, world.directory))
        verified(units, tmp_path / "units")
        printed.append(as_systemd_does(units["nightly-report.service"], tmp_path / "credentials"))

        assert [*printed, world.said[-1]] == ["1 keys seen\n"] * 3
        runs = world.answer("GET", "/v1/runs")["items"]
        assert [(run["task"], run["state"], run["exit_code"]) for run in runs] == [
            ("nightly-report", "succeeded", 0)
        ] * 3


def test_a_start_after_the_grants_end_says_where_to_give_a_new_one(tmp_path: Path) -> None:
    with here("cron", tmp_path) as world:
        steps: list[Step] = [step for step in world.steps if step.place.split()[0] not in {"crontab", "unit"}]
        for step in steps[:-1]:
            world.do(step)
        (grant,) = world.answer("GET", "/v1/grants")["items"]
        world.answer("POST", f"/v1/grants/{grant['id']}/end")
        with pytest.raises(SystemExit, match=r"It ended with 125:\n(?s:.*)/grants/new\?service="):
            world.do(steps[-1])
