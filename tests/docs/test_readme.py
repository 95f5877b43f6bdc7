"""What the README and the pages for users show is what happens: commands run, outputs and links are true.

A fenced block after a line `<!-- executed -->` is a terminal: each `$ command` in it is run, against a real
server with the catalogue of examples/, and must print what the page shows. What differs from run to run (ids,
times, ports, last characters of keys) is put aside before the two are compared; an id that a page shows stands
for the one that the same line had here. Of such a page the first person is the first administrator.
"""

from __future__ import annotations

import os
import re
import secrets
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest

from taskcred import config_sources
from taskcred.jobs import isolation
from taskcred.jobs.catalogue import load_tasks
from tests.support.server import Form, Server

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("examples/**/*.md")])
EXECUTED = "<!-- executed -->\n"
EMAIL = "administrator@localhost"

_ID = re.compile(r"\b[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\b|\b[0-9a-f]{32}\b|\bIBMid-[0-9A-Z]{10}\b")
_VARIES = [
    (re.compile(r"https?://\S+/identity/(?:authorize|first-sign-in)\?\S+"), "LINK"),
    (re.compile(r"http://127\.0\.0\.1:\d+"), "http://127.0.0.1:8300"),
    (re.compile(r"\btc[uc]_\w+…?|\bwhsec_[\w+/=]+…?"), "KEY"),
    (re.compile(r"…\w{4}\b"), "…LAST"),
    (re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d(:\d\d)? UTC"), "TIME"),
    (re.compile(r"\b(\d+ (s|min|h|d) ago|in \d+ (s|min|h|d)|just now)\b"), "AGE"),
    (re.compile(r"[\d,]+ bytes"), "N bytes"),
    (re.compile(r"\b[0-9a-f]{16}\b"), "MASTER"),
    (re.compile(r"─+"), ""),
    (re.compile(r"\s+"), " "),
]


def blocks(page: Path) -> list[str]:
    """The executed blocks of a page."""
    parts = page.read_text(encoding="utf-8").split(EXECUTED)[1:]
    return [part.split("```console\n", 1)[1].split("```", 1)[0] for part in parts]


def steps(block: str) -> Iterator[tuple[str, str]]:
    """(command, what the page says it prints)."""
    for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
        command, _, output = part.partition("\n")
        while command.endswith("\\"):
            more, _, output = output.partition("\n")
            command = f"{command[:-1].rstrip()} {more.strip()}"
        yield command, output


def comparable(text: str) -> list[str]:
    """Lines without what differs from run to run, and without empty ones."""
    text = _ID.sub("ID", text)
    for varying, word in _VARIES[:-2]:
        text = varying.sub(word, text)
    lines = []
    for line in text.splitlines():
        for varying, word in _VARIES[-2:]:
            line = varying.sub(word, line)
        lines.append(line.strip())
    return [line for line in lines if line]


@dataclass
class Terminal:
    """A shell of somebody who has installed taskcred, beside a server on this machine."""

    server: Server
    password: str = field(default_factory=lambda: secrets.token_urlsafe(18), repr=False)
    known: dict[str, str] = field(default_factory=dict)  # what a page shows -> what it is here

    def __post_init__(self) -> None:
        directory = self.server.directory
        (directory / "bin").mkdir()
        (directory / "backups").mkdir()
        program = directory / "bin" / "taskcred"
        program.write_text(f'#!/bin/sh\nexec {sys.executable} -m taskcred "$@"\n')
        program.chmod(0o700)
        self.known |= {
            "/var/lib/taskcred-new": str(directory / "new"),
            "/var/lib/taskcred": str(self.server.data_dir),
            "/var/backups/taskcred": str(directory / "backups"),
        }
        self.environment = self.server._environment() | {
            "PATH": f"{directory / 'bin'}:{Path(sys.executable).parent}:{os.environ['PATH']}",
            "TASKCRED_DATA_DIR": str(self.server.data_dir),
            "TASKCRED_CONFIG": str(ROOT / "examples" / "taskcred.toml"),
            "TASKCRED_URL": self.server.url,
            # A person's own machine: with a display, where a browser opens beside the terminal.
            "DISPLAY": ":0",
            "BROWSER": "true",
            "SSH_CONNECTION": "",
            "SSH_TTY": "",
            "PYTHONUNBUFFERED": "1",  # both streams in one, in the order of a terminal
        }

    def choose_password(self) -> None:
        """Open the first administrator's link, as the quick start says."""
        link = (self.server.data_dir / "administrator-sign-in").read_text().strip()
        with self.server.client() as browser:
            form = Form.first(browser.get(link).text)
            form.fields |= {"password": self.password, "repeated": self.password}
            done = browser.post(str(httpx.URL(link).join(form.action or link)), data=form.fields)
        assert done.status_code == httpx.codes.SEE_OTHER, done.text

    def here(self, command: str) -> str:
        """The command with this server's ids and places."""
        for shown, actual in self.known.items():
            command = command.replace(shown, actual)
        return command

    def run(self, command: str) -> str:
        """What the command prints on both streams."""
        with subprocess.Popen(
            ["bash", "-c", self.here(command)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            text=True,
            env=self.environment,
            cwd=ROOT,
        ) as process:
            assert process.stdout is not None
            said = ""
            for line in process.stdout:
                said += line
                if "/identity/authorize?" in line:
                    self.sign_in(line.strip())
        for shown, actual in self.known.items():
            if actual.startswith("/"):
                said = said.replace(actual, shown)
        return said

    def sign_in(self, link: str) -> None:
        """Do in a browser what `taskcred login` asks for."""
        with self.server.client() as browser:
            page = browser.get(link)
            form = Form.first(page.text)
            form.fields |= {"email": EMAIL, "password": self.password}
            page = browser.post(str(page.url.join(form.action)), data=form.fields)
            while page.is_redirect:
                page = browser.get(str(page.url.join(page.headers["location"])))
        assert "You are signed in" in page.text

    def learn(self, shown: str, actual: str) -> None:
        """Which id of the page is which one here."""
        self.known |= dict(zip(_ID.findall(shown), _ID.findall(actual), strict=True))


@pytest.mark.slow
@pytest.mark.parametrize(
    "page", [page for page in PAGES if blocks(page)], ids=lambda page: str(page.relative_to(ROOT))
)
def test_what_a_page_shows_is_what_happens(page: Path, start_server: Callable[..., Server]) -> None:
    chosen = isolation.choose("auto", None)
    if not chosen.runs_jobs:
        pytest.skip(chosen.words)
    terminal = Terminal(
        start_server(config=(ROOT / "examples" / "taskcred.toml").read_text(encoding="utf-8"))
    )
    terminal.choose_password()
    for block in blocks(page):
        for command, shown in steps(block):
            actual = terminal.run(command)
            assert comparable(actual) == comparable(shown), f"$ {command}\n{actual}"
            terminal.learn(shown, actual)


def test_the_program_of_the_quick_start_prints_what_it_says(start_server: Callable[..., Server]) -> None:
    page = (ROOT / "docs" / "quickstart.md").read_text(encoding="utf-8")
    program = page.split("```python\n", 1)[1].split("```", 1)[0]
    shown = page.split("prints:\n\n```text\n", 1)[1].split("```", 1)[0]
    server = start_server()
    person = server.create_person("ada@example.com", api_key=True)
    done = subprocess.run(
        [sys.executable, "-c", program.replace("http://127.0.0.1:8300", server.url)],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"API_KEY": str(person.api_key)},
    )
    assert done.stdout == shown, done.stderr


def anchors(page: Path) -> set[str]:
    """The names that headings of a page can be linked by."""
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    headings = re.findall(r"^#+ (.+)$", text, flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if re.match(r"[a-z]+:", link):
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        assert target.exists(), link
        if anchor:
            assert anchor in anchors(target), link


def test_the_readme_leads_to_every_page() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for page in PAGES:
        name = str(page.relative_to(ROOT))
        folder = f"{Path(name).parent}/"
        assert name == "README.md" or f"]({name})" in readme or f"]({folder})" in readme, name


def test_the_excerpt_of_the_help_is_the_help() -> None:
    excerpt = (
        (ROOT / "README.md")
        .read_text(encoding="utf-8")
        .split("```text\nCommands:\n", 1)[1]
        .split("```", 1)[0]
    )
    done = subprocess.run(
        [sys.executable, "-m", "taskcred", "--help"],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"COLUMNS": "80", "TERMINAL_WIDTH": "80"},
    )
    real = done.stdout.split("Commands:\n", 1)[1].split("\n\n", 1)[0]
    assert excerpt.strip() == real.strip()


def test_the_summary_of_the_demo_has_the_rows_that_the_readme_shows() -> None:
    summary = (
        (ROOT / "README.md").read_text(encoding="utf-8").split("What the job saw\n", 1)[1].split("```", 1)[0]
    )
    demo = (ROOT / "scripts" / "demo.py").read_text(encoding="utf-8")
    shown = re.findall(r"^│ (.+?) +│", summary, flags=re.MULTILINE)
    assert shown == re.findall(r'add_row\(\s*"([^"]+)"', demo)


def test_the_makefile_has_the_verbs_that_pages_name() -> None:
    verbs = set(
        re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE)
    )
    for page in PAGES:
        named = set(
            re.findall(
                r"`make ([a-z]+)`|^\$? ?make ([a-z]+)$", page.read_text(encoding="utf-8"), re.MULTILINE
            )
        )
        assert {verb for pair in named for verb in pair if verb} <= verbs, page


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_files_of_ours_that_a_page_names_exist(page: Path) -> None:
    names = re.findall(
        r"`((?:[a-z_]+/)+(?:[a-z_]+\.py)?|[a-z_]+\.py|tests/[a-z_/]+)`", page.read_text(encoding="utf-8")
    )
    places = [ROOT, ROOT / "src" / "taskcred", *(ROOT / "src" / "taskcred").iterdir()]
    for name in names:
        assert name in {"own_key.py", "job.py"} or any((place / name).exists() for place in places), name


@pytest.mark.parametrize("page", sorted((ROOT / "docs" / "howto").iterdir()), ids=lambda page: page.name)
def test_a_configuration_that_a_how_to_shows_is_valid(page: Path, tmp_path: Path) -> None:
    for number, part in enumerate(page.read_text(encoding="utf-8").split("```toml\n")[1:]):
        file = tmp_path / f"{number}.toml"
        file.write_text(part.split("```", 1)[0], encoding="utf-8")
        settings = config_sources.read(file, tmp_path, {}).settings
        # The package of a python task is the reader's own.
        tasks = {name: task for name, task in settings.tasks.items() if task.kind != "python"}
        assert set(load_tasks(tasks, settings.jobs.http_allow)) == {*tasks, "exec"}
