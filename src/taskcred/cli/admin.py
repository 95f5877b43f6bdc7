"""`admin`: what an operator does, on the server's machine, to other people's credentials and to workers."""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from taskcred.cli import admin_service_people, admin_services, local, output
from taskcred.cli.options import ConfigFile, DataDir, Json
from taskcred.domain.secret import Secret
from taskcred.errors import ConflictError

if TYPE_CHECKING:
    from taskcred.store.audit import Event

app = typer.Typer(help="For the operator, on the server's machine.")
worker_app = typer.Typer(help="Workers on other machines.")
app.add_typer(worker_app, name="worker", no_args_is_help=True)
app.add_typer(admin_services.app, name="service", no_args_is_help=True)
admin_service_people.add_to(admin_services.app)

_Credential = Annotated[str, typer.Argument(metavar="CREDENTIAL-ID", help="The task credential.")]


@app.command()
def lock(
    credential: _Credential,
    reason: Annotated[str, typer.Option("--reason", help="Why, in words that its owner will read.")],
    data_dir: DataDir = None,
    config: ConfigFile = None,
    as_json: Json = False,
) -> None:
    """Lock a task credential: nobody gets tokens by it until it is unlocked."""
    from taskcred.services import usability
    from taskcred.store import audit

    with local.records(local.settings(config, data_dir)) as ctx:
        usability.lock(ctx, audit.OPERATOR, credential, reason)
    _say(credential, "locked", "Locked: nobody gets tokens by it from now on.", as_json=as_json)


@app.command()
def unlock(
    credential: _Credential, data_dir: DataDir = None, config: ConfigFile = None, as_json: Json = False
) -> None:
    """Unlock a task credential; its owner's parked runs go on."""
    from taskcred.services import usability
    from taskcred.store import audit

    with local.records(local.settings(config, data_dir)) as ctx:
        usability.unlock(ctx, audit.OPERATOR, credential)
    _say(credential, "unlocked", "The lock is lifted; its owner's parked runs go on.", as_json=as_json)


@app.command()
def intents(data_dir: DataDir = None, config: ConfigFile = None, as_json: Json = False) -> None:
    """List changes that are not finished: open ones, and those that were given up."""
    from taskcred.services import intents as service

    with local.records(local.settings(config, data_dir)) as ctx:
        found = service.unfinished(ctx)
    if as_json:
        output.data(
            {
                "intents": [
                    {
                        "id": intent.id,
                        "kind": intent.kind,
                        "state": intent.state,
                        "stage": intent.stage,
                        "account_id": intent.account_id,
                        "iam_id": intent.iam_id,
                        "credential_id": intent.data["credential_id"],
                        "attempts": intent.attempts,
                        "error": intent.error,
                        "created_at": intent.created_at,
                    }
                    for intent in found
                ]
            }
        )
        return
    output.table(
        ("Intent", "Change", "State", "Begun", "Tries", "Credential", "Last error"),
        [
            (
                intent.id,
                intent.kind.replace("_", " "),
                intent.state.replace("_", " "),
                output.distance(intent.created_at),
                intent.attempts,
                intent.data["credential_id"],
                intent.error,
            )
            for intent in found
        ],
        empty="Every change is finished.",
    )


@app.command()
def retry(
    intent: Annotated[str, typer.Argument(metavar="INTENT", help="The change, by its id.")],
    data_dir: DataDir = None,
    config: ConfigFile = None,
    as_json: Json = False,
) -> None:
    """Try a change again that was given up."""
    from taskcred.services import intents as service
    from taskcred.store import audit

    with local.records(local.settings(config, data_dir)) as ctx:
        service.retry(ctx, audit.OPERATOR, intent)
    _say(intent, "opened", "Open again: a running server takes it up at once.", as_json=as_json)


@worker_app.command("create")
def create_worker(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="The worker's name, as runs and the audit trail show it.")
    ],
    file: Annotated[
        Path | None,
        typer.Option(
            "--file",
            metavar="FILE",
            help="Where to write it; default: worker.credential in the data directory.",
        ),
    ] = None,
    data_dir: DataDir = None,
    config: ConfigFile = None,
    as_json: Json = False,
) -> None:
    """Make the credential a worker proves itself with, in a file only you can read."""
    from sqlalchemy.exc import IntegrityError

    from taskcred.clock import SystemClock
    from taskcred.data_dir import DataDir as Files
    from taskcred.data_dir import write_private
    from taskcred.store import audit, workers

    settings = local.settings(config, data_dir)
    target = file or Files(settings.data_dir).worker_credential
    if target.exists():
        raise ConflictError(f"{target} exists.", hint="Name another with --file, or remove it first.")
    secret = Secret(secrets.token_urlsafe(32))
    now = SystemClock().now()
    try:
        with local.records(settings) as ctx, ctx.store.write() as connection:
            worker_id = workers.add(connection, name, secret, now)
            audit.append(connection, _worker_event("worker:create", worker_id, name), now)
    except IntegrityError:  # the database's own: the name is taken
        raise ConflictError(
            f"There is a worker {name!r}.",
            hint="Choose another name, or `taskcred admin worker end` it first.",
        ) from None
    # The worker needs the text, to prove itself to web with it.
    write_private(target, f"{worker_id}:{secret.reveal()}\n")
    if as_json:
        output.data({"id": worker_id, "name": name, "file": target})
        return
    output.line(f"Wrote the credential of the worker {name!r} to {target}.")
    output.note(
        "A worker finds it as worker.credential in its data directory. If that is on another machine, move the "
        "file there, with mode 0600, and keep no copy."
    )


@worker_app.command("end")
def end_worker(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The worker's name.")],
    data_dir: DataDir = None,
    config: ConfigFile = None,
    as_json: Json = False,
) -> None:
    """End a worker's credential: it is refused from now on, and its name is free again."""
    from taskcred.clock import SystemClock
    from taskcred.store import audit, changes, workers

    now = SystemClock().now()
    with local.records(local.settings(config, data_dir)) as ctx, ctx.store.write() as connection:
        worker_id = workers.end(connection, name, now)
        if worker_id is not None:
            ctx.revocations.append("worker", worker_id, "", "")
        changes.append(connection, "worker", name, now)
        audit.append(connection, _worker_event("worker:end", name, name), now)
    if as_json:
        output.data({"name": name, "ended": True})
        return
    output.line(f"The credential of the worker {name!r} is refused from now on.")


def _worker_event(action: str, worker_id: str, name: str) -> Event:
    from taskcred.store import audit

    return audit.Event(action, "success", audit.OPERATOR, "", "", "worker", worker_id, details={"name": name})


def _say(target: str, done: str, sentence: str, *, as_json: bool) -> None:
    if as_json:
        output.data({"id": target, done: True})
        return
    output.line(sentence)
