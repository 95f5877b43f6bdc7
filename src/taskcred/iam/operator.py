"""What the operator of the machine does to the local IAM, from the command line.

Needs nothing but iam.db: it works before the server's first start and while it is serving. The operator
is trusted by having access to the file; what was done is remembered like everything else.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import sqlalchemy as sa

from taskcred.clock import SystemClock
from taskcred.domain.secret import Secret
from taskcred.iam import accounts, acting, apikeys, links, serviceids
from taskcred.iam.database import Database, remember
from taskcred.iam.passwords import Passwords
from taskcred.ports import Clock

_OPERATOR: Final = "operator"
_FIRST_ACCOUNT: Final = "Main"
_FIRST_EMAIL: Final = "administrator@localhost"


@dataclass(frozen=True, slots=True)
class Made:
    """A new identity in its account; `api_key` where one was asked for, shown this once."""

    iam_id: str
    account_id: str
    api_key: Secret | None


class Operator:
    """Changes to accounts, users and service ids. To be used in a `with` block, which closes the file."""

    def __init__(self, database: Path, clock: Clock) -> None:
        self._clock: Final = clock
        self._database: Final = Database(database)
        self._database.migrate()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._database.close()

    def create_account(self, name: str) -> accounts.Account:
        """A new account. Raises ConflictError where the name is taken."""
        with self._database.write() as connection:
            return accounts.add_account(connection, accounts.plain_name(name, "account"), self._clock.now())

    def create_user(
        self,
        *,
        account: str,
        email: str,
        name: str = "",
        password: Secret | None = None,
        administrator: bool = False,
        with_api_key: bool = False,
    ) -> Made:
        """A new user, a member of `account` (its id or name). An account that is not there is created,
        and its first member administers it. Raises ConflictError where the address is taken."""
        email = accounts.normal_email(email)
        password_hash = Passwords().hash(password) if password is not None else None
        now = self._clock.now()
        with self._database.write() as connection:
            here = accounts.find_account(connection, account)
            if here is None:
                here = accounts.add_account(connection, accounts.plain_name(account, "account"), now)
                administrator = True
            user = accounts.add_user(
                connection,
                email=email,
                name=accounts.plain_name(name or email.partition("@")[0], "name"),
                now=now,
            )
            if password_hash:
                accounts.set_password_hash(connection, user.iam_id, password_hash)
            self._put_member(connection, here.id, user.iam_id, administrator)
            remember(
                connection,
                at=now,
                action="user:create",
                target=user.iam_id,
                iam_id=_OPERATOR,
                account_id=here.id,
            )
            api_key = self._new_key(connection, here.id, user.iam_id) if with_api_key else None
        return Made(user.iam_id, here.id, api_key)

    def add_member(self, *, account: str, user: str, administrator: bool = False) -> Made:
        """Make a user (address or iam_id) a member of an account, or change whether they administer it."""
        with self._database.write() as connection:
            here = accounts.get_account(connection, account)
            member = accounts.get_user(connection, user)
            self._put_member(connection, here.id, member.iam_id, administrator)
        return Made(member.iam_id, here.id, None)

    def create_service_id(
        self, *, account: str, name: str, description: str = "", with_api_key: bool = False
    ) -> Made:
        """A new service id in an account."""
        new = serviceids.NewServiceId(accounts.plain_name(name, "name"), accounts.plain_text(description))
        with self._database.write() as connection:
            here = accounts.get_account(connection, account)
            row = serviceids.add(
                connection,
                new,
                account_id=here.id,
                by=_OPERATOR,
                now=self._clock.now(),
            )
            api_key = self._new_key(connection, here.id, row.iam_id) if with_api_key else None
        return Made(row.iam_id, here.id, api_key)

    def allow_act(self, *, service_id: str, user: str) -> acting.Permitted:
        """Let a user act for a service id (by id, iam_id or name). Raises NotFoundError, and ConflictError
        where they are no member of its account."""
        with self._database.write() as connection:
            which = serviceids.named(connection, service_id)
            person = accounts.get_user(connection, user)
            acting.allow(connection, which, person, by=_OPERATOR, now=self._clock.now())
            all_of_it = acting.permitted(connection, which)
        return next(each for each in all_of_it if each.iam_id == person.iam_id)

    def disallow_act(self, *, service_id: str, user: str) -> bool:
        """Take that away; it acts at the next request. Whether there was such a permission."""
        with self._database.write() as connection:
            which = serviceids.named(connection, service_id)
            person = accounts.get_user(connection, user)
            return acting.disallow(connection, which, person, by=_OPERATOR, now=self._clock.now())

    def list_act(self, *, service_id: str | None = None) -> list[acting.Permitted]:
        """Who may act for which service id."""
        with self._database.read() as connection:
            which = serviceids.named(connection, service_id) if service_id else None
            return acting.permitted(connection, which)

    def set_password(self, *, user: str, password: Secret) -> None:
        """Replace a user's password; their sign-ins end."""
        password_hash = Passwords().hash(password)
        with self._database.write() as connection:
            found = accounts.get_user(connection, user)
            links.set_password(connection, found.iam_id, password_hash, by=_OPERATOR, now=self._clock.now())

    def sign_in_link(self, *, user: str, public_url: str) -> Secret:
        """A one-time link by which this user signs in and chooses a password. It replaces the link
        before it."""
        with self._database.write() as connection:
            found = accounts.get_user(connection, user)
            return links.new_link(connection, public_url, found.iam_id, self._clock.now())

    def has_user(self, email: str) -> bool:
        """Whether there is a user with this address."""
        with self._database.read() as connection:
            return accounts.find_user(connection, email) is not None

    def _put_member(
        self, connection: sa.Connection, account_id: str, iam_id: str, administrator: bool
    ) -> None:
        now = self._clock.now()
        accounts.put_member(
            connection, account_id=account_id, iam_id=iam_id, administrator=administrator, now=now
        )
        remember(
            connection,
            at=now,
            action="account:put_member",
            target=iam_id,
            iam_id=_OPERATOR,
            account_id=account_id,
            params={"administrator": administrator},
        )

    def _new_key(self, connection: sa.Connection, account_id: str, iam_id: str) -> Secret:
        value = apikeys.draw_value()
        apikeys.add(
            connection,
            apikeys.new_key_id(),
            apikeys.NewKey("Created with the identity"),
            value=value,
            account_id=account_id,
            iam_id=iam_id,
            by=_OPERATOR,
            now=self._clock.now(),
        )
        return value


def invite_first_administrator(database: Path, public_url: str) -> Secret | None:
    """At the first start: an account, its administrator, and a one-time link for them. None where they
    were invited before."""
    with Operator(database, SystemClock()) as operator:
        if operator.has_user(_FIRST_EMAIL):
            return None
        operator.create_user(account=_FIRST_ACCOUNT, email=_FIRST_EMAIL, name="Administrator")
        return operator.sign_in_link(user=_FIRST_EMAIL, public_url=public_url)
