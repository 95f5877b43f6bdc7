"""Every screen shows how to do the same by API and command line: what it shows exists."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import httpx
import typer.main

import taskcred.web
from taskcred.cli.app import build
from tests.browser.house import House

_TEMPLATES = Path(taskcred.web.__file__).parent / "templates"
_PAGES_OF_THEIR_OWN = {
    "welcome.html",
    "problem.html",
    "key_once.html",
    "service_secret_once.html",
    "base.html",
}


def _shown() -> dict[str, str]:
    """The equivalents of each page, by template."""
    found = {}
    for path in sorted(_TEMPLATES.glob("[a-z]*.html")):
        calls = re.findall(r"ui\.equivalents\((.*?)\) }}", path.read_text(), flags=re.DOTALL)
        if path.name not in _PAGES_OF_THEIR_OWN:
            assert calls, f"{path.name} shows no equivalents"
            found[path.name] = " ".join(calls)
    return found


def test_commands_that_pages_show_exist() -> None:
    group: Any = typer.main.get_command(build())
    for name, text in _shown().items():
        commands = re.findall(r"taskcred ((?:[a-z-]+ )+[a-z-]+|[a-z-]+ [a-z-]+)", text)
        assert commands, name
        for words in commands:
            command, path = group, []
            for word in words.split():
                if not hasattr(command, "commands"):
                    break  # what follows is an argument
                assert word in command.commands, f"{name}: taskcred {words}"
                command = command.commands[word]
                path.append(word)
            assert not hasattr(command, "commands"), f"{name}: taskcred {words} is no command"
            options = {option for param in command.params for option in param.opts}
            line = text[text.index(f"taskcred {' '.join(path)}") :].split('"')[0]
            assert set(re.findall(r"--[a-z-]+", line)) <= options, f"{name}: {line}"


def test_routes_that_pages_show_exist(house: House) -> None:
    paths = httpx.get(f"{house.url}/openapi.json").json()["paths"]
    known = {
        (method.upper(), re.sub(r"{[^}]+}", "{}", path)) for path, item in paths.items() for method in item
    }
    for name, text in _shown().items():
        # An id is joined to the text in between: "GET /v1/runs/" ~ run.id ~ "/output".
        text = re.sub(r"""['"] ~ [a-z_.]*id ~ ['"]""", "{}", text)
        text = re.sub(r"""['"] ~ [a-z_.]*id""", '{}"', text)
        routes = re.findall(r"(GET|POST|PATCH|DELETE) (/[a-z0-9_/{}]+)", text)
        assert routes, name
        for method, path in routes:
            assert (method, re.sub(r"{[^}]*}", "{}", path)) in known, f"{name}: {method} {path}"
