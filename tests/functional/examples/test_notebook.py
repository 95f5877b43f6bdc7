"""examples/notebook, followed as its README says: real server, real platform, real browser, real IBM SDK."""

from __future__ import annotations

import re
import socket
import subprocess
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Browser, Page, expect

from tests.docs.test_readme import EMAIL, Terminal, comparable, steps
from tests.support.server import Server, eventually

ROOT = Path(__file__).parents[3]
FOLDER = ROOT / "examples" / "notebook"
README = (FOLDER / "README.md").read_text(encoding="utf-8")
FOLLOWED = "<!-- followed -->\n```console\n"
SERVE = "TASKCRED_SERVICE_FILE=notebook.json python examples/notebook/notebook.py"
PATIENCE = 60_000  # milliseconds, on a busy machine


@pytest.fixture
def terminal(start_server: Callable[..., Server]) -> Terminal:
    """A reader's terminal beside a server with the example's catalogue."""
    server = start_server(config=(FOLDER / "taskcred.toml").read_text(encoding="utf-8"))
    terminal = Terminal(server)
    with socket.create_server(("127.0.0.1", 0)) as free:
        here = f"http://127.0.0.1:{free.getsockname()[1]}"
    terminal.known |= {
        "http://127.0.0.1:8400": here,
        "TASKCRED_DATA_DIR=taskcred-data": f"TASKCRED_DATA_DIR={server.data_dir}",
        "notebook.json": str(server.directory / "notebook.json"),
    }
    terminal.environment |= {"NOTEBOOK_URL": here, "NOTEBOOK_DIR": str(server.directory / "notebook-data")}
    return terminal


@contextmanager
def notebook(terminal: Terminal) -> Iterator[str]:
    """The platform, started as the README says; its address."""
    assert f"    {SERVE}\n" in README
    here = terminal.known["http://127.0.0.1:8400"]
    log = terminal.server.directory / "notebook.log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            ["bash", "-c", f"exec env {terminal.here(SERVE)}"],
            stdout=out,
            stderr=out,
            env=terminal.environment,
            cwd=ROOT,
        )
    try:
        eventually(lambda: process.poll() is not None or answers(here), "the notebook answers")
        assert process.poll() is None, log.read_text()
        yield here
    finally:
        process.terminate()
        process.wait(20)


def answers(url: str) -> bool:
    try:
        return httpx.get(url).is_success
    except httpx.HTTPError:
        return False


def follow(terminal: Terminal, block: str) -> None:
    """Run the commands of a block in one shell, and compare what the last one prints."""
    done: list[str] = []
    for command, shown in steps(block):
        said = re.sub(r"whsec_\S+", "whsec_…", terminal.run("; ".join([*done, command])))
        assert comparable(said) == comparable(shown), f"$ {command}\n{said}"
        terminal.learn(shown, said)
        if command.startswith("export "):
            done.append(command)


def prove(page: Page, terminal: Terminal) -> None:
    """The sign-in form of the local IAM."""
    page.get_by_label("E-mail").fill(EMAIL)
    page.get_by_label("Password").fill(terminal.password)
    page.get_by_role("button", name="Sign in").click()


@pytest.mark.slow
@pytest.mark.promise("parked-not-failed")
@pytest.mark.promise("only-what-the-user-started")
def test_the_example_platform_does_what_its_readme_says(browser: Browser, terminal: Terminal) -> None:
    register, by_grant, after_withdrawal = [part.split("```", 1)[0] for part in README.split(FOLLOWED)[1:]]
    follow(terminal, register)
    terminal.choose_password()
    with notebook(terminal) as here, browser.new_context() as window:
        page = window.new_page()
        page.set_default_timeout(PATIENCE)
        page.goto(here)
        page.get_by_role("link", name="Sign in").click()
        prove(page, terminal)
        page.get_by_role("button", name="Run", exact=True).click()
        expect(page.get_by_text("Your cell needs a task credential")).to_be_visible()
        page.get_by_role("link", name="Create one").click()
        if "authorize" in page.url:
            prove(page, terminal)
        page.get_by_label("Name", exact=True).fill("My cells")
        page.get_by_role("button", name="Create key").click()
        page.wait_for_url(f"{here}/?run_id=*")
        expect(page.get_by_text("Succeeded.")).to_be_visible(timeout=PATIENCE)
        expect(page.locator("pre").nth(1)).to_have_text("API keys I have: 1\n")

        page.get_by_role("button", name="Run it nightly").click()
        expect(page.get_by_text("Notebook cell")).to_be_visible()
        page.get_by_role("button", name="Allow").click()
        expect(page.get_by_text("You allowed the notebook")).to_be_visible()
        follow(terminal, by_grant)

        page.get_by_role("link", name="Withdraw that").click()
        page.get_by_role("button", name="End grant").click()
        expect(page.get_by_text("The grant was ended.")).to_be_visible()
        follow(terminal, after_withdrawal)
        page.goto(here)
        expect(page.get_by_text("You allowed the notebook")).to_have_count(0)


@pytest.mark.slow
@pytest.mark.promise("dead-with-the-run")
def test_what_is_cancelled_fails_or_is_refused_says_so(browser: Browser, terminal: Terminal) -> None:
    follow(terminal, README.split(FOLLOWED)[1].split("```", 1)[0])
    terminal.choose_password()
    terminal.run("taskcred login")
    assert "My cells" in terminal.run("taskcred key create --name 'My cells' --generate")
    with notebook(terminal) as here, browser.new_context() as window:
        page = window.new_page()
        page.goto(here)
        page.get_by_role("link", name="Sign in").click()
        prove(page, terminal)
        page.get_by_label("Cell").fill("print('begun', flush=True); import time; time.sleep(600)")
        page.get_by_role("button", name="Run", exact=True).click()
        expect(page.locator("pre").nth(1)).to_have_text("begun\n", timeout=PATIENCE)
        page.get_by_role("button", name="Cancel").click()
        expect(page.get_by_text("Cancelled.")).to_be_visible(timeout=PATIENCE)

        page.get_by_label("Cell").fill("raise SystemExit(3)")
        page.get_by_role("button", name="Run", exact=True).click()
        expect(page.get_by_text("Failed. The cell ended with an error.")).to_be_visible(timeout=PATIENCE)

        page.get_by_role("button", name="Run it nightly").click()
        page.get_by_role("button", name="Refuse").click()
        expect(page.get_by_role("heading", name="Notebook")).to_be_visible()
        page.goto(f"{here}/granted?grant_id={uuid.uuid4()}&state=made-up")
        expect(page.get_by_role("heading", name="Notebook")).to_be_visible()
        expect(page.get_by_text("You allowed the notebook")).to_have_count(0)


def test_the_example_is_short_enough_to_be_read() -> None:
    lines = [len((FOLDER / name).read_text().splitlines()) for name in ("notebook.py", "page.html")]
    assert sum(lines) <= 300


def test_the_readme_names_functions_that_are_there() -> None:
    table = README.split("| what | where |")[1].split("\n\n")[0]
    program = (FOLDER / "notebook.py").read_text()
    for name in re.findall(r"`(\w+)`", table):
        assert f"def {name}(" in program, name
