"""Schedules: create from a task, preview, pause, resume, edit, delete."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any, Final
from zoneinfo import available_timezones

from flask import request
from flask.typing import ResponseReturnValue

from taskcred.domain.runs import Misfire, ScheduleView
from taskcred.domain.tasks import Task
from taskcred.errors import InvalidRequestError, NotFoundError, TaskcredError
from taskcred.http.authentication import context as ctx
from taskcred.http.problems import status_of
from taskcred.services import schedules
from taskcred.services.cron import is_zone
from taskcred.web import forms, words
from taskcred.web.api_key import MENDABLE, refused
from taskcred.web.frame import blueprint, fragment, go, me, render, say
from taskcred.web.once import once
from taskcred.web.prompts import open_prompt, through_prompt

_FIELDS: Final = ("name", "cron", "timezone", "misfire")
_FIRST: Final = {"cron": "0 2 * * *", "timezone": "UTC", "misfire": Misfire.RUN_ONCE.value}


def find_task(name: str) -> Task:
    """A task of the catalogue. Raises NotFoundError."""
    task = ctx().tasks.get(name)
    if task is None:
        raise NotFoundError(
            "There is no such task in the catalogue.", hint="Choose one from the list of tasks."
        )
    return task


@blueprint.get("/schedules")
def schedule_list() -> ResponseReturnValue:
    """Own schedules."""
    page, more = schedules.list_own(ctx(), me(), after=request.args.get("after") or None)
    return render("schedules.html", title="Schedules", schedules=page, more=more)


@cache
def _timezones() -> list[str]:
    return sorted(available_timezones() - {"localtime", "posixrules", "Factory"})


def new_schedule_form(task: Task, texts: Mapping[str, str], errors: Mapping[str, str] | None = None) -> str:
    """The form for a new schedule of `task`; also the answer to Schedule on the task's page."""
    values = {**_FIRST, "name": task.title or task.name, **texts}
    return _form(task, None, values, dict(errors or {}))


@blueprint.route("/schedules/new/<task_name>", methods=["GET", "POST"])
def new_schedule(task_name: str) -> ResponseReturnValue:
    """Create a schedule of a task."""
    task = find_task(task_name)
    if request.method == "GET":
        return new_schedule_form(task, forms.texts_of(forms.fields_of(task.parameters)))
    return _submitted(task, None)


@blueprint.get("/schedules/preview")
def schedule_preview() -> ResponseReturnValue:
    """The next five times of an expression, for polling while it is written."""
    times, problem = _preview(request.args)
    return fragment("_preview.html", times=times, problem=problem, zone=request.args.get("timezone", ""))


@blueprint.get("/schedules/<schedule_id>")
def schedule(schedule_id: str) -> ResponseReturnValue:
    """One schedule."""
    shown = schedules.get(ctx(), me(), schedule_id)
    return render(
        "schedule.html",
        title=shown.name,
        schedule=shown,
        task=ctx().tasks.get(shown.task),
        has_zone=is_zone(shown.timezone),
    )


@blueprint.route("/schedules/<schedule_id>/edit", methods=["GET", "POST"])
def edit_schedule(schedule_id: str) -> ResponseReturnValue:
    """Change a schedule."""
    shown = schedules.get(ctx(), me(), schedule_id)
    task = find_task(shown.task)
    if request.method == "POST":
        return _submitted(task, shown)
    values = {
        "name": shown.name,
        "cron": shown.cron,
        "timezone": shown.timezone,
        "misfire": shown.misfire.value,
        "revision": str(shown.revision),
        **forms.texts_of(forms.fields_of(task.parameters), shown.parameters),
    }
    return _form(task, shown, values, {})


@blueprint.post("/schedules/<schedule_id>/pause")
def pause_schedule(schedule_id: str) -> ResponseReturnValue:
    """No more runs until resumed."""
    schedules.pause(ctx(), me(), schedule_id)
    say("The schedule is paused. It starts no runs until you resume it.")
    return go(f"/schedules/{schedule_id}")


@blueprint.post("/schedules/<schedule_id>/resume")
def resume_schedule(schedule_id: str) -> ResponseReturnValue:
    """Runs again, from the next time on."""
    schedules.resume(ctx(), me(), schedule_id)
    say("The schedule is running again.")
    return go(f"/schedules/{schedule_id}")


@blueprint.route("/schedules/<schedule_id>/delete", methods=["GET", "POST"])
def delete_schedule(schedule_id: str) -> ResponseReturnValue:
    """Delete, after a question."""
    shown = schedules.get(ctx(), me(), schedule_id)
    if request.method == "POST":
        schedules.delete(ctx(), me(), schedule_id)
        say(f"The schedule {shown.name} was deleted. Its runs are kept.")
        return go("/schedules")
    return render("delete_schedule.html", title="Delete schedule", schedule=shown)


def _submitted(task: Task, old: ScheduleView | None) -> ResponseReturnValue:
    reading = forms.read(task, request.form)
    texts = {name: request.form.get(name, "").strip() for name in (*_FIELDS, "revision")}
    values = {**texts, **reading.texts}
    errors = dict(reading.errors)
    if not texts["name"]:
        errors["name"] = "Enter a name."
    if texts["misfire"] not in set(Misfire):
        errors["misfire"] = "Choose what happens to missed times."
    if request.form.get("action") == "preview":
        return _form(task, old, values, {}, preview=True)
    if errors:
        return _form(task, old, values, errors), 422
    settings: dict[str, Any] = {
        "name": texts["name"],
        "cron": texts["cron"],
        "timezone": texts["timezone"],
        "misfire": Misfire(texts["misfire"]),
        "parameters": reading.values,
    }
    try:
        if old is None:
            saved_id = once([task.name, settings], lambda: _create(task.name, settings))["id"]
        else:
            revision = request.form.get("revision", type=int)
            saved_id = schedules.update(ctx(), me(), old.id, if_match=revision, **settings).id
    except MENDABLE as error:
        return _form(task, old, values, form_errors(task, error)), status_of(error)
    say("The schedule was saved." if old else "The schedule was created.")
    # Without a usable key its runs would wait, so the person is led to the prompt now, and back here.
    return through_prompt(open_prompt(), f"/schedules/{saved_id}")


def _create(task_name: str, settings: dict[str, Any]) -> dict[str, Any]:
    return {"id": schedules.create(ctx(), me(), task=task_name, **settings).id}


def form_errors(task: Task, error: TaskcredError) -> dict[str, str]:
    """A service's refusal as complaints beside the fields they are about."""
    if isinstance(error, InvalidRequestError) and error.error_code == "invalid_parameters":
        return forms.complaints(task, error)
    field = str(error.details.get("field", ""))
    return {field: f"{error.message} {error.hint}".strip()} if field in _FIELDS else refused(error)


def _preview(values: Mapping[str, str]) -> tuple[object, str]:
    try:
        times = schedules.preview(values.get("cron", ""), values.get("timezone", ""), ctx().clock.now())
    except InvalidRequestError as error:
        return (), f"{error.message} {error.hint}".strip()
    return times, ""


def _form(
    task: Task,
    old: ScheduleView | None,
    values: Mapping[str, str],
    errors: dict[str, str],
    *,
    preview: bool = False,
) -> str:
    times, problem = _preview(values)
    if preview and problem:
        errors = {"cron": problem}
    fields = forms.fields_of(task.parameters)
    return render(
        "schedule_form.html",
        title="Edit schedule" if old else "New schedule",
        task=task,
        schedule=old,
        fields=fields,
        values=values,
        errors=errors,
        ids={each.name: each.id for each in fields},
        times=times,
        problem=problem,
        zone=values.get("timezone", ""),
        timezones=_timezones(),
        misfires=words.MISFIRES,
    )
