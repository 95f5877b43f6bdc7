"""Runs: the list, and one run with its progress, output, attempts and access; live by polling."""

from __future__ import annotations

from typing import Final

from flask import request
from flask.typing import ResponseReturnValue

from taskcred.domain.runs import FINAL_STATES, RunState, RunView
from taskcred.http.authentication import context as ctx
from taskcred.services import access, runs
from taskcred.web.frame import blueprint, fragment, go, me, render, say

_PAGE: Final = 50


@blueprint.get("/runs")
def run_list() -> ResponseReturnValue:
    """Own runs, newest first; filtered by state."""
    return render("runs.html", title="Runs", **_list())


@blueprint.get("/runs/live")
def run_list_live() -> ResponseReturnValue:
    """The table alone, for polling."""
    return fragment("_runs.html", **_list())


def _list() -> dict[str, object]:
    chosen = request.args.get("state", "")
    state = RunState(chosen) if chosen in set(RunState) else None
    page, more = runs.list_own(ctx(), me(), state=state, after=request.args.get("after") or None, limit=_PAGE)
    return {"runs": page, "more": more, "state": state, "states": list(RunState)}


@blueprint.get("/runs/<run_id>")
def run(run_id: str) -> ResponseReturnValue:
    """One run."""
    shown = runs.get(ctx(), me(), run_id)
    return render("run.html", title=_title(shown), **_run(shown), output=runs.output(ctx(), me(), run_id))


@blueprint.get("/runs/<run_id>/live")
def run_live(run_id: str) -> ResponseReturnValue:
    """State, progress and attempts alone, for polling."""
    return fragment("_run.html", **_run(runs.get(ctx(), me(), run_id)))


@blueprint.get("/runs/<run_id>/output")
def run_output(run_id: str) -> ResponseReturnValue:
    """The part of the output after a cursor, for polling."""
    part = runs.output(ctx(), me(), run_id, after=request.args.get("after", 0, type=int))
    return {"text": part.text, "next_after": part.next_after, "truncated": part.truncated}


@blueprint.route("/runs/<run_id>/cancel", methods=["GET", "POST"])
def cancel_run(run_id: str) -> ResponseReturnValue:
    """Cancel: asked first, since it cannot be taken back."""
    if request.method == "POST":
        cancelled = runs.cancel(ctx(), me(), run_id)
        if cancelled.state is RunState.CANCELLED:
            say("The run was cancelled.")
        else:
            say("The run is being cancelled: its job is told to end.", "busy")
        return go(f"/runs/{run_id}")
    shown = runs.get(ctx(), me(), run_id)
    if shown.state in FINAL_STATES:
        say("The run has ended already.", "wait")
        return go(f"/runs/{run_id}")
    return render("cancel_run.html", title="Cancel run", **_run(shown))


def _run(shown: RunView) -> dict[str, object]:
    return {
        "run": shown,
        "task": ctx().tasks.get(shown.task),
        "final": shown.state in FINAL_STATES,
        "attempts": access.run_access(ctx(), me(), shown.id),
    }


def _title(shown: RunView) -> str:
    task = ctx().tasks.get(shown.task)
    return f"Run of {task.title or task.name if task else shown.task}"
