"""What may be said of a service: names, tasks, limits, URLs."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Final

from taskcred.domain.services import (
    EXECUTORS,
    MOST_CALLBACK_URLS,
    MOST_STARTS_PER_MINUTE,
    NAME,
    refuse_url,
)
from taskcred.errors import InvalidRequestError

_MOST: Final = {"title": 128, "description": 1024}


def verify(catalogue: Collection[str], values: Mapping[str, Any]) -> None:
    """Raises InvalidRequestError, whose `field` is the first of `values` (by their column names) that cannot
    be. `catalogue` has the names of the tasks there are."""
    for field, value in values.items():
        match field:
            case "name":
                _verify_name(value)
            case "tasks":
                _verify_tasks(catalogue, value)
            case "executors":
                _verify_executors(value)
            case "starts_per_minute":
                _verify_starts(value)
            case "callback_urls":
                _verify_callbacks(value)
            case "webhook_url":
                if value:
                    _verify_url(field, value)
            case _:
                _verify_text(field, value)


def _verify_name(name: str) -> None:
    if not NAME.fullmatch(name):
        raise _wrong(
            "name",
            f"{name!r} cannot be the name of a service.",
            "Use up to 64 of a-z, 0-9, dot, dash and underscore, beginning with a letter or digit.",
        )


def _verify_tasks(catalogue: Collection[str], tasks: list[str]) -> None:
    _verify_once("tasks", tasks)
    for task in tasks:
        if task not in catalogue:
            raise InvalidRequestError(
                f"There is no task {task!r} in the catalogue.",
                hint="The catalogue is in the server's configuration, [tasks]: name that file with --config, or in "
                "TASKCRED_CONFIG. `taskcred task list` shows what the server has.",
                code="unknown_task",
                field="tasks",
            )


def _verify_executors(executors: list[str]) -> None:
    _verify_once("executors", executors)
    if not executors or any(word not in EXECUTORS for word in executors):
        raise _wrong(
            "executors",
            "A service's runs are carried out by `service` (its own engine), `worker` (ours), or both.",
            "Name at least one of them.",
        )


def _verify_starts(number: int) -> None:
    if not 1 <= number <= MOST_STARTS_PER_MINUTE:
        raise _wrong(
            "starts_per_minute",
            f"A service starts 1 to {MOST_STARTS_PER_MINUTE} runs a minute.",
            "To stop it, disable it.",
        )


def _verify_callbacks(urls: list[str]) -> None:
    _verify_once("callback_urls", urls)
    if len(urls) > MOST_CALLBACK_URLS:
        raise _wrong(
            "callback_urls",
            f"A service has at most {MOST_CALLBACK_URLS} callback URLs.",
            "One page of yours can lead on to others.",
        )
    for url in urls:
        _verify_url("callback_urls", url)


def _verify_url(field: str, url: str) -> None:
    why = refuse_url(url)
    if why is not None:
        # Not the URL itself: somebody may have written a password into it.
        raise InvalidRequestError(
            f"`{field}`: the URL {why}.",
            hint="Write it whole, like https://platform.example.org/path; http only for this very machine.",
            code="invalid_url",
            field=field,
        )


def _verify_text(field: str, text: str) -> None:
    lines = text.split("\n") if field == "description" else [text]
    if len(text) > _MOST[field] or not all(line.isprintable() for line in lines):
        raise _wrong(
            field, f"`{field}` has at most {_MOST[field]} characters, all of them visible.", "Shorten it."
        )


def _verify_once(field: str, values: list[str]) -> None:
    if len(set(values)) != len(values):
        raise _wrong(field, f"`{field}` names something twice.", "Name each once.")


def _wrong(field: str, message: str, hint: str) -> InvalidRequestError:
    return InvalidRequestError(message, hint=hint, field=field)
