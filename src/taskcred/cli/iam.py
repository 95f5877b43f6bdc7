"""`iam`: accounts, users and service ids of the local IAM, by its operator. Works before the first start
and while the server runs."""

from __future__ import annotations

import typer

app = typer.Typer(help="The local IAM: accounts, users, memberships, service ids.")


@app.callback()
def _iam() -> None:
    """The local IAM: accounts, users, memberships, service ids."""
