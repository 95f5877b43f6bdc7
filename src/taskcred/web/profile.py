"""Profile and settings, tabs Live tokens and Activity."""

from __future__ import annotations

import csv
import io
from typing import Final

from flask import Response, request
from flask.typing import ResponseReturnValue

from taskcred.domain.permissions import Permission
from taskcred.domain.services import id_of
from taskcred.errors import NotFoundError
from taskcred.http.authentication import context as ctx
from taskcred.services import access
from taskcred.services.authorize import authorize
from taskcred.store import audit, services
from taskcred.web import words
from taskcred.web.frame import blueprint, go, me, render, say

_PAGE: Final = 50
_EXPORT: Final = 10_000  # events in one file; the REST route pages through all of them


@blueprint.get("/profile/tokens")
def live_tokens() -> ResponseReturnValue:
    """What your live runs hold at this moment."""
    return render("tokens.html", title="Live tokens", access=access.live_access(ctx(), me()))


@blueprint.route("/profile/tokens/<attempt_id>/end", methods=["GET", "POST"])
def end_access(attempt_id: str) -> ResponseReturnValue:
    """Take one attempt's access away."""
    if request.method == "POST":
        access.end_access(ctx(), me(), attempt_id)
        say("The run's access was ended. Its next call for a token is refused.")
        return go("/profile/tokens")
    found = [each for each in access.live_access(ctx(), me()) if each.attempt_id == attempt_id]
    if not found:
        raise NotFoundError("This access has ended already.", hint="Nothing is left to do.")
    return render("end_access.html", title="End access", access=found[0])


@blueprint.get("/profile/activity")
def activity() -> ResponseReturnValue:
    """Your own audit events, newest first."""
    events = _events(request.args.get("before", type=int), _PAGE + 1)
    actors = {stored.event.actor.id for stored in events}
    with ctx().store.read() as connection:
        titles = services.titles(connection, {id_of(who) for who in actors if who.startswith("service:")})
    return render(
        "activity.html",
        title="Activity",
        events=events[:_PAGE],
        services=titles,
        older=events[_PAGE - 1].id if len(events) > _PAGE else None,
        paged="before" in request.args,
    )


@blueprint.get("/profile/activity.csv")
def activity_file() -> ResponseReturnValue:
    """Your own audit events as a file."""
    text = io.StringIO()
    rows = csv.writer(text)
    rows.writerow(["at", "action", "outcome", "actor", "address", "target_type", "target_id", "run_id"])
    for stored in _events(None, _EXPORT):
        event = stored.event
        rows.writerow(
            [
                words.absolute(stored.at),
                event.action,
                event.outcome,
                event.actor.id,
                event.actor.address,
                event.target_type,
                event.target_id,
                event.run_id or "",
            ]
        )
    return Response(
        text.getvalue(),
        mimetype="text/csv",
        headers={"Content-Disposition": 'attachment; filename="taskcred-activity.csv"'},
    )


def _events(before: int | None, limit: int) -> list[audit.StoredEvent]:
    principal = me()
    authorize(ctx(), principal, Permission.AUDIT_READ_OWN)
    with ctx().store.read() as connection:
        return audit.of_owner(connection, principal.account_id, principal.iam_id, before=before, limit=limit)
