"""The pages as one blueprint."""

from __future__ import annotations

from typing import Final

from flask import Flask

from taskcred.services.context import Context
from taskcred.web import api_key, frame, grants, home, profile, prompts, runs, schedules, services, tasks
from taskcred.web.accounts import AccountBook

# Importing a module hangs its views on the blueprint.
ROOMS: Final = (home, api_key, grants, profile, tasks, runs, schedules, prompts, services)


def register(app: Flask, ctx: Context) -> None:
    """Add the pages to an app of `http.app.create_app`, whose sessions and CSRF tokens they use."""
    app.extensions[frame.ACCOUNTS] = AccountBook(ctx.provider, ctx.clock)
    app.register_blueprint(frame.blueprint)
