"""The local IAM's pages for a program that asks to sign in: in a browser, without JavaScript, for everybody."""

from __future__ import annotations

import secrets
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import Browser, Page, expect
from werkzeug.serving import WSGIRequestHandler, make_server

from taskcred.clock import SystemClock
from taskcred.domain.secret import Secret
from taskcred.iam.app import create_app
from taskcred.iam.operator import Operator
from taskcred.iam.service import IamConfig, LocalIam
from taskcred.testing import InMemoryVault, RecordingRevocations
from tests.browser.test_accessibility import _violations

EMAIL = "ada@example.test"


class _Quiet(WSGIRequestHandler):
    def log(self, type: str, message: str, *args: Any) -> None:  # noqa: A002 - the base class names it so
        """Nothing: a test's output is its own."""


@dataclass
class Identity:
    """A local IAM on a loopback port, and its one person's password."""

    url: str
    password: str

    def ask(self) -> dict[str, str]:
        """A program asks; what it shows its user."""
        form = {"client_id": "taskcred-cli"}
        asked: dict[str, str] = httpx.post(f"{self.url}/identity/device_authorization", data=form).json()
        return asked

    def poll(self, asked: dict[str, str]) -> httpx.Response:
        """The program asks whether somebody answered."""
        form = {
            "grant_type": "urn:ietf:params:oauth:grant-type:device_code",
            "client_id": "taskcred-cli",
            "device_code": asked["device_code"],
        }
        return httpx.post(f"{self.url}/identity/token", data=form)


@pytest.fixture(scope="module")
def identity(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Identity]:
    place: Path = tmp_path_factory.mktemp("identity")
    listening = socket.create_server(("127.0.0.1", 0))
    url = f"http://127.0.0.1:{listening.getsockname()[1]}"
    iam = LocalIam(
        IamConfig(place / "iam.db", f"{url}/identity"), InMemoryVault(), SystemClock(), RecordingRevocations()
    )
    iam.prepare()
    password = secrets.token_urlsafe(20)
    with Operator(place / "iam.db", SystemClock()) as operator:
        operator.create_user(account="Acme", email=EMAIL, password=Secret(password))
    server = make_server(
        "127.0.0.1", 0, create_app(iam), threaded=True, request_handler=_Quiet, fd=listening.fileno()
    )
    thread = threading.Thread(target=server.serve_forever, name="identity")
    thread.start()
    yield Identity(url, password)
    server.shutdown()
    thread.join()
    server.server_close()
    listening.close()
    iam.close()


@pytest.fixture
def window(browser: Browser, identity: Identity) -> Iterator[Callable[..., Page]]:
    """Open a window; keyword arguments are its settings."""
    opened: list[Any] = []
    complaints: list[str] = []

    def open_window(**settings: Any) -> Page:
        context = browser.new_context(base_url=identity.url, **settings)
        opened.append(context)
        page = context.new_page()
        page.set_default_timeout(10_000)
        page.on(
            "console",
            lambda message: complaints.append(message.text) if "Content Security" in message.text else None,
        )
        return page

    yield open_window
    for context in opened:
        context.close()
    assert not complaints, "our own policy blocked a part of the page"


def _enter(page: Page, code: str) -> None:
    page.goto("/identity/device")
    page.get_by_label("Code").fill(code)
    page.get_by_role("button", name="Continue").click()


def _answer(page: Page, password: str) -> None:
    page.get_by_label("E-mail address").fill(EMAIL)
    page.get_by_label("Password").fill(password)
    page.get_by_role("button", name="Sign in and allow").click()


def _wrong_code(page: Page, _identity: Identity) -> None:
    _enter(page, "BCDF-GHJK")
    expect(page.get_by_role("alert")).to_contain_text("No program waits under this code")


def _question(page: Page, identity: Identity) -> None:
    _enter(page, identity.ask()["user_code"])
    expect(page.get_by_role("heading", name="Let this program act as you?")).to_be_visible()


def _wrong_password(page: Page, identity: Identity) -> None:
    _question(page, identity)
    _answer(page, "not my password")
    expect(page.get_by_role("alert")).to_contain_text("password is wrong")


def _allowed(page: Page, identity: Identity) -> None:
    _question(page, identity)
    _answer(page, identity.password)
    expect(page.get_by_role("heading", name="The program is signed in")).to_be_visible()


def _denied(page: Page, identity: Identity) -> None:
    _question(page, identity)
    page.get_by_role("button", name="Deny").click()
    expect(page.get_by_role("heading", name="Denied")).to_be_visible()


SCENES = {
    "enter a code": lambda page, _identity: page.goto("/identity/device"),
    "wrong code": _wrong_code,
    "question": _question,
    "wrong password": _wrong_password,
    "allowed": _allowed,
    "denied": _denied,
}


@pytest.mark.parametrize("name", SCENES)
def test_axe_finds_nothing_and_nothing_scrolls_sideways(
    identity: Identity, window: Callable[..., Page], name: str
) -> None:
    page = window(reduced_motion="reduce")
    SCENES[name](page, identity)
    assert not _violations(page)
    page.emulate_media(color_scheme="dark", reduced_motion="reduce")
    assert not _violations(page, "color-contrast", "link-in-text-block")
    page.set_viewport_size({"width": 320, "height": 256})
    too_wide = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
    assert page.evaluate(too_wide) <= 0


def test_a_program_is_allowed_by_keyboard_alone_without_javascript(
    identity: Identity, window: Callable[..., Page]
) -> None:
    asked = identity.ask()
    page = window(java_script_enabled=False)
    page.goto(asked["verification_uri_complete"])
    expect(page.get_by_label("Code")).to_have_value(asked["user_code"])
    page.keyboard.press("Enter")
    expect(page.get_by_text(asked["user_code"])).to_be_visible()
    page.get_by_label("E-mail address").focus()
    page.keyboard.type(EMAIL)
    page.keyboard.press("Tab")
    page.keyboard.type(identity.password)
    page.keyboard.press("Tab")
    expect(page.get_by_role("button", name="Sign in and allow")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="The program is signed in")).to_be_visible()
    assert identity.poll(asked).status_code == 200


def test_deny_needs_no_password(identity: Identity, window: Callable[..., Page]) -> None:
    asked = identity.ask()
    page = window()
    _enter(page, asked["user_code"].lower().replace("-", " "))
    page.get_by_role("button", name="Deny").click()
    expect(page.get_by_role("heading", name="Denied")).to_be_visible()
    assert identity.poll(asked).json()["error"] == "access_denied"
