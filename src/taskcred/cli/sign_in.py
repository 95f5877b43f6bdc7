"""`login` and `logout`."""

from __future__ import annotations

from typing import Annotated

import typer

from taskcred.cli import output, state
from taskcred.cli.options import Json, Url


def login(
    url: Url = None,
    account: Annotated[
        str | None,
        typer.Option("--account", metavar="ID", help="The account to act in; default: your first."),
    ] = None,
    device: Annotated[
        bool,
        typer.Option(
            "--device",
            help="Print a code to type on any device that has a browser; the default over SSH and without a display.",
        ),
    ] = False,
    browser: Annotated[
        bool | None,
        typer.Option(
            "--browser/--no-browser",
            help="Sign in with a browser on this machine: open it, or only print the link.",
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Sign in with a browser, here or on another device. Later commands act as you, until `logout`."""
    from taskcred.cli import login as flow
    from taskcred.cli.where import find

    server = find(url)
    entry = flow.sign_in(server, account=account, browser=browser, device=device)
    claims = flow.unverified_claims(entry.access_token)
    who = {
        "url": server.url,
        "iam_id": claims["iam_id"],
        "account_id": claims["account"]["bss"],
        "email": claims.get("email", ""),
        "name": claims.get("name", ""),
    }
    if as_json:
        output.data(who)
        return
    output.line(f"Signed in at {server.url} as {who['email'] or who['iam_id']}, account {who['account_id']}.")


def logout(url: Url = None, as_json: Json = False) -> None:
    """Forget the sign-in on this machine."""
    from taskcred.cli.where import find

    server = find(url)
    was_there = state.signed_in(server.url) is not None
    with state.locked():
        state.forget(server.url)
    if as_json:
        output.data({"url": server.url, "was_signed_in": was_there})
        return
    output.line(f"Signed out of {server.url}." if was_there else f"You were not signed in at {server.url}.")


def add_to(app: typer.Typer) -> None:
    """Hang the commands into the tree."""
    app.command()(login)
    app.command()(logout)
