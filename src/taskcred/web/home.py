"""The start page: what waits for its owner."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Final

from flask import send_from_directory
from flask.typing import ResponseReturnValue

from taskcred.domain.credentials import CredentialView
from taskcred.domain.runs import PromptState
from taskcred.http.authentication import context as ctx
from taskcred.http.authentication import current_principal
from taskcred.services import notices, prompts, runs, schedules
from taskcred.services.cursors import MAX_LIMIT
from taskcred.web import acting
from taskcred.web.api_key import own_credential
from taskcred.web.frame import blueprint, choices, go, me, render, signed_out_too

_WARN_BEFORE: Final = timedelta(days=30)  # a key that expires sooner is named on the start page
_SHOWN: Final = 5
_A_DAY: Final = 86_400  # seconds


@blueprint.get("/")
@signed_out_too
def home() -> ResponseReturnValue:
    """What waits for you, your key, your latest runs and next schedules; without a session: what this is."""
    if current_principal() is None:
        return render("welcome.html", title="Welcome")
    credential = own_credential()
    latest, _more = runs.list_own(ctx(), me(), limit=_SHOWN)
    planned, _more = schedules.list_own(ctx(), me(), limit=MAX_LIMIT)
    coming = [each for each in planned if each.next_at]
    waiting, _more = prompts.list_own(ctx(), me(), state=PromptState.OPEN)
    return render(
        "home.html",
        title="Home",
        credential=credential,
        expiring=_is_expiring(credential),
        prompts=waiting,
        others_wait=acting.waiting(ctx(), me(), choices()),
        runs=latest,
        schedules=sorted(coming, key=lambda each: each.next_at or each.created_at)[:_SHOWN],
        notices=notices.own(ctx(), me()),
    )


@blueprint.get("/favicon.ico")
@signed_out_too
def favicon() -> ResponseReturnValue:
    """The icon where browsers look for it unasked: for the identity provider's pages, which name none."""
    return send_from_directory(Path(__file__).parent / "static", "icon.svg", max_age=_A_DAY)


@blueprint.post("/notices/<notice_id>/read")
def read_notice(notice_id: str) -> ResponseReturnValue:
    """Put a notice away."""
    notices.mark_read(ctx(), me(), notice_id)
    return go("/")


def _is_expiring(credential: CredentialView | None) -> bool:
    if credential is None or credential.active_key is None or credential.active_key.expires_at is None:
        return False
    return credential.active_key.expires_at - ctx().clock.now() < _WARN_BEFORE
