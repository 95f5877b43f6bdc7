"""Tasks: the catalogue, and a form made from a task's JSON schema with Run and Schedule."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flask import request
from flask.typing import ResponseReturnValue

from taskcred.domain.tasks import Task, TaskKind
from taskcred.http.authentication import context as ctx
from taskcred.http.problems import status_of
from taskcred.services import runs
from taskcred.web import forms
from taskcred.web.api_key import MENDABLE, own_credential
from taskcred.web.frame import blueprint, go, me, render, say
from taskcred.web.once import once
from taskcred.web.prompts import through_prompt
from taskcred.web.schedules import find_task, form_errors, new_schedule_form


@blueprint.get("/tasks")
def tasks() -> ResponseReturnValue:
    """What of the catalogue can be run and scheduled here: the rest is carried out elsewhere."""
    here = (task for task in ctx().tasks.values() if task.kind is not TaskKind.EXTERNAL)
    return render(
        "tasks.html",
        title="Tasks",
        catalogue=sorted(here, key=lambda task: task.title or task.name),
    )


@blueprint.route("/tasks/<name>", methods=["GET", "POST"])
def task(name: str) -> ResponseReturnValue:
    """Fill in a task's parameters; Run starts it, Schedule asks for the times."""
    chosen = find_task(name)
    if request.method == "GET":
        return _form(chosen, forms.texts_of(forms.fields_of(chosen.parameters)), {})
    reading = forms.read(chosen, request.form)
    if reading.errors:
        return _form(chosen, reading.texts, reading.errors), 422
    if request.form.get("action") == "schedule":
        return new_schedule_form(chosen, reading.texts)
    try:
        run = once([name, reading.values], lambda: _start(name, reading.values))
    except MENDABLE as error:
        return _form(chosen, reading.texts, form_errors(chosen, error)), status_of(error)
    path = f"/runs/{run['id']}"
    if run["prompt_id"]:
        return through_prompt(run["prompt_id"], path)
    say("The run was started.")
    return go(path)


def _start(name: str, parameters: dict[str, Any]) -> dict[str, Any]:
    run = runs.start(ctx(), me(), task=name, parameters=parameters)
    return {"id": run.id, "prompt_id": run.prompt_id}


def _form(chosen: Task, texts: Mapping[str, str], errors: Mapping[str, str]) -> str:
    fields = forms.fields_of(chosen.parameters)
    return render(
        "task.html",
        title=chosen.title or chosen.name,
        task=chosen,
        fields=fields,
        ids={each.name: each.id for each in fields},
        values=texts,
        errors=errors,
        credential=own_credential(),
    )
