"""`config` and `doctor`: what is set, and whether it works."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import typer

from taskcred.cli import local, output
from taskcred.cli.exits import ExitCode
from taskcred.cli.options import ConfigFile, DataDir, Json

if TYPE_CHECKING:
    from pydantic import BaseModel

app = typer.Typer(help="The configuration.")

_SIGNS = {"ok": "ok  ", "warning": "WARN", "failed": "FAIL"}


@app.command()
def check(data_dir: DataDir = None, config: ConfigFile = None, as_json: Json = False) -> None:
    """Check the configuration, and say what is wrong and where. Changes nothing."""
    from taskcred import doctor

    found = doctor.configuration(local.settings(config, data_dir))
    _report(found, as_json=as_json)
    if any(each.state == "failed" for each in found):
        raise typer.Exit(ExitCode.CONFIGURATION)


@app.command()
def show(data_dir: DataDir = None, config: ConfigFile = None, as_json: Json = False) -> None:
    """Show every setting, its value, and who set it: a flag, a variable, the file, or nobody."""
    read = local.read(config, data_dir)
    rows = [(path, value, read.origin(path)) for path, value in _walk(read.settings, ())]
    if as_json:
        output.data(
            {
                "file": read.file,
                "settings": [
                    {"setting": ".".join(path), "value": value, "set_by": origin}
                    for path, value, origin in rows
                ],
            }
        )
        return
    output.note(f"File: {read.file or 'none'}")
    output.table(
        ["SETTING", "VALUE", "SET BY"],
        [(".".join(path), _shown(value), origin) for path, value, origin in rows],
        empty="No settings.",
    )


def doctor(data_dir: DataDir = None, config: ConfigFile = None, as_json: Json = False) -> None:
    """Check this installation. Looks at configuration, file modes, isolation, databases, vault, identity
    provider, clock and server; changes nothing. Exit status 9 where a check failed."""
    from taskcred import doctor as checks

    found = checks.examine(local.settings(config, data_dir))
    _report(found, as_json=as_json)
    if any(each.state == "failed" for each in found):
        raise typer.Exit(ExitCode.BAD_RESULT)


def add_to(app_: typer.Typer) -> None:
    """Hang the commands into the tree."""
    app_.command()(doctor)


def _report(found: Sequence[Any], *, as_json: bool) -> None:
    if as_json:
        output.data(
            [
                {"check": each.name, "state": each.state, "message": each.words, "hint": each.cure}
                for each in found
            ]
        )
        return
    for each in found:
        output.line(f"{_SIGNS[each.state]}  {each.name}: {each.words}")
        if each.cure:
            output.line(f"      What to do: {each.cure}")


def _walk(model: BaseModel, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    from pydantic import BaseModel as Model

    for name in type(model).model_fields:
        value = getattr(model, name)
        if isinstance(value, Model):
            yield from _walk(value, (*path, name))
        elif isinstance(value, dict) and value and all(isinstance(each, Model) for each in value.values()):
            for key, entry in value.items():
                yield from _walk(entry, (*path, name, key))
        else:
            yield (*path, name), _as_written(value)


def _as_written(value: Any) -> Any:
    """A value as the file writes it."""
    if isinstance(value, timedelta):
        return f"{value.total_seconds():g}s"
    if isinstance(value, tuple):
        return [str(each) for each in value]
    return value


def _shown(value: Any) -> str:
    return "" if value in (None, "") else str(value)
