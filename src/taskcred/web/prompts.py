"""A prompt's own page: what waits for a key, and the answer to it. Its link carries no authority."""

from __future__ import annotations

from typing import Final

from flask import request
from flask.typing import ResponseReturnValue

from taskcred.domain.runs import PromptState, PromptView, RunState
from taskcred.http.authentication import context as ctx
from taskcred.http.problems import status_of
from taskcred.http.safe_return import safe_return
from taskcred.services import answering, prompts, runs, schedules
from taskcred.services.cursors import MAX_LIMIT
from taskcred.web import ways_back
from taskcred.web.api_key import MENDABLE, after_key, own_credential, refused
from taskcred.web.frame import blueprint, fresh, go, me, render, say
from taskcred.web.sources import EXPIRY_CHOICES, SourceForm, read_source

_SHOWN: Final = 5


def through_prompt(prompt_id: str | None, then: str) -> ResponseReturnValue:
    """Lead a person whose run or schedule waits through its prompt, and back to `then`."""
    if prompt_id is None:
        return go(then)
    return go(f"/prompts/{prompt_id}?return_to={then}")


@blueprint.get("/prompts")
def prompt_list() -> ResponseReturnValue:
    """There is one open prompt at most: go there."""
    prompt_id = open_prompt()
    if prompt_id is None:
        say("Nothing waits for a key.")
        return go("/")
    return go(f"/prompts/{prompt_id}")


@blueprint.route("/prompts/<prompt_id>", methods=["GET", "POST"])
@fresh
def prompt(prompt_id: str) -> ResponseReturnValue:
    """What waits and why; answered with a generated or an existing key. Then on to where the person came from:
    a page of ours, or the service that started `run`."""
    shown = prompts.get(ctx(), me(), prompt_id)
    then = ways_back.of_run(request.args.get("run")) or safe_return(request.args.get("return_to"))
    if request.method == "GET" or shown.state is not PromptState.OPEN or shown.why == "locked":
        return _page(shown, then, {}, SourceForm(), {})
    source, filled = read_source(request.form, ctx().clock.now())
    errors = dict(filled.errors)
    name = request.form.get("name", "").strip()
    if shown.why == "missing" and not name:
        errors["name"] = "Enter a name, in your own words."
    if source is None or errors:
        return _page(shown, then, {"name": name}, filled, errors), 422
    try:
        created = answering.answer(ctx(), me(), prompt_id, source, name=name)
    except MENDABLE as error:
        return _page(shown, then, {"name": name}, filled, refused(error)), status_of(error)
    return after_key(created, "Your key is in place. What waited for it goes on.", then)


def open_prompt() -> str | None:
    """The id of the person's open prompt; there is one at most."""
    found, _more = prompts.list_own(ctx(), me(), state=PromptState.OPEN, limit=1)
    return found[0].id if found else None


def _page(
    shown: PromptView, then: str, values: dict[str, str], filled: SourceForm, errors: dict[str, str]
) -> str:
    waiting, _more = runs.list_own(ctx(), me(), state=RunState.WAITING_FOR_CREDENTIAL, limit=_SHOWN)
    planned, _more = schedules.list_own(ctx(), me(), limit=MAX_LIMIT)
    ways_back.let_forms_lead_to(then)
    return render(
        "prompt.html",
        title="A key is needed" if shown.state is PromptState.OPEN else "Nothing waits here any more",
        prompt=shown,
        credential=own_credential(),
        waiting=waiting,
        schedules=[each for each in planned if not each.paused],
        then=then,
        back_at=ways_back.host_of(then),
        values=values,
        source=filled,
        expiry_choices=EXPIRY_CHOICES,
        errors=errors,
        today=ctx().clock.now().date(),
    )
