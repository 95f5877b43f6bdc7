"""cron and systemd: a machine with a real cron and a real systemd, in which it becomes half past two."""

from __future__ import annotations

import time
from typing import Any

from scripts.adapter_checks.debian import Debian, missing
from scripts.adapter_checks.page import Step, commands
from scripts.adapter_checks.world import World, say
from tests.support.server import eventually

__all__ = ["check", "missing"]

_HERE = "/home/ada/nightly"  # as the page has it
_WHEEL = "/wheel"
_UNTIL_NIGHT = 75.0  # seconds, in which the page's service is tried once
# What cron hands its mail to, where no mail server is installed.
_SENDMAIL = f"#!/bin/sh\ncat >> {_HERE}/mail\n"


def check(world: World) -> None:
    """The page's steps; then cron's job and the timer's service run at the same time."""
    machine = Debian(world.directory / "debian", {world.machine: _HERE, world.directory / "wheel": _WHEEL})
    try:
        machine.start()
        _furnish(machine)
        say("a Debian of its own has started: systemd is its first process, and Ada has an account")
        night = 0.0
        for step in world.steps:
            kind, _, name = step.place.partition(" ")
            if kind == "crontab":
                night = machine.make_it_half_past_two(_UNTIL_NIGHT)
                machine.write("/run/crontab", world.here(step.text))
                machine.run("crontab /run/crontab", "ada")
                machine.run("systemctl start cron.service")
            elif kind == "unit":
                machine.write(f"/etc/systemd/system/{name}", world.here(step.text))
            elif kind in {"engine", "root"}:
                _do(world, machine, step, "ada" if kind == "engine" else "root")
            else:
                world.do(step)
        _see_both(world, machine, night)
        _stop(world, machine)
    finally:
        machine.stop()


def _furnish(machine: Debian) -> None:
    machine.run(f"useradd --home-dir /home/ada ada && chown ada /home/ada {_HERE}")
    machine.run(f"{machine.python} -m venv venv", "ada", _HERE)
    machine.write("/usr/sbin/sendmail", _SENDMAIL, "755")


def _do(world: World, machine: Debian, step: Step, user: str) -> None:
    machine.run(f"chown ada {_HERE}/*")  # what other steps have put there
    for command in commands(step.text):
        say(f"{user}$ {command.line}")
        printed = machine.run(
            world.here(command.line),
            user,
            _HERE,
            PATH=f"{_HERE}/venv/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            HOME="/home/ada" if user == "ada" else "/root",
            PIP_FIND_LINKS=_WHEEL,
            PIP_CONSTRAINT=f"{_WHEEL}/constraints.txt",
            PIP_DISABLE_PIP_VERSION_CHECK="1",
            PIP_QUIET="1",
        )
        world.learn(command.shown, printed)


def _see_both(world: World, machine: Debian, night: float) -> None:
    """At half past two each starts a run, and neither notices what happens meanwhile."""
    if time.time() >= night:
        raise SystemExit("It was half past two before everything was set up: this proves nothing.")
    before = len(_runs(world))
    eventually(
        lambda: [run["state"] for run in _runs(world)[:-before]] == ["running"] * 2,
        "cron and the timer have each started a run at half past two",
        within=night - time.time() + 30,
    )
    say(f"it is {machine.run('date +%T').strip()} there: cron and the timer have each started a run")
    world.disturb()
    mail = world.machine / "mail"
    eventually(mail.exists, "cron mails what its command printed", within=120)
    look = f"journalctl --unit=nightly-report --since=@{night:.0f}"
    eventually(lambda: "Finished" in machine.run(look), "the timer's service ends", within=120)
    for run, report in zip(_runs(world), (mail.read_text(), machine.run(look)), strict=False):
        world.judge(report, run)


def _stop(world: World, machine: Debian) -> None:
    """`systemctl stop` ends the run with the program."""
    machine.run("systemctl start --no-block nightly-report.service")
    run = world.run_in("running")
    machine.run("systemctl stop nightly-report.service")
    state = world.answer("GET", f"/v1/runs/{run['id']}")["state"]
    if state not in {"failed", "cancelled"}:
        raise SystemExit(f"systemctl stop left the run {state}.")
    say(f"systemctl stop ended the program, and its run: {state}")


def _runs(world: World) -> list[dict[str, Any]]:
    """The owner's, newest first."""
    runs: list[dict[str, Any]] = world.answer("GET", "/v1/runs")["items"]
    return runs
