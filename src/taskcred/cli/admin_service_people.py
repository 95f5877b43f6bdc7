"""`admin service`: who may be a service without its secret, and who looks after it."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from taskcred.cli import local, service_files
from taskcred.cli.admin_services import Service
from taskcred.cli.options import ConfigFile, DataDir, Json
from taskcred.cli.service_output import say
from taskcred.errors import ConfigurationError, InvalidRequestError

if TYPE_CHECKING:
    from taskcred.config import Settings

_Email = Annotated[
    str | None,
    typer.Option("--email", help="A user of the local IAM, by e-mail address; looked up this once."),
]
_IamId = Annotated[str | None, typer.Option("--iam-id", help="Someone of any identity provider, by iam_id.")]


def trust(
    service: Service,
    issuer: Annotated[
        str, typer.Option("--issuer", metavar="URL", help="Who makes the tokens: their claim iss, exactly.")
    ],
    subject: Annotated[
        str,
        typer.Option(
            "--subject", help="Whose they are: their claim sub, exactly, like system:serviceaccount:ns:name."
        ),
    ],
    audience: Annotated[
        str | None,
        typer.Option("--audience", help="For whom they are: their claim aud; default: the server's URL."),
    ] = None,
    jwks_url: Annotated[
        str,
        typer.Option("--jwks-url", metavar="URL", help="Where the issuer's keys are; default: discovery."),
    ] = "",
    ca_file: Annotated[
        Path | None,
        typer.Option(
            "--issuer-ca-file",
            metavar="FILE",
            help="Certificates that vouch for the issuer's host; default: the system's.",
        ),
    ] = None,
    data_dir: DataDir = None,
    config: ConfigFile = None,
    as_json: Json = False,
) -> None:
    """Let workloads with tokens of another issuer be the service, without its secret."""
    from taskcred.services import federation, registry
    from taskcred.store import audit

    settings = local.settings(config, data_dir)
    audience = audience or service_files.server_url(settings)
    if not audience:
        raise ConfigurationError(
            "Tokens are for the server's URL, and no server runs on this data directory.",
            hint="Start `taskcred serve`, set server.public_url, or name another with --audience.",
        )
    new = federation.NewTrust(issuer, subject, audience, jwks_url, str(ca_file.absolute()) if ca_file else "")
    with local.records(settings) as ctx:
        found = federation.add_trust(ctx, audit.OPERATOR, registry.find_by_name(ctx, service), new)
    say(found, "Trusted from now on.", as_json=as_json)


def end_trust(
    service: Service,
    trust_id: Annotated[str, typer.Argument(metavar="TRUST-ID", help="The trust, by its id.")],
    data_dir: DataDir = None,
    config: ConfigFile = None,
    as_json: Json = False,
) -> None:
    """Trust workloads no more, from their next request on."""
    from taskcred.services import federation, registry
    from taskcred.store import audit

    with local.records(local.settings(config, data_dir)) as ctx:
        service_id = registry.find_by_name(ctx, service)
        found = federation.end_trust(ctx, audit.OPERATOR, service_id, trust_id)
    say(found, "Refused from now on.", as_json=as_json)


def add_administrator(
    service: Service,
    email: _Email = None,
    iam_id: _IamId = None,
    data_dir: DataDir = None,
    config: ConfigFile = None,
    as_json: Json = False,
) -> None:
    """Let someone look after a service, on its pages and by API."""
    from taskcred.services import registry
    from taskcred.store import audit

    settings = local.settings(config, data_dir)
    who, address = _person(settings, email, iam_id)
    with local.records(settings) as ctx:
        service_id = registry.find_by_name(ctx, service)
        found = registry.add_administrator(ctx, audit.OPERATOR, service_id, who, address)
    say(found, f"{address or who} looks after it from now on.", as_json=as_json)


def remove_administrator(
    service: Service,
    email: _Email = None,
    iam_id: _IamId = None,
    data_dir: DataDir = None,
    config: ConfigFile = None,
    as_json: Json = False,
) -> None:
    """Let someone look after a service no more."""
    from taskcred.services import registry
    from taskcred.store import audit

    settings = local.settings(config, data_dir)
    who, address = _person(settings, email, iam_id)
    with local.records(settings) as ctx:
        service_id = registry.find_by_name(ctx, service)
        found = registry.remove_administrator(ctx, audit.OPERATOR, service_id, who)
    say(found, f"{address or who} does not look after it any more.", as_json=as_json)


def add_to(app: typer.Typer) -> None:
    """Add the commands to the group of those about services."""
    for command in (trust, end_trust, add_administrator, remove_administrator):
        app.command()(command)


def _person(settings: Settings, email: str | None, iam_id: str | None) -> tuple[str, str]:
    """(iam_id, address). An address is looked up now and never again: it may become somebody else's."""
    if (email is None) == (iam_id is None):
        raise InvalidRequestError("Who is meant?", hint="Name them by --email or by --iam-id, not both.")
    if iam_id is not None:
        return iam_id, ""
    from taskcred.data_dir import DataDir as Files
    from taskcred.iam import accounts
    from taskcred.iam.database import Database

    database = Files(settings.data_dir).iam
    if not database.exists():
        raise ConfigurationError(
            f"There is no local IAM in {settings.data_dir}.", hint="Name the person by --iam-id."
        )
    with closing(Database(database)) as iam, iam.read() as connection:
        user = accounts.get_user(connection, str(email))
        return user.iam_id, user.email
