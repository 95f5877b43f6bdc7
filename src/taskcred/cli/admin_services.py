"""`admin service`: registering services and looking after them, by the operator, on the server's machine.

A service's secret is printed once, or written to a file that `taskcred.client` reads; the records have its
digest only.
"""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from taskcred.cli import local, output, service_files
from taskcred.cli.options import ConfigFile, DataDir, Json, Yes
from taskcred.cli.service_output import plain, say, show_secrets
from taskcred.domain.services import EXECUTORS, STARTS_PER_MINUTE
from taskcred.errors import InvalidRequestError

if TYPE_CHECKING:
    from taskcred.services.service_secrets import NewSecret

app = typer.Typer(help="Services: platforms that start runs on owners' behalf.")

Service = Annotated[str, typer.Argument(metavar="SERVICE", help="The service, by its name or client id.")]
_Tasks = Annotated[
    str | None,
    typer.Option("--tasks", metavar="NAMES", help="The tasks it may start, separated by commas."),
]
_Executors = Annotated[
    str | None,
    typer.Option(
        "--executors",
        metavar="NAMES",
        help="Who may carry out its runs: service (its own engine), worker (ours), or both.",
    ),
]
_Starts = Annotated[
    int | None,
    typer.Option("--starts-per-minute", metavar="N", help="The most runs it may start in a minute."),
]
_Title = Annotated[str | None, typer.Option("--title", help="Its name as owners read it.")]
_Description = Annotated[str | None, typer.Option("--description", help="What it does, for owners.")]
_Callbacks = Annotated[
    list[str] | None,
    typer.Option("--callback-url", metavar="URL", help="Where browsers may be led back to; repeat for more."),
]
_Webhook = Annotated[
    str | None, typer.Option("--webhook-url", metavar="URL", help="Where it is told of events.")
]
_File = Annotated[
    Path | None,
    typer.Option(
        "--file",
        metavar="FILE",
        help="Write url, client id and secret to this file instead of printing the secret.",
    ),
]
_Overlap = Annotated[
    str,
    typer.Option("--overlap", metavar="TIME", help="How long the old secret goes on; 0 ends it at once."),
]


@app.command()
def create(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="The service's name, as lists and the audit trail show it.")
    ],
    tasks: _Tasks = None,
    executors: _Executors = None,
    starts_per_minute: _Starts = None,
    title: _Title = None,
    description: _Description = None,
    callback_url: _Callbacks = None,
    webhook_url: _Webhook = None,
    file: _File = None,
    data_dir: DataDir = None,
    config: ConfigFile = None,
    as_json: Json = False,
) -> None:
    """Register a service, and print its client id and, this once, its secrets."""
    from taskcred.services import registry
    from taskcred.store import audit

    settings = local.settings(config, data_dir)
    url = service_files.server_url(settings)
    if file is not None:
        service_files.verify_new(file, url)
    new = registry.NewService(
        name=name,
        tasks=_names(tasks),
        executors=_executors(executors),
        starts_per_minute=STARTS_PER_MINUTE if starts_per_minute is None else starts_per_minute,
        callback_urls=tuple(callback_url or ()),
        webhook_url=webhook_url or "",
        title=title or "",
        description=description or "",
    )
    with local.records_and_vault(settings) as ctx:
        made = registry.create(ctx, audit.OPERATOR, new)
    # The operator asked for a service, and hands these to whoever runs it; without a webhook there is no use for its.
    shown = {"webhook_secret": made.webhook_secret.reveal()} if webhook_url else {}
    if file is not None:
        service_files.write(file, url, made.service.id, made.secret)
        shown["file"] = str(file)
    else:
        shown["client_secret"] = made.secret.reveal()
    show_secrets(made.service, url, shown, as_json=as_json)


@app.command("list")
def list_(data_dir: DataDir = None, config: ConfigFile = None, as_json: Json = False) -> None:
    """List the services there are."""
    from taskcred.services import registry
    from taskcred.store import audit

    with local.records(local.settings(config, data_dir)) as ctx:
        found = registry.list_own(ctx, audit.OPERATOR)
    if as_json:
        output.data({"services": [plain(service) for service in found]})
        return
    output.table(
        ("Name", "State", "Tasks", "Executors", "Client id"),
        [
            (each.name, each.state, ", ".join(each.tasks), ", ".join(each.executors), each.id)
            for each in found
        ],
        empty="No service is registered. `taskcred admin service create` registers one.",
    )


@app.command()
def show(
    service: Service, data_dir: DataDir = None, config: ConfigFile = None, as_json: Json = False
) -> None:
    """Show a service: what it may, its secrets' ages, whom it trusts, who looks after it."""
    from taskcred.services import registry
    from taskcred.store import audit

    with local.records(local.settings(config, data_dir)) as ctx:
        found, _ = registry.get(ctx, audit.OPERATOR, registry.find_by_name(ctx, service))
    say(found, "", as_json=as_json)


@app.command()
def update(
    service: Service,
    tasks: _Tasks = None,
    executors: _Executors = None,
    starts_per_minute: _Starts = None,
    title: _Title = None,
    description: _Description = None,
    callback_url: _Callbacks = None,
    webhook_url: _Webhook = None,
    data_dir: DataDir = None,
    config: ConfigFile = None,
    as_json: Json = False,
) -> None:
    """Change what is given; lists are replaced as a whole, and an empty value empties. With a first webhook, print
    the secret of it."""
    from taskcred.services import registry, service_secrets
    from taskcred.store import audit

    change = registry.Change(
        tasks=None if tasks is None else _names(tasks),
        executors=None if executors is None else _executors(executors),
        starts_per_minute=starts_per_minute,
        callback_urls=tuple(filter(None, callback_url)) if callback_url else None,
        webhook_url=webhook_url,
        title=title,
        description=description,
    )
    told = ""
    opened = local.records_and_vault if webhook_url else local.records
    with opened(local.settings(config, data_dir)) as ctx:
        service_id = registry.find_by_name(ctx, service)
        if webhook_url and not registry.get(ctx, audit.OPERATOR, service_id)[0].webhook_url:
            # Nobody was told the one that there is. The new one comes before the webhook that is signed with it.
            new = service_secrets.rotate_webhook(ctx, audit.OPERATOR, service_id, overlap=timedelta(0))
            # The operator hands it to whoever runs the service.
            told = new.secret.reveal()
        found = registry.update(ctx, audit.OPERATOR, service_id, change)
    say(found, "Changed.", webhook_secret=told, as_json=as_json)


@app.command()
def rotate_secret(
    service: Service,
    overlap: _Overlap = "24h",
    file: _File = None,
    data_dir: DataDir = None,
    config: ConfigFile = None,
    as_json: Json = False,
) -> None:
    """Make a new secret and print it this once; the old one goes on for a while."""
    from taskcred.services import registry, service_secrets
    from taskcred.store import audit

    settings = local.settings(config, data_dir)
    url = service_files.server_url(settings)
    if file is not None:
        service_files.verify_url(url)
    with local.records(settings) as ctx:
        service_id = registry.find_by_name(ctx, service)
        new = service_secrets.rotate(ctx, audit.OPERATOR, service_id, overlap=_duration(overlap))
    _hand_over(new, url, file, as_json=as_json)


@app.command()
def rotate_webhook_secret(
    service: Service,
    overlap: _Overlap = "24h",
    data_dir: DataDir = None,
    config: ConfigFile = None,
    as_json: Json = False,
) -> None:
    """Make a new secret to sign webhooks with and print it this once; the old one signs too for a while."""
    from taskcred.services import registry, service_secrets
    from taskcred.store import audit

    settings = local.settings(config, data_dir)
    with local.records_and_vault(settings) as ctx:
        service_id = registry.find_by_name(ctx, service)
        new = service_secrets.rotate_webhook(ctx, audit.OPERATOR, service_id, overlap=_duration(overlap))
    # The operator asked for it, and hands it to whoever runs the service.
    shown = {"webhook_secret": new.secret.reveal()}
    show_secrets(new.service, service_files.server_url(settings), shown, as_json=as_json)


@app.command()
def disable(
    service: Service, data_dir: DataDir = None, config: ConfigFile = None, as_json: Json = False
) -> None:
    """Refuse a service from now on, until it is enabled; what its own engine carries out ends."""
    from taskcred.services import registry
    from taskcred.store import audit

    with local.records(local.settings(config, data_dir)) as ctx:
        found = registry.disable(ctx, audit.OPERATOR, registry.find_by_name(ctx, service))
    say(found, "Disabled: it is refused from now on. Its grants wait for it.", as_json=as_json)


@app.command()
def enable(
    service: Service, data_dir: DataDir = None, config: ConfigFile = None, as_json: Json = False
) -> None:
    """Let a disabled service in again."""
    from taskcred.services import registry
    from taskcred.store import audit

    with local.records(local.settings(config, data_dir)) as ctx:
        found = registry.enable(ctx, audit.OPERATOR, registry.find_by_name(ctx, service))
    say(found, "Enabled.", as_json=as_json)


@app.command()
def end(
    service: Service,
    yes: Yes = False,
    data_dir: DataDir = None,
    config: ConfigFile = None,
    as_json: Json = False,
) -> None:
    """End a service for good, with its secrets, trusts and grants. Its name is free again."""
    from taskcred.services import registry
    from taskcred.store import audit

    settings = local.settings(config, data_dir)
    with local.records(settings) as ctx:
        service_id = registry.find_by_name(ctx, service)
        if not yes:
            typer.confirm(
                f"End the service {service!r} for good, with every grant it was given?", abort=True, err=True
            )
        registry.end(ctx, audit.OPERATOR, service_id)
    if as_json:
        output.data({"client_id": service_id, "ended": True})
        return
    output.line(f"The service {service!r} has ended: its secrets, trusts and grants are refused from now on.")


def _names(text: str | None) -> tuple[str, ...]:
    return tuple(filter(None, (name.strip() for name in (text or "").split(","))))


def _executors(text: str | None) -> tuple[Any, ...]:
    names = _names(text)
    if text is not None and (not names or any(name not in list(EXECUTORS) for name in names)):
        raise InvalidRequestError(
            f"{text!r} does not say who carries out runs.",
            hint="Write service, worker, or service,worker.",
            field="executors",
        )
    return tuple(word for word in EXECUTORS if word in names)


def _duration(text: str) -> timedelta:
    from pydantic import TypeAdapter, ValidationError

    from taskcred.config import Duration

    try:
        return TypeAdapter(Duration).validate_python(float(text) if text.isdecimal() else text)
    except (ValidationError, OverflowError):
        raise InvalidRequestError(
            f"{text!r} is not a length of time.", hint="Write it like 24h, 30m or 0.", field="overlap"
        ) from None


def _hand_over(new: NewSecret, url: str, file: Path | None, *, as_json: bool) -> None:
    if file is not None:
        service_files.write(file, url, new.service.id, new.secret)
        show_secrets(new.service, url, {"file": str(file)}, as_json=as_json)
        return
    # The operator asked for it, and hands it to whoever runs the service.
    show_secrets(new.service, url, {"client_secret": new.secret.reveal()}, as_json=as_json)
