"""A newcomer against the real server: sign in, run a task, give a key on the way, rotate, delete."""

from __future__ import annotations

import secrets
from collections.abc import Callable

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect

from tests.support.server import Person, Server

CONFIG = """
[iam]
token_ttl = "60s"

[tasks.hello]
kind = "command"
title = "Say hello"
argv = ["sh", "-c", "echo ::progress 1/1 hello; echo hello"]
"""


def _sign_in(page: Page, person: Person) -> None:
    page.get_by_label("E-mail").fill(person.email)
    page.get_by_label("Password").fill(person.password)
    page.get_by_role("button", name="Sign in").click()


def test_the_first_administrator_is_signed_in_once_a_password_is_chosen(
    browser: Browser, start_server: Callable[..., Server]
) -> None:
    server = start_server(config=CONFIG)
    link = (server.data_dir / "administrator-sign-in").read_text().strip()
    with browser.new_context(base_url=server.url) as window:
        page = window.new_page()
        page.goto(link)
        password = secrets.token_urlsafe(16)
        page.get_by_label("New password").fill(password)
        page.get_by_label("The same password again").fill(password)
        page.get_by_role("button", name="Set password and sign in").click()
        expect(page.get_by_role("heading", name="Home", exact=True)).to_be_visible()
        expect(page.get_by_role("button", name="Sign out")).to_be_visible()
        # The proof of identity is fresh: a key can be made at once.
        page.goto("/profile/api-key/create")
        expect(page.get_by_role("heading", name="Create key")).to_be_visible()


@pytest.mark.slow
def test_from_sign_in_to_a_finished_run_and_a_deleted_key(
    browser: Browser, start_server: Callable[..., Server]
) -> None:
    server = start_server(config=CONFIG)
    ada = server.create_person("ada@example.test")
    with browser.new_context(base_url=server.url) as window:
        page = window.new_page()
        page.goto("/")
        page.get_by_role("link", name="Sign in").click()
        assert not Axe().run(page).response["violations"]
        _sign_in(page, ada)
        page.get_by_role("link", name="Tasks").click()
        page.get_by_role("link", name="Say hello").click()
        page.get_by_role("button", name="Run", exact=True).click()
        page.get_by_label("Name").fill("My first key")
        page.get_by_role("button", name="Create key").click()
        # Back at the run, which starts and ends by itself.
        expect(page.get_by_role("heading", name="Run of Say hello")).to_be_visible()
        expect(page.locator(".big .state")).to_have_text("Succeeded", timeout=60_000)
        expect(page.locator(".output")).to_contain_text("hello")

        # A fresh proof of identity is asked for although the browser is signed in.
        page.goto("/sign-in?fresh=1&return_to=/profile/api-key/rotate")
        expect(page.get_by_role("heading", name="Rotate key")).to_have_count(0)
        _sign_in(page, ada)
        expect(page.get_by_role("heading", name="Rotate key")).to_be_visible()
        page.get_by_role("button", name="Rotate key").click()
        expect(page.get_by_text("Your key was rotated")).to_be_focused()
        page.get_by_role("link", name="Delete", exact=True).click()
        page.get_by_label("Type the name to confirm").fill("My first key")
        page.get_by_role("button", name="Delete key").click()
        expect(page.get_by_text("was deleted")).to_be_focused()
        page.get_by_role("button", name="Sign out").click()
        expect(page.get_by_role("heading", name="You are signed out")).to_be_visible()
        # For good: the identity provider asks for the password again.
        page.goto("/sign-in")
        expect(page.get_by_label("Password")).to_be_visible()
