"""`key`: the person's task credential and its keys."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from taskcred.cli import output, source
from taskcred.cli.acting import OwnersTyper
from taskcred.cli.options import ApiKeyStdin, ExpiresAt, Generate, Json, NeverExpires, ShowOnce, Url, Yes
from taskcred.domain.credentials import DEFAULT_NAME
from taskcred.errors import ConflictError, NotFoundError

if TYPE_CHECKING:
    from taskcred.cli.client import Client

app = OwnersTyper(help="Your task credential: the API key that your runs authenticate with.")

PATH: Final = "/v1/task_credentials"
_ID = Annotated[
    str | None, typer.Argument(metavar="[ID]", help="The task credential; default: the one you have.")
]
_STATES: Final = {
    "active": "Active",
    "phased_out": "Phased out",
    "expired": "Expired",
    "revoked": "Revoked",
    "destroyed": "Destroyed",
}


@app.command("list")
def list_(url: Url = None, as_json: Json = False) -> None:
    """List your keys: the active one, and those being phased out."""
    from taskcred.cli.client import connect

    with connect(url) as server:
        credentials = server.get(PATH)["credentials"]
        keys = {each["id"]: server.items(f"{PATH}/{each['id']}/keys") for each in credentials}
    if as_json:
        output.data([{**each, "keys": keys[each["id"]]} for each in credentials])
        return
    output.table(
        ["NAME", "STATE", "KEY", "ORIGIN", "CREATED", "LAST USED", "EXPIRES", "KEY ID"],
        [_row(each, key) for each in credentials for key in keys[each["id"]]],
        empty="You have no task credential here. `taskcred key create --generate` makes one.",
    )


@app.command()
def show(credential: _ID = None, url: Url = None, as_json: Json = False) -> None:
    """Show your task credential."""
    from taskcred.cli.client import connect

    with connect(url) as server:
        found = _find(server, credential)
    if as_json:
        output.data(found)
        return
    _describe(found)


@app.command()
def create(
    name: Annotated[str, typer.Option("--name", help="Your own name for it.")] = DEFAULT_NAME,
    description: Annotated[str, typer.Option("--description", help="What it is for.")] = "",
    generate: Generate = False,
    api_key_stdin: ApiKeyStdin = False,
    show_once: ShowOnce = False,
    expires_at: ExpiresAt = None,
    never_expires: NeverExpires = False,
    url: Url = None,
    as_json: Json = False,
) -> None:
    """Create your task credential; parked runs of yours go on at once."""
    from taskcred.cli.client import connect

    body = {"name": name, "description": description, "type": "iam_api_key"}
    with connect(url) as server:
        body |= source.body(
            generate=generate,
            api_key_stdin=api_key_stdin,
            show_once=show_once,
            expires_at=expires_at,
            never_expires=never_expires,
        )
        made = server.post(PATH, body)
    _say(made, f"Created the task credential {made['name']!r}.", as_json=as_json)


@app.command()
def edit(
    credential: _ID = None,
    name: Annotated[str | None, typer.Option("--name", help="A new name.")] = None,
    description: Annotated[str | None, typer.Option("--description", help="A new description.")] = None,
    url: Url = None,
    as_json: Json = False,
) -> None:
    """Change the name or the description; the key stays as it is."""
    from taskcred.cli.client import connect

    changes = {k: v for k, v in (("name", name), ("description", description)) if v is not None}
    with connect(url) as server:
        found = _find(server, credential)
        made, etag = server.get_changed(f"{PATH}/{found['id']}", "")
        made = server.patch(f"{PATH}/{found['id']}", changes, etag)
    _say(made, f"Changed the task credential {made['name']!r}.", as_json=as_json)


@app.command()
def rotate(
    credential: _ID = None,
    generate: Generate = False,
    api_key_stdin: ApiKeyStdin = False,
    show_once: ShowOnce = False,
    expires_at: ExpiresAt = None,
    never_expires: NeverExpires = False,
    drain: Annotated[
        str,
        typer.Option(
            "--drain",
            metavar="tokens|now|TIME",
            help="When the old key ends: after running jobs (tokens), at once (now), or at a time (RFC 3339).",
        ),
    ] = "tokens",
    leaked: Annotated[
        bool,
        typer.Option("--leaked", help="It leaked: end the old key at the provider first, then replace it."),
    ] = False,
    url: Url = None,
    as_json: Json = False,
) -> None:
    """Replace the key. By default no running job notices."""
    from taskcred.cli.client import connect

    with connect(url) as server:
        found = _find(server, credential)
        body = source.body(
            generate=generate,
            api_key_stdin=api_key_stdin,
            show_once=show_once,
            expires_at=expires_at,
            never_expires=never_expires,
        )
        body |= {"drain": drain} | ({"leaked": True} if leaked else {})
        made = server.post(f"{PATH}/{found['id']}/rotate", body)
    _say(made, "The new key is active.", as_json=as_json)


@app.command()
def impact(credential: _ID = None, url: Url = None, as_json: Json = False) -> None:
    """Show what deleting the task credential would break."""
    from taskcred.cli.client import connect

    with connect(url) as server:
        found = _find(server, credential)
        broken = server.get(f"{PATH}/{found['id']}/impact")
    if as_json:
        output.data(broken)
        return
    output.line(_impact_words(broken))


@app.command()
def delete(credential: _ID = None, yes: Yes = False, url: Url = None, as_json: Json = False) -> None:
    """Delete the task credential. It ends at once; what it would break is shown first."""
    from taskcred.cli.client import connect

    with connect(url) as server:
        found = _find(server, credential)
        if not yes:
            output.note(_impact_words(server.get(f"{PATH}/{found['id']}/impact")))
            typed = typer.prompt(f"Type the name {found['name']!r} to delete it", err=True)
            if typed != found["name"]:
                raise ConflictError(
                    "That is not its name; nothing was deleted.", hint="Try again, or add --yes."
                )
        server.delete(f"{PATH}/{found['id']}")
    if as_json:
        output.data({"id": found["id"], "deleted": True})
        return
    output.line(f"Deleted the task credential {found['name']!r}.")


@app.command()
def end(
    key_id: Annotated[
        str, typer.Argument(metavar="KEY-ID", help="A phased-out key, from `taskcred key list`.")
    ],
    url: Url = None,
    as_json: Json = False,
) -> None:
    """End a phased-out key now instead of when its jobs have moved on."""
    from taskcred.cli.client import connect

    with connect(url) as server:
        found = _find(server, None)
        server.delete(f"{PATH}/{found['id']}/keys/{key_id}")
    if as_json:
        output.data({"id": key_id, "ended": True})
        return
    output.line("The key has ended.")


def _find(server: Client, credential: str | None) -> dict[str, Any]:
    """The credential named, else the only one. Raises NotFoundError."""
    if credential is not None:
        found: dict[str, Any] = server.get(f"{PATH}/{credential}")
        return found
    for only in server.get(PATH)["credentials"]:
        return dict(only)
    raise NotFoundError(
        "You have no task credential here.", hint="`taskcred key create --generate` makes one."
    )


def _row(credential: Mapping[str, Any], key: Mapping[str, Any]) -> list[str]:
    state = _STATES.get(key["state"], key["state"])
    if key["state"] == "active" and credential["state"] != "usable":
        state = f"{state} ({credential['state']})"
    return [
        credential["name"],
        state,
        f"…{key['last_four']}" if key["last_four"] else "",
        key["origin"],
        output.ago(key["created_at"]),
        output.ago(key["last_used_at"], never="Never used"),
        output.ago(key["expires_at"], never="Never"),
        key["id"],
    ]


def _describe(credential: Mapping[str, Any]) -> None:
    output.facts(
        [
            ("Name", credential["name"]),
            ("Description", credential.get("description")),
            ("State", credential["state"]),
            ("Why", credential.get("state_reason")),
            ("Created", output.when(credential.get("created_at"))),
            ("Id", credential["id"]),
        ]
    )


def _say(answer: Mapping[str, Any], sentence: str, *, as_json: bool) -> None:
    """The outcome. A generated key is in the answer only where its owner asked to see it."""
    if as_json:
        output.data(answer)
        return
    stage = answer.get("stage", "done")
    output.line(
        sentence if stage == "done" else f"Under way ({stage}); `taskcred key show` tells when it is done."
    )
    if answer.get("api_key"):
        output.note("This key is shown this once. Keep it somewhere safe.")
        output.line(answer["api_key"])


def _impact_words(broken: Mapping[str, Any]) -> str:
    lines = []
    for what, items in (("schedule", broken["schedules"]), ("running job", broken["live_runs"])):
        lines += [f"  {what} {item['name']!r}, {output.when(item['at'])}" for item in items]
    if broken["waiting_runs"]:
        lines.append(f"  waiting runs: {broken['waiting_runs']}")
    lines = ["Deleting it would break:", *lines] if lines else ["Nothing would break."]
    if broken["live_tokens_until"]:  # deleting the key does not end them, so they break nothing
        lines.append(f"The last access token handed out ends {output.when(broken['live_tokens_until'])}.")
    used = output.when(broken["last_used_at"], never="never used")
    return "\n".join([*lines, f"Last used: {used}."])
