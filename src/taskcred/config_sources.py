"""Where settings come from, and words for what is wrong with them.

Three sources are read into plain dictionaries, merged, and validated at once, so that every complaint can
name the place that said so: a flag, an environment variable, or a key of the file.
"""

from __future__ import annotations

import difflib
import os
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails
from pydantic_settings import EnvSettingsSource, SettingsError

from taskcred.config import Settings
from taskcred.errors import ConfigurationError

PREFIX: Final = "TASKCRED_"
FILE_NAME: Final = "taskcred.toml"
# Variables that are not a setting's own name but are ours all the same.
ALIASES: Final = {"TASKCRED_MASTER_KEY_FILE": ("vault", "master_key_file")}
OTHER_VARIABLES: Final = frozenset(
    {
        "TASKCRED_CA_FILE",
        "TASKCRED_CLIENT_ID",
        "TASKCRED_CLIENT_SECRET_FILE",
        "TASKCRED_CONFIG",
        "TASKCRED_RUN_ID",
        "TASKCRED_SERVICE_FILE",
        "TASKCRED_URL",
        "TASKCRED_WORKLOAD_TOKEN_FILE",
    }
)


@dataclass(frozen=True, slots=True)
class Read:
    """The settings, the file they were read from (None: no file), and who said what."""

    settings: Settings
    file: Path | None
    overrides: Mapping[str, Any]
    environment: Mapping[str, Any]
    in_file: Mapping[str, Any]

    def origin(self, path: Sequence[str]) -> str:
        """Who set the value at `path`: "command line", a variable's name, the file's path, or "default"."""
        return _origin(path, self.overrides, self.environment, self.in_file, self.file)


def read(config_file: Path | None, data_dir: Path | None, overrides: Mapping[str, Any]) -> Read:
    """Read, merge and validate; see `config.load`. Raises ConfigurationError."""
    environment = _from_environment()
    directory = data_dir or environment.get("data_dir")
    file = config_file or _variable_path("TASKCRED_CONFIG")
    in_file: dict[str, Any] = {}
    if file is not None:
        in_file = _from_file(file)
    else:
        # The directory decides which file is read, so that file cannot move the directory.
        found = Path(directory or Settings.model_fields["data_dir"].default) / FILE_NAME
        if found.exists():
            file, in_file = found, _from_file(found)
            if "data_dir" in in_file:
                raise ConfigurationError(
                    f"{found}: data_dir cannot be set in a file that is found in the data directory.",
                    hint="Remove the line, or name the file with --config or TASKCRED_CONFIG.",
                )
    flags = {**overrides, **({"data_dir": data_dir} if data_dir else {})}
    merged = _merge(_merge(in_file, environment), flags)
    try:
        settings = Settings(**merged)
    except ValidationError as error:
        raise _explained(error, flags, environment, in_file, file) from None
    settings = settings.model_copy(update={"data_dir": settings.data_dir.expanduser().absolute()})
    return Read(settings, file, flags, environment, in_file)


def unknown_variables(environ: Mapping[str, str] | None = None) -> list[str]:
    """A sentence for each TASKCRED_ variable that nothing reads: most likely a typing error."""
    names = _top_level_variables()
    sentences = []
    for name in sorted(os.environ if environ is None else environ):
        if not name.startswith(PREFIX) or name.split("__")[0] in names:
            continue
        head, *rest = name.split("__")
        near = difflib.get_close_matches(head, names, n=1)
        meant = "__".join([*near, *rest])
        advice = f"did you mean {meant}?" if near else "`taskcred config show` lists the settings."
        sentences.append(f"The environment variable {name} is not a setting and was ignored; {advice}")
    return sentences


def variable(path: Sequence[str]) -> str:
    """The environment variable that sets the value at `path`."""
    return PREFIX + "__".join(path).upper()


def _top_level_variables() -> frozenset[str]:
    return frozenset({variable([name]) for name in Settings.model_fields}) | set(ALIASES) | OTHER_VARIABLES


def _from_environment() -> dict[str, Any]:
    try:
        values: dict[str, Any] = EnvSettingsSource(Settings)()
    except SettingsError as error:
        named = [
            name for name in _top_level_variables() if f'"{name.removeprefix(PREFIX).lower()}"' in str(error)
        ]
        suspects = sorted(name for name in os.environ if name.split("__")[0] in named)
        raise ConfigurationError(
            f"An environment variable is not valid JSON; one of: {', '.join(suspects)}.",
            hint='Lists and tables are written as JSON there, such as TASKCRED_JOBS__READABLE=["/srv/data"].',
        ) from None
    for name, (section, key) in ALIASES.items():
        if os.environ.get(name):
            values = _merge(values, {section: {key: os.environ[name]}})
    return values


def _variable_path(name: str) -> Path | None:
    text = os.environ.get(name)
    return Path(text) if text else None


def _from_file(file: Path) -> dict[str, Any]:
    try:
        with file.open("rb") as stream:
            values = tomllib.load(stream)
    except FileNotFoundError:
        raise ConfigurationError(
            f"The configuration file {file} does not exist.",
            hint="Name an existing file with --config or TASKCRED_CONFIG, or leave both out.",
        ) from None
    except OSError as error:
        raise ConfigurationError(
            f"The configuration file {file} cannot be read: {error.strerror}.",
            hint="Let the user that runs taskcred read it.",
        ) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigurationError(
            f"{file} is not valid TOML: {error}.",
            hint='Texts need quotes, tables a heading such as [server]; durations are written "90s" or "12h".',
        ) from None
    return _anchored(Settings, values, file.absolute().parent)


def _anchored(model: type[BaseModel], values: Mapping[str, Any], base: Path) -> dict[str, Any]:
    """`values` with relative paths made relative to `base`, wherever `model` asks for a path."""
    result = dict(values)
    for name, field in model.model_fields.items():
        value = result.get(name)
        kinds = {field.annotation, *get_args(field.annotation)}
        if (
            isinstance(value, dict)
            and isinstance(field.annotation, type)
            and issubclass(field.annotation, BaseModel)
        ):
            result[name] = _anchored(field.annotation, value, base)
        elif Path in kinds and isinstance(value, str):
            result[name] = base / Path(value).expanduser()
        elif Path in kinds and isinstance(value, list):
            result[name] = [base / Path(item).expanduser() for item in value if isinstance(item, str)]
    return result


def _merge(low: Mapping[str, Any], high: Mapping[str, Any]) -> dict[str, Any]:
    """`high` over `low`, table by table."""
    result = dict(low)
    for name, value in high.items():
        below = result.get(name)
        both = isinstance(value, Mapping) and isinstance(below, Mapping)
        result[name] = _merge(below, value) if both else value  # type: ignore[arg-type]  # `both` narrows it
    return result


def _holds(values: Any, path: Sequence[str]) -> bool:
    for name in path:
        if not isinstance(values, Mapping) or name not in values:
            return False
        values = values[name]
    return True


def _origin(
    path: Sequence[str],
    overrides: Mapping[str, Any],
    environment: Mapping[str, Any],
    in_file: Mapping[str, Any],
    file: Path | None,
) -> str:
    if _holds(overrides, path):
        return "command line"
    if _holds(environment, path):
        for name, alias in ALIASES.items():
            if tuple(path) == alias and variable(path) not in os.environ:
                return name
        return variable(path)
    if _holds(in_file, path):
        return str(file)
    return "default"


def _explained(
    error: ValidationError,
    overrides: Mapping[str, Any],
    environment: Mapping[str, Any],
    in_file: Mapping[str, Any],
    file: Path | None,
) -> ConfigurationError:
    """One sentence for each complaint: the place that said so, what is wrong, what to write."""
    sentences = []
    for detail in error.errors(include_url=False):
        path = [str(part) for part in detail["loc"]]
        while path and (origin := _origin(path, overrides, environment, in_file, file)) == "default":
            path.pop()  # a missing key, or an item of a list: its table is what somebody wrote
        if not path:
            path, origin = [str(part) for part in detail["loc"]], str(file or "the configuration")
        what, cure = _words(detail)
        full = ".".join(str(part) for part in detail["loc"])
        sentences.append(f"{origin}: {full}: {what} {cure}".rstrip())
    listed = "\n".join(f"  {sentence}" for sentence in sentences)
    message = sentences[0] if len(sentences) == 1 else f"{len(sentences)} settings are wrong:\n{listed}"
    return ConfigurationError(message, hint="docs/configuration.md describes every setting.")


def _words(detail: ErrorDetails) -> tuple[str, str]:
    """What is wrong, and what to write. Values are shown only where they cannot be a secret."""
    match detail["type"]:
        case "extra_forbidden":
            return "there is no such setting.", _did_you_mean([str(part) for part in detail["loc"]])
        case "literal_error":
            return f"{detail['input']!r} is not one of {detail['ctx']['expected']}.", ""
        case "time_delta_parsing" | "time_delta_type":
            return "this is not a duration.", 'Write seconds, or a text such as "90s", "15m", "12h", "30d".'
        case "greater_than" | "greater_than_equal" | "less_than" | "less_than_equal":
            limit = next(iter(detail.get("ctx", {}).values()))
            words = detail["type"].replace("_", " ").replace("than equal", "than or equal to")
            return f"the value must be {words} {limit}.", ""
        case "missing":
            return "this is required and missing.", ""
        case "value_error":
            return f"{detail['ctx']['error']}.", ""
        case _:
            return f"{detail['msg'][:1].lower()}{detail['msg'][1:]}.", ""


def _did_you_mean(path: Sequence[str]) -> str:
    """The nearest name in the table that `path` points into."""
    model: type[BaseModel] | None = Settings
    for part in path[:-1]:
        if model is None:
            break
        field = model.model_fields.get(part)
        kinds = {field.annotation, *get_args(field.annotation)} if field else set()
        inner = [kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)]
        # Below a dictionary of tables comes a name of the user's own, which stays in the same table.
        model = inner[0] if inner else model
    names = list(model.model_fields) if model else []
    near = difflib.get_close_matches(path[-1], names, n=1)
    return f"Did you mean {near[0]}?" if near else f"This table knows: {', '.join(names)}."
