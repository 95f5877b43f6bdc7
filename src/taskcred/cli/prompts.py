"""`prompt`: what waits for an answer of yours."""

from __future__ import annotations

from typing import Annotated, Final

import typer

from taskcred.cli import output, source
from taskcred.cli.acting import OwnersTyper
from taskcred.cli.options import ApiKeyStdin, ExpiresAt, Generate, Json, NeverExpires, ShowOnce, Url
from taskcred.errors import NotFoundError

app = OwnersTyper(help="Open requests to you: work of yours waits for a task credential.")

PATH: Final = "/v1/prompts"
_WHY: Final = {
    "missing": "you have no task credential here",
    "unusable": "the key of your task credential no longer works",
    "locked": "your task credential is locked; an operator lifts that",
}


@app.command("list")
def list_(url: Url = None, as_json: Json = False) -> None:
    """List your open prompts."""
    from taskcred.cli.client import connect

    with connect(url) as server:
        prompts = server.items(PATH, state="open")
    if as_json:
        output.data(prompts)
        return
    output.table(
        ["PROMPT", "WHY", "WAITING RUNS", "OPENED"],
        [
            [
                each["id"],
                _WHY.get(each["why"], each["why"]),
                each["waiting_runs"],
                output.ago(each["opened_at"]),
            ]
            for each in prompts
        ],
        empty="Nothing waits for you.",
    )


@app.command()
def answer(
    prompt: Annotated[
        str | None, typer.Argument(metavar="[PROMPT-ID]", help="The prompt; default: the open one.")
    ] = None,
    generate: Generate = False,
    api_key_stdin: ApiKeyStdin = False,
    show_once: ShowOnce = False,
    expires_at: ExpiresAt = None,
    never_expires: NeverExpires = False,
    name: Annotated[str, typer.Option("--name", help="Your own name for the task credential.")] = "",
    url: Url = None,
    as_json: Json = False,
) -> None:
    """Answer with a key; what waits is queued at once."""
    from taskcred.cli.client import connect

    with connect(url) as server:
        if prompt is None:
            still_open = server.items(PATH, state="open")
            if not still_open:
                raise NotFoundError("Nothing waits for you.", hint="There is nothing to answer.")
            prompt = still_open[0]["id"]
        body = source.body(
            generate=generate,
            api_key_stdin=api_key_stdin,
            show_once=show_once,
            expires_at=expires_at,
            never_expires=never_expires,
        )
        answered = server.post(f"{PATH}/{prompt}/answer", body | ({"name": name} if name else {}))
    if as_json:
        output.data(answered)
        return
    output.line("Answered. What waited is queued.")
    if answered.get("api_key"):
        output.note("This key is shown this once. Keep it somewhere safe.")
        output.line(answered["api_key"])
