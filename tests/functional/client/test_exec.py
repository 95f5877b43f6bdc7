"""`taskcred exec`: a command on the user's own machine, as the owner or as a service, against a real server."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from taskcred.client import Client, TaskSession, errors
from taskcred.domain.keytext import is_standin_key
from tests.functional.client.conftest import Owner, Service
from tests.support.server import Server

PROGRAM = """
import json, os, sys
from ibm_platform_services import IamIdentityV1
service = IamIdentityV1.new_instance()
service.list_api_keys(scope="entity").get_result()
json.dump({"environment": dict(os.environ), "input": sys.stdin.read()}, sys.stdout)
"""


class Machine:
    """A user's own machine: their home, and what they type."""

    def __init__(self, home: Path, server: Server) -> None:
        self.home = home
        self.url = server.url
        clean = {name: value for name, value in os.environ.items() if not name.startswith("TASKCRED_")}
        self.environment = clean | {
            "HOME": str(home),
            "XDG_CONFIG_HOME": str(home / "config"),
            "TASKCRED_URL": server.url,
        }

    def sign_in(self, owner: Owner) -> None:
        """As `taskcred login` leaves it."""
        directory = self.home / "config" / "taskcred"
        directory.mkdir(parents=True)
        entry = {
            "url": self.url,
            "access_token": owner.token,
            "refresh_token": owner.signed_in.refresh_token,
            "expires_at": int(time.time()) + 3000,
        }
        file = directory / "login.json"
        file.touch(mode=0o600)
        file.write_text(json.dumps({"current": self.url, "servers": {self.url: entry}}))

    def start(self, *arguments: object, **streams: Any) -> subprocess.Popen[str]:
        """`taskcred exec ARGUMENTS`."""
        streams = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | streams
        return subprocess.Popen(
            [sys.executable, "-m", "taskcred", "exec", *map(str, arguments)],
            text=True,
            env=self.environment,
            cwd=self.home,
            start_new_session=True,  # away from the terminal that the tests may have
            **streams,
        )

    def run(self, *arguments: object, stdin: str = "") -> tuple[int, str, str]:
        """Exit status, output and errors."""
        process = self.start(*arguments)
        out, err = process.communicate(stdin, timeout=120)
        return process.returncode, out, err


@pytest.fixture
def machine(tmp_path: Path, server: Server) -> Machine:
    return Machine(tmp_path, server)


@pytest.fixture
def own(machine: Machine, owner: Owner) -> Machine:
    """The machine of somebody with a task credential who signed in."""
    machine.sign_in(owner)
    return machine


def latest(owner: Owner, **query: str) -> dict[str, Any]:
    """Their newest run."""
    found: dict[str, Any] = owner.request("GET", "/v1/runs", params=query)["items"][0]
    return found


@pytest.fixture(autouse=True)
def heard() -> Iterator[None]:
    """SIGINT is heard by what a test starts, also where the tests are a background job, which ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def ready(process: subprocess.Popen[str]) -> str:
    """The first line that the command prints."""
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line, process.communicate()
    return line.strip()


@pytest.mark.promise("key-stays-home")
def test_a_command_gets_a_stand_in_key_and_never_the_sign_in(own: Machine, owner: Owner) -> None:
    own.environment["IBMCLOUD_API_KEY"] = "what was there before"
    status, out, err = own.run(
        *("--sdk-service", "iam_identity", "--reference", "by hand", "--"),
        *(sys.executable, "-c", PROGRAM, "--json"),
        stdin="passed through",
    )
    assert (status, err) == (0, "")
    found = json.loads(out)
    key = found["environment"]["IBMCLOUD_API_KEY"]
    assert found["input"] == "passed through"
    assert is_standin_key(key)
    assert found["environment"]["HOME"] == str(own.home)
    for secret in (owner.token, owner.signed_in.refresh_token):
        assert secret not in out
    run = latest(owner, state="succeeded")
    assert (run["task"], run["executor"], run["reference"], run["exit_code"]) == (
        "exec",
        "owner",
        "by hand",
        0,
    )
    assert run["parameters"]["command"][-1] == "--json"
    with pytest.raises(errors.KeyRefusedError):
        TaskSession(own.url, key).token()


@pytest.mark.parametrize(
    ("words", "status", "state", "reason"),
    [
        (["sh", "-c", "exit 3"], 3, "failed", "The command ended with status 3."),
        (["sh", "-c", "exit 1"], 1, "failed", "The command ended with status 1."),
        (["sh", "-c", "kill -9 $$"], 137, "failed", "The command was ended by SIGKILL."),
    ],
)
def test_the_exit_status_is_the_commands(
    own: Machine, owner: Owner, words: list[str], status: int, state: str, reason: str
) -> None:
    assert own.run("--", *words)[0] == status
    run = latest(owner)
    assert (run["state"], run["reason"], run["exit_code"]) == (state, reason, status)


def test_a_service_runs_at_night_under_a_grant(
    machine: Machine, owner: Owner, service: Service, client: Client
) -> None:
    machine.environment["TASKCRED_SERVICE_FILE"] = str(service.file)  # as a systemd unit sets it
    program = "import os; print(sorted(name for name in os.environ if name.startswith('TASKCRED')))"
    status, out, err = machine.run("--grant", owner.grant_id, "--", sys.executable, "-c", program)
    assert (status, err) == (0, "")
    assert out == "['TASKCRED_RUN_ID', 'TASKCRED_URL']\n"
    run = latest(owner)
    assert (run["service_id"], run["grant_id"], run["executor"]) == (
        service.client_id,
        owner.grant_id,
        "service",
    )
    flags = ["--service-file", service.file, "--grant", owner.grant_id, "--task", "train", "-p", "epochs=2"]
    del machine.environment["TASKCRED_SERVICE_FILE"]
    assert machine.run(*flags, "--", "true")[0] == 0
    assert client.run(latest(owner)["id"]).parameters == {"epochs": 2}


@pytest.mark.promise("parked-not-failed")
def test_it_waits_for_a_credential_and_goes_on(machine: Machine, newcomer: Owner) -> None:
    machine.sign_in(newcomer)
    process = machine.start("--", "echo", "done")
    assert process.stderr is not None
    said = process.stderr.readline() + process.stderr.readline()
    assert "you have no usable task credential" in said
    assert f"{machine.url}/prompts/" in said
    newcomer.give_key()
    out, _ = process.communicate(timeout=60)
    assert (process.returncode, out) == (0, "done\n")


def test_whoever_gives_up_waiting_leaves_no_run(machine: Machine, newcomer: Owner) -> None:
    machine.sign_in(newcomer)
    process = machine.start("--", "true")
    assert process.stderr is not None
    process.stderr.readline()
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode == 130
    assert latest(newcomer)["state"] == "cancelled"


def test_signals_reach_the_whole_group_and_the_attempt_ends(own: Machine, owner: Owner) -> None:
    script = (
        "trap 'echo told; exit 7' TERM; echo $$; (trap 'echo child too' TERM; sleep 60 & wait) & wait; wait"
    )
    process = own.start("--", "sh", "-c", script)
    ready(process)
    time.sleep(0.3)  # the inner shell sets its trap
    process.send_signal(signal.SIGTERM)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 7
    assert set(out.split("\n")) >= {"told", "child too"}
    run = latest(owner)
    assert (run["state"], run["reason"], run["exit_code"]) == ("failed", "Ended by SIGTERM.", 7)


def test_cancel_on_the_pages_ends_the_command(own: Machine, owner: Owner) -> None:
    process = own.start("--", "sh", "-c", "echo $$; exec sleep 600")
    pid = int(ready(process))
    run = latest(owner, state="running")
    owner.request("POST", f"/v1/runs/{run['id']}/cancel")
    _, err = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM
    assert "it was cancelled" in err
    assert not Path(f"/proc/{pid}").exists()
    assert latest(owner)["state"] == "cancelled"


@pytest.fixture
def terminal() -> Iterator[tuple[int, int]]:
    """Both ends of a terminal."""
    ours, theirs = pty.openpty()
    yield ours, theirs
    os.close(ours)


def test_on_a_terminal_ctrl_c_is_the_commands(own: Machine, owner: Owner, terminal: tuple[int, int]) -> None:
    ours, theirs = terminal
    script = "trap 'echo caught; exit 5' INT; read key </dev/tty; echo $key; while :; do sleep 0.1; done"
    process = own.start(
        *("--", "sh", "-c", script),
        stderr=theirs,
        preexec_fn=lambda: fcntl.ioctl(theirs, termios.TIOCSCTTY, 0),  # standard input is a pipe
    )
    os.close(theirs)
    os.write(ours, b"ready\n")
    assert ready(process) == "ready"
    os.write(ours, b"\x03")
    out, _ = process.communicate(timeout=60)
    assert (process.returncode, out) == (5, "caught\n")
    assert latest(owner)["exit_code"] == 5


def test_what_keeps_it_from_starting_has_statuses_of_its_own(own: Machine) -> None:
    assert own.run("--", "no-such-command")[0] == 127
    file = own.home / "not-executable"
    file.touch()
    assert own.run("--", file)[0] == 126
    script = own.home / "no-interpreter"
    script.write_text("#!/no/such/interpreter\n")
    script.chmod(0o755)
    assert own.run("--", script)[0] == 126
    status, _, err = own.run("--task", "no-such-task", "--", "true")
    assert status == 125
    assert "What to do" in err
    assert own.run("--service-file", "x", "--", "true")[0] == 2


def test_nobody_signed_in_says_so(machine: Machine) -> None:
    status, _, err = machine.run("--", "true")
    assert status == 125
    assert "taskcred login" in err


def test_a_grant_that_ended_ends_the_command(machine: Machine, owner: Owner, service: Service) -> None:
    process = machine.start(
        "--service-file", service.file, "--grant", owner.grant_id, "--", "sh", "-c", "echo go; exec sleep 600"
    )
    assert ready(process) == "go"
    owner.request("POST", f"/v1/grants/{owner.grant_id}/end")
    _, err = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM
    assert "taken away" in err
    assert latest(owner)["state"] == "cancelled"
    flags = ["--service-file", service.file, "--grant", owner.grant_id]
    assert machine.run(*flags, "--", "true")[0] == 125  # and the next one is refused
