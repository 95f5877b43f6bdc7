"""What a reader of a how-to has: a server, an owner with a browser, and a machine with an empty environment."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import venv
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from scripts.adapter_checks.page import Step, commands, steps
from tests.support.server import Form, Person, Server, SignedIn, eventually

ROOT = Path(__file__).parents[2]
URL = "http://127.0.0.1:8300"  # the server, as the pages write it
TOKEN_SECONDS = 15  # so short that every job needs several tokens
_ID = re.compile(r"\b[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\b|\b[0-9a-f]{32}\b|\bIBMid-[0-9A-Z]{10}\b")


def say(text: str) -> None:
    """A line of the story, with the time."""
    print(f"{time.strftime('%H:%M:%S')}  {text}", flush=True)


@dataclass
class World:
    """Everything lies in `directory`, and everything that was started is stopped by `close`."""

    name: str
    directory: Path
    server: Server = field(init=False)
    owner: Person = field(init=False)
    me: SignedIn = field(init=False)
    known: dict[str, str] = field(default_factory=dict)  # what the page shows -> what it is here
    said: list[str] = field(default_factory=list)  # what each command printed
    background: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def machine(self) -> Path:
        """Where the reader works."""
        return self.directory / "machine"

    @property
    def python(self) -> Path:
        """The environment that the how-to installs into."""
        return self.directory / "venv" / "bin" / "python"

    def open(self) -> None:
        """Start the server with the page's configuration, and make the owner and the environment."""
        self.machine.mkdir()
        config = "\n".join(step.text for step in self.steps if step.place == "config")
        self.server = Server(self.directory, config=f"[iam]\ntoken_ttl = {TOKEN_SECONDS}\n\n{config}")
        self.owner = self.server.create_person("ada@example.com")
        self.server.start()
        self.me = self.server.sign_in(self.owner)
        self.known[URL] = self.server.url
        self._install()
        say(f"taskcred serves at {self.server.url}; the environment of {self.name} is empty")

    def close(self) -> None:
        """Stop what was started."""
        for process in reversed(self.background):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(20)
        for pid in self._left():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if hasattr(self, "server"):
            self.server.stop()

    def _left(self) -> list[int]:
        """What engines left behind: processes that still have our HOME, in whatever group they are."""
        home = f"HOME={self.machine}".encode()
        found = []
        for entry in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if home in (entry / "environ").read_bytes().split(b"\0"):
                    found.append(int(entry.name))
        return found

    @property
    def steps(self) -> list[Step]:
        """The page's."""
        return steps(ROOT / "docs" / "howto" / f"{self.name}.md")

    def do(self, step: Step) -> None:
        """Do what the page says."""
        kind, _, path = step.place.partition(" ")
        if kind == "file":
            file = self.machine / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(self.here(step.text), encoding="utf-8")
            say(f"wrote {path}")
        elif kind == "background":
            for command in commands(step.text):
                self._start(command.line)
        elif kind in {"server", "owner", "engine"}:
            for command in commands(step.text):
                self.learn(command.shown, self.run(command.line, kind))
        elif kind != "config":
            raise SystemExit(f"The page has a step at a place that nobody knows: {step.place}")

    def run(self, line: str, place: str = "engine") -> str:
        """What a command prints. Ends the check where it fails."""
        say(f"{place}$ {line}")
        if line == "taskcred login":
            line += " --no-browser"  # it prints the link that it would open; `_sign_in` is the browser
        with subprocess.Popen(
            ["timeout", "900", "bash", "-c", self.here(line)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            text=True,
            env=self.environment(place),
            cwd=self.machine,
        ) as process:
            printed = ""
            for part in process.stdout or ():
                printed += part
                if "/identity/authorize?" in part:
                    self._sign_in(part.strip())
        if process.returncode:
            raise SystemExit(f"It ended with {process.returncode}:\n{printed}")
        self.said.append(printed)
        return printed

    def _start(self, line: str) -> None:
        say(f"engine$ {line} &")
        path = self.directory / f"background-{len(self.background)}.log"
        with path.open("wb") as log:
            process = subprocess.Popen(
                ["bash", "-c", self.here(line)],
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                env=self.environment("engine"),
                cwd=self.machine,
                start_new_session=True,  # with its children it is one group, which `close` ends
            )
        self.background.append(process)

    def background_log(self, number: int) -> str:
        """What a command in the background has printed so far."""
        index = range(len(self.background))[number]
        return (self.directory / f"background-{index}.log").read_text()

    def see_prompt_named(self, who: str) -> None:
        """The run is parked, and `who`, the latest command in the background, says where its owner answers."""
        prompt = f"/prompts/{self.run_in('waiting_for_credential')['prompt_id']}"
        eventually(lambda: prompt in self.background_log(-1), f"{who} names the prompt")

    def environment(self, place: str) -> dict[str, str]:
        """A shell's variables there: nothing of this process's but where programs are."""
        programs = self.python.parent if place == "engine" else self._own_programs()
        return {
            "PATH": f"{programs}:/usr/local/bin:/usr/bin:/bin",
            "HOME": str(self.machine),
            "LANG": "C.UTF-8",
            "XDG_CONFIG_HOME": str(self.directory / f"config-{place}"),
            "PYTHONUNBUFFERED": "1",
            # The wheel of this checkout stands for the one in the package index.
            "PIP_FIND_LINKS": str(self.directory / "wheel"),
            "PIP_CONSTRAINT": str(self.directory / "wheel" / "constraints.txt"),
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",
            "PIP_QUIET": "1",
        } | (
            {
                "TASKCRED_DATA_DIR": str(self.server.data_dir),
                "TASKCRED_CONFIG": str(self.directory / "taskcred.toml"),
            }
            if place == "server"
            else {"TASKCRED_URL": self.server.url}
            if place == "owner"
            else {}
        )

    def _own_programs(self) -> Path:
        """`taskcred` as it is installed where the server is."""
        programs = self.directory / "bin"
        programs.mkdir(exist_ok=True)
        program = programs / "taskcred"
        program.write_text(f'#!/bin/sh\nexec {sys.executable} -m taskcred "$@"\n')
        program.chmod(0o700)
        return programs

    def _install(self) -> None:
        """Make the empty environment, and the wheel that the page installs into it."""
        venv.create(self.directory / "venv", with_pip=True)
        target = self.directory / "wheel"
        subprocess.run(
            [
                *(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"),
                *("--wheel-dir", str(target), str(ROOT)),
            ],
            check=True,
        )
        (wheel,) = target.glob("taskcred-*.whl")
        version = wheel.name.split("-")[1]
        (target / "constraints.txt").write_text(f"taskcred=={version}\n")

    def here(self, text: str) -> str:
        """The page's text with this server's address and ids."""
        for shown, actual in self.known.items():
            text = text.replace(shown, actual)
        return text

    def learn(self, shown: str, actual: str) -> None:
        """Which id of the page is which one here."""
        ids = _ID.findall(shown)
        if ids:
            self.known |= dict(zip(ids, _ID.findall(actual), strict=True))

    def _sign_in(self, link: str) -> None:
        """Do in a browser what `taskcred login` asks for."""
        with self.server.client() as browser:
            page = browser.get(link)
            form = Form.first(page.text)
            form.fields |= {"email": self.owner.email, "password": self.owner.password}
            page = browser.post(str(page.url.join(form.action)), data=form.fields)
            while page.is_redirect:
                page = browser.get(str(page.url.join(page.headers["location"])))

    # What happens meanwhile, and what is looked at in the end

    def answer(self, method: str, path: str, **options: Any) -> Any:
        """The JSON of a request of the owner's."""
        response = self.me.request(method, path, **options)
        if response.is_error:
            raise SystemExit(f"{method} {path}: {response.status_code}\n{response.text}")
        return response.json()

    def run_in(self, *states: str, within: float = 180.0) -> dict[str, Any]:
        """The owner's newest run, once it is in one of `states`."""

        def look() -> dict[str, Any] | None:
            runs: list[dict[str, Any]] = self.answer("GET", "/v1/runs")["items"]
            return next((run for run in runs[:1] if run["state"] in states), None)

        return eventually(look, f"the run is {' or '.join(states)}", within=within)

    def disturb(self) -> None:
        """Rotate the owner's key and replace web and keeper, twice, while the job runs."""
        credential = self.answer("GET", "/v1/task_credentials")["credentials"][0]["id"]
        for number in (1, 2):
            time.sleep(4)
            self.answer("POST", f"/v1/task_credentials/{credential}/rotate", json={"generate": True})
            before = {self.server.role("web"), self.server.role("keeper"), None}
            self.server.hang_up()
            eventually(
                lambda before=before: before.isdisjoint(
                    {self.server.role("web"), self.server.role("keeper")}
                ),
                "web and keeper are replaced",
                within=120,
            )
            say(f"the owner's key was rotated and web and keeper were replaced ({number} of 2)")

    def judge(self, report: str, run: dict[str, Any] | None = None) -> None:
        """Say what the job saw: `report` holds its last words. Ends the check where one of its calls failed.
        The job is the newest run's, or that of `run`, which has ended."""
        run = run or self.run_in("succeeded", "failed", "cancelled")
        attempts = self.answer("GET", f"/v1/runs/{run['id']}/access")["items"]
        tokens = [token for attempt in attempts for token in attempt["tokens"]]
        keys = {token["key_id"] for token in tokens}
        calls = re.search(r"keys seen in (\d+) calls", report)
        say(
            f"run {run['state']}; {calls[1] if calls else 'no'} calls in {len(attempts)} attempt, with "
            f"{len(tokens)} access tokens from {len(keys)} keys"
        )
        # A call that fails ends the job with an exception: one that has succeeded had none.
        if run["state"] != "succeeded" or len(attempts) != 1 or calls is None:
            raise SystemExit(f"The check of {self.name} failed:\n{run}\n{report}")
        if len(keys) < 2 or int(calls[1]) < 20:
            raise SystemExit("The job did not outlive a rotation: this proves nothing.")

    def see_ending(self, what: str, state: str, outcomes: list[str]) -> None:
        """The newest run has ended like that, in that many attempts. Ends the check where it has not."""
        run = self.run_in("succeeded", "failed", "cancelled", "queued")
        attempts = self.answer("GET", f"/v1/runs/{run['id']}/access")["items"]
        found = [attempt["outcome"] for attempt in attempts]
        if (run["state"], found) != (state, outcomes):
            raise SystemExit(f"{what}: {found}, not {outcomes}:\n{run}\n{self.said[-1:]}")
        say(f"{what}: the run has {state}, its attempts: {', '.join(outcomes)}")


@contextmanager
def world(name: str, directory: Path) -> Iterator[World]:
    """A world for the how-to `name`, removed where all went well and kept to look at where not."""
    opened = World(name, directory)
    try:
        opened.open()
        yield opened
    except BaseException:
        say(f"FAILED; everything is kept in {directory}")
        raise
    else:
        opened.close()
        shutil.rmtree(directory)
    finally:
        opened.close()


def is_up(url: str) -> bool:
    """Whether a server of the engine's answers."""
    try:
        return httpx.get(url, timeout=5).is_success
    except httpx.HTTPError:
        return False
