"""`iam`: accounts, users and service ids of the local IAM, by its operator. Works before the first start
and while the server runs."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from taskcred.cli import local, output
from taskcred.cli.options import ConfigFile, DataDir, Json
from taskcred.cli.where import running_here
from taskcred.domain.secret import Secret
from taskcred.errors import ConfigurationError, InvalidRequestError

if TYPE_CHECKING:
    from taskcred.config import Settings
    from taskcred.iam.acting import Permitted
    from taskcred.iam.operator import Made, Operator

app = typer.Typer(help="The local IAM, by its operator: accounts, users, members, service ids.")

_Account = Annotated[str, typer.Option("--account", help="The account's id or name.")]
_Who = Annotated[str, typer.Option("--email", "--user", help="The user's e-mail address or iam_id.")]
_ServiceId = Annotated[
    str, typer.Option("--service-id", help="The service id, by its iam_id, its id or its name.")
]
_Administrator = Annotated[bool, typer.Option("--administrator", help="Let them administer the account.")]
_WithApiKey = Annotated[
    bool, typer.Option("--with-api-key", help="Make an API key too, and print it this once.")
]
_PasswordStdin = Annotated[
    bool, typer.Option("--password-stdin", help="Read the password from standard input, one line.")
]


@app.command()
def create_account(
    name: Annotated[str, typer.Option("--name", help="The account's name.")],
    data_dir: DataDir = None,
    config: ConfigFile = None,
    as_json: Json = False,
) -> None:
    """Create an account."""
    with _operator(local.settings(config, data_dir)) as operator:
        account = operator.create_account(name)
    if as_json:
        output.data({"account_id": account.id, "name": account.name})
        return
    output.facts([("account_id", account.id), ("name", account.name)])


@app.command()
def create_user(
    account: _Account,
    email: Annotated[str, typer.Option("--email", help="The user's e-mail address: their sign-in name.")],
    name: Annotated[str, typer.Option("--name", help="The user's name; default: from the address.")] = "",
    password_stdin: _PasswordStdin = False,
    administrator: _Administrator = False,
    with_api_key: _WithApiKey = False,
    data_dir: DataDir = None,
    config: ConfigFile = None,
    as_json: Json = False,
) -> None:
    """Create a user in an account. An account of that name is created where there is none."""
    password = _password() if password_stdin else None
    settings = local.settings(config, data_dir)
    with _operator(settings) as operator:
        is_new_account = not _has_account(settings, account)
        made = operator.create_user(
            account=account,
            email=email,
            name=name,
            password=password,
            administrator=administrator,
            with_api_key=with_api_key,
        )
    if is_new_account:
        output.note(f"There was no account {account!r}: it was created, and {email} administers it.")
    if password is None:
        output.note(f"No password yet: `taskcred iam sign-in-link --email {email}` lets them choose one.")
    _say(made, as_json=as_json)


@app.command()
def add_member(
    account: _Account,
    user: _Who,
    administrator: _Administrator = False,
    data_dir: DataDir = None,
    config: ConfigFile = None,
    as_json: Json = False,
) -> None:
    """Make a user a member of another account, or change whether they administer it."""
    with _operator(local.settings(config, data_dir)) as operator:
        made = operator.add_member(account=account, user=user, administrator=administrator)
    _say(made, as_json=as_json)


@app.command()
def create_service_id(
    account: _Account,
    name: Annotated[str, typer.Option("--name", help="The service id's name.")],
    description: Annotated[str, typer.Option("--description", help="What it is for.")] = "",
    with_api_key: _WithApiKey = False,
    data_dir: DataDir = None,
    config: ConfigFile = None,
    as_json: Json = False,
) -> None:
    """Create a service id in an account."""
    with _operator(local.settings(config, data_dir)) as operator:
        made = operator.create_service_id(
            account=account, name=name, description=description, with_api_key=with_api_key
        )
    _say(made, as_json=as_json)


@app.command()
def allow_act(
    service_id: _ServiceId,
    user: _Who,
    data_dir: DataDir = None,
    config: ConfigFile = None,
    as_json: Json = False,
) -> None:
    """Let a user act for a service id: keep its task credential, start and schedule its work."""
    with _operator(local.settings(config, data_dir)) as operator:
        given = operator.allow_act(service_id=service_id, user=user)
    if as_json:
        output.data(_permitted(given))
        return
    output.line(f"{given.email} may act for {given.service_id.name} ({given.service_id.iam_id}).")


@app.command()
def disallow_act(
    service_id: _ServiceId,
    user: _Who,
    data_dir: DataDir = None,
    config: ConfigFile = None,
    as_json: Json = False,
) -> None:
    """Take that away. Their next request for the service id is refused; its schedules and runs go on."""
    with _operator(local.settings(config, data_dir)) as operator:
        was_allowed = operator.disallow_act(service_id=service_id, user=user)
    if as_json:
        output.data({"service_id": service_id, "user": user, "was_allowed": was_allowed})
        return
    ended = f"{user} may not act for {service_id} any more."
    output.line(ended if was_allowed else f"{user} was not allowed to act for {service_id}.")


@app.command()
def list_act(
    service_id: Annotated[
        str | None, typer.Option("--service-id", help="Only this one, by iam_id, id or name.")
    ] = None,
    data_dir: DataDir = None,
    config: ConfigFile = None,
    as_json: Json = False,
) -> None:
    """List who may act for which service id."""
    with _operator(local.settings(config, data_dir)) as operator:
        found = operator.list_act(service_id=service_id)
    if as_json:
        output.data([_permitted(each) for each in found])
        return
    output.table(
        ["SERVICE ID", "IAM ID", "USER", "SINCE"],
        [
            [each.service_id.name, each.service_id.iam_id, each.email, output.distance(each.given_at)]
            for each in found
        ],
        empty="Nobody may act for a service id.",
    )


@app.command()
def set_password(
    user: _Who,
    password_stdin: _PasswordStdin = False,
    data_dir: DataDir = None,
    config: ConfigFile = None,
    as_json: Json = False,
) -> None:
    """Replace a user's password. Their sign-ins end."""
    if not password_stdin:
        raise InvalidRequestError("No password was given.", hint="Pipe it in with --password-stdin.")
    with _operator(local.settings(config, data_dir)) as operator:
        operator.set_password(user=user, password=_password())
    if as_json:
        output.data({"user": user, "password_set": True})
        return
    output.line(
        "The password is set; earlier sign-ins end with the access tokens they hold, within an hour by default."
    )


@app.command()
def sign_in_link(
    user: _Who, data_dir: DataDir = None, config: ConfigFile = None, as_json: Json = False
) -> None:
    """Print a link by which a user signs in once and chooses a password. Good for a week; whoever has it
    can use it."""
    settings = local.settings(config, data_dir)
    public_url = _public_url(settings)
    with _operator(settings) as operator:
        # The operator asked for it, to hand it to the user.
        link = operator.sign_in_link(user=user, public_url=public_url).reveal()
    if as_json:
        output.data({"user": user, "link": link})
        return
    output.line(link)


@contextmanager
def _operator(settings: Settings) -> Iterator[Operator]:
    from taskcred.clock import SystemClock
    from taskcred.data_dir import DataDir as Files
    from taskcred.iam.operator import Operator

    files = Files(settings.data_dir)
    files.make()
    with Operator(files.iam, SystemClock()) as operator:
        yield operator


def _has_account(settings: Settings, account: str) -> bool:
    """Whether there is an account of this id or name; to be asked once the database is migrated."""
    from taskcred.data_dir import DataDir as Files
    from taskcred.iam import accounts
    from taskcred.iam.database import Database

    with closing(Database(Files(settings.data_dir).iam)) as database, database.read() as connection:
        return accounts.find_account(connection, account) is not None


def _public_url(settings: Settings) -> str:
    """Where users reach the server: as the one that runs says, else as the settings say."""
    here = running_here(settings.data_dir)
    url = here.url if here else settings.server.public_url.rstrip("/")
    if not url:
        raise ConfigurationError(
            "The link needs the server's URL, and no server runs on this data directory.",
            hint="Start `taskcred serve`, or set server.public_url.",
        )
    return url


def _permitted(given: Permitted) -> dict[str, Any]:
    return {
        "service_id": given.service_id.id,
        "service_iam_id": given.service_id.iam_id,
        "service_name": given.service_id.name,
        "account_id": given.service_id.account_id,
        "iam_id": given.iam_id,
        "email": given.email,
        "given_at": given.given_at,
        "given_by": given.given_by,
    }


def _password() -> Secret:
    return Secret(sys.stdin.readline().rstrip("\r\n"))


def _say(made: Made, *, as_json: bool) -> None:
    # A key is printed only where one was asked for, and this once.
    key = {"api_key": made.api_key.reveal()} if made.api_key else {}
    values = {"iam_id": made.iam_id, "account_id": made.account_id, **key}
    if as_json:
        output.data(values)
        return
    output.facts(values.items())
    if key:
        output.note("The API key cannot be shown again.")
