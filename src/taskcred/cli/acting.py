"""`--act-for`: the option by which a person's commands are carried out for a service id they may act for."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from contextvars import ContextVar
from typing import Annotated, Any, Final, TypeVar

import typer

Command = TypeVar("Command", bound=Callable[..., Any])

_ActFor = Annotated[
    str | None,
    typer.Option(
        "--act-for",
        metavar="SERVICE-ID",
        help="Do it for this service id (iam_id, id or name), which you may act for.",
    ),
]
_CHOSEN: Final[ContextVar[str | None]] = ContextVar("act_for", default=None)


class OwnersTyper(typer.Typer):
    """Commands on what belongs to an owner, whoever that is: each takes `--act-for`, given once, here."""

    def command(self, *args: Any, **kwargs: Any) -> Callable[[Command], Command]:
        register = super().command(*args, **kwargs)

        def decorate(function: Command) -> Command:
            register(_taking_the_option(function))
            return function

        return decorate


def chosen() -> str | None:
    """The service id that the command under way is for; None where it is for the person."""
    return _CHOSEN.get()


def _taking_the_option(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def command(*args: Any, act_for: str | None, **kwargs: Any) -> Any:
        _CHOSEN.set(act_for)
        return function(*args, **kwargs)

    # Typer reads a command's options from its signature, whose annotations belong to the function's module.
    signature = inspect.signature(function, eval_str=True)
    option = inspect.Parameter("act_for", inspect.Parameter.KEYWORD_ONLY, default=None, annotation=_ActFor)
    parameters = [*signature.parameters.values(), option]
    command.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]  # PEP 362 allows one
    command.__annotations__ = {each.name: each.annotation for each in parameters}
    return command
