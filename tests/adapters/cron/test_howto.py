"""docs/howto/cron.md, followed with what cron and systemd do done here; `make adapters` has the real ones do it."""

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
    programs.mkdir(parents=True, exist_ok=True)
    for name, program in {"taskcred": "-m taskcred ", "python": ""}.items():
        (programs / name).write_text(f'#!/bin/sh\nexec {sys.executable} {program}"$@"\n')
        (programs / name).chmod(0o755)
    return {
        "/home/ada/nightly/venv": str(world.directory / "venv"),
        "/home/ada/nightly": str(world.machine),
        "/etc/taskcred/night-machine.json": str(world.machine / "night-machine.json"),
        "User=ada\n": "",  # she has no account on this machine
        "report.py 40\n": "report.py 1\n",  # seconds
    }


def reader(world: Here) -> list[Step]:
    """The steps that are not cron's and systemd's, nor for root."""
    return [step for step in world.steps if step.place.split()[0] not in {"crontab", "unit", "root"}]


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
        for step in reader(world):
            world.do(step)
        files: dict[str, str] = {}
        for step in world.steps:
            text = world.here(step.text)
            for shown, actual in places(world).items():
                text = text.replace(shown, actual)
            files[step.place] = text
        units = {place.partition(" ")[2]: text for place, text in files.items() if place.startswith("unit ")}
        verified(units, tmp_path / "units")
        printed = [
            world.said[-1],
            as_cron_does(files["crontab"], world.directory),
            as_systemd_does(units["nightly-report.service"], tmp_path / "credentials"),
        ]

        assert all(re.fullmatch(r"1 keys seen in \d+ calls\n", each) for each in printed), printed
        runs = world.answer("GET", "/v1/runs")["items"]
        assert [(run["task"], run["state"], run["exit_code"]) for run in runs] == [
            ("nightly-report", "succeeded", 0)
        ] * 3


def test_a_start_after_the_grants_end_says_where_to_give_a_new_one(tmp_path: Path) -> None:
    with here("cron", tmp_path) as world:
        *steps, trial = reader(world)
        for step in steps:
            world.do(step)
        (grant,) = world.answer("GET", "/v1/grants")["items"]
        world.answer("POST", f"/v1/grants/{grant['id']}/end")
        with pytest.raises(SystemExit, match=r"It ended with 125:\n(?s:.*)/grants/new\?service="):
            world.do(trial)
