"""`admin`: what an operator does to other people's credentials, and workers."""

from __future__ import annotations

import typer

app = typer.Typer(help="For the operator, on the server's machine.")


@app.callback()
def _admin() -> None:
    """For the operator, on the server's machine."""
