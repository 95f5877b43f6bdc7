"""Accounts, the users in them, and who administers which: queries over a connection of iam.db."""

from __future__ import annotations

import re
import secrets
import string
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import sqlalchemy as sa

from taskcred.errors import ConflictError, InvalidRequestError, NotFoundError
from taskcred.iam import tables
from taskcred.iam.fields import DESCRIPTION_LENGTH, NAME_LENGTH, is_plain

# Addresses in ASCII only: they become claims, and clients read claims with decoders that differ beyond it.
_EMAIL: Final = re.compile(r"[!-?A-~]{1,64}@[a-z0-9]([a-z0-9.-]{0,250}[a-z0-9])?", re.ASCII | re.IGNORECASE)
_ACCOUNT_ID: Final = re.compile(r"[0-9a-f]{32}")
_IAM_ID_ALPHABET: Final = string.ascii_uppercase + string.digits


@dataclass(frozen=True, slots=True)
class Account:
    """An account, as its members see it."""

    id: str
    name: str


@dataclass(frozen=True, slots=True)
class User:
    """A person. `password_hash` is argon2id's, None until a password was set."""

    iam_id: str
    email: str
    name: str
    password_hash: str | None


def new_account_id() -> str:
    """32 hex digits, as IBM's are."""
    return secrets.token_hex(16)


def new_user_iam_id() -> str:
    """`IBMid-` and ten characters: the realm that IBM's clients take for a person."""
    return "IBMid-" + "".join(secrets.choice(_IAM_ID_ALPHABET) for _ in range(10))


def normal_email(raw: str) -> str:
    """The form an address is stored and looked up in. Raises InvalidRequestError where it is none."""
    email = raw.strip().lower()
    if len(email) > 254 or not _EMAIL.fullmatch(email):
        raise InvalidRequestError(
            "That is not an e-mail address we can use.", hint="Write it like name@example.com.", field="email"
        )
    return email


def plain_name(raw: str, field: str) -> str:
    """A name for people or accounts, trimmed. Raises InvalidRequestError."""
    name = raw.strip()
    if not 1 <= len(name) <= NAME_LENGTH or not is_plain(name):
        raise InvalidRequestError(
            f"The {field} is empty, too long, or holds control characters.",
            hint=f"Use 1 to {NAME_LENGTH} characters.",
            field=field,
        )
    return name


def plain_text(raw: str) -> str:
    """A description. Raises InvalidRequestError."""
    if len(raw) > DESCRIPTION_LENGTH or not is_plain(raw, lines=True):
        raise InvalidRequestError(
            "The description is too long, or holds control characters.",
            hint=f"Use at most {DESCRIPTION_LENGTH} characters.",
            field="description",
        )
    return raw


def add_account(connection: sa.Connection, name: str, now: datetime) -> Account:
    """Create an account. A name that has the form of an account id becomes its id, so that an account of
    another provider can be mirrored. Raises ConflictError where the name is taken."""
    taken = find_account(connection, name)
    if taken:
        raise ConflictError(
            "There is an account of that name.",
            hint="Choose another name, or use this account.",
            code="account_exists",
            existing_id=taken.id,
        )
    account = Account(name if _ACCOUNT_ID.fullmatch(name) else new_account_id(), name)
    connection.execute(sa.insert(tables.accounts).values(id=account.id, name=account.name, created_at=now))
    return account


def find_account(connection: sa.Connection, id_or_name: str) -> Account | None:
    """The account with this id, else the one with this name."""
    if not is_plain(id_or_name):
        return None
    t = tables.accounts
    rows = connection.execute(
        sa.select(t.c.id, t.c.name).where(sa.or_(t.c.id == id_or_name, t.c.name == id_or_name))
    ).all()
    found = next((row for row in rows if row.id == id_or_name), rows[0] if rows else None)
    return Account(found.id, found.name) if found else None


def get_account(connection: sa.Connection, id_or_name: str) -> Account:
    """As `find_account`; raises NotFoundError."""
    account = find_account(connection, id_or_name)
    if account is None:
        raise NotFoundError(
            "There is no such account.",
            hint="Name an account by its id or its name.",
            code="account_not_found",
        )
    return account


def add_user(connection: sa.Connection, *, email: str, name: str, now: datetime) -> User:
    """Create a user without a password. Raises ConflictError where the address is taken."""
    taken = find_user(connection, email)
    if taken:
        raise ConflictError(
            "There is a user with that e-mail address.",
            hint="Add this user to the account: `taskcred iam add-member`.",
            code="user_exists",
            existing_id=taken.iam_id,
        )
    user = User(new_user_iam_id(), email, name, None)
    connection.execute(
        sa.insert(tables.users).values(iam_id=user.iam_id, email=email, name=name, created_at=now)
    )
    return user


def find_user(connection: sa.Connection, email: str) -> User | None:
    """The user with this address, in its normal form."""
    return _user(connection, tables.users.c.email == email)


def user_of(connection: sa.Connection, iam_id: str) -> User | None:
    """The user with this iam_id."""
    return _user(connection, tables.users.c.iam_id == iam_id)


def get_user(connection: sa.Connection, email_or_iam_id: str) -> User:
    """The user with this address or iam_id; raises NotFoundError."""
    given = email_or_iam_id.strip()
    user = (user_of(connection, given) or find_user(connection, given.lower())) if is_plain(given) else None
    if user is None:
        raise NotFoundError(
            "There is no such user.", hint="Name a user by e-mail address or iam_id.", code="user_not_found"
        )
    return user


def set_password_hash(connection: sa.Connection, iam_id: str, password_hash: str) -> None:
    """Replace a user's password, by its hash."""
    t = tables.users
    connection.execute(sa.update(t).where(t.c.iam_id == iam_id).values(password_hash=password_hash))


def put_member(
    connection: sa.Connection, *, account_id: str, iam_id: str, administrator: bool, now: datetime
) -> None:
    """Make a user a member of an account, or change whether that member administers it."""
    t = tables.memberships
    here = sa.and_(t.c.account_id == account_id, t.c.iam_id == iam_id)
    changed = connection.execute(sa.update(t).where(here).values(administrator=administrator))
    if changed.rowcount == 0:
        connection.execute(
            sa.insert(t).values(
                account_id=account_id, iam_id=iam_id, administrator=administrator, created_at=now
            )
        )


def accounts_of(connection: sa.Connection, iam_id: str) -> list[Account]:
    """The accounts a user is a member of, the longest-held membership first."""
    a, m = tables.accounts, tables.memberships
    rows = connection.execute(
        sa.select(a.c.id, a.c.name)
        .join(m, m.c.account_id == a.c.id)
        .where(m.c.iam_id == iam_id)
        .order_by(m.c.created_at, a.c.id)
    )
    return [Account(row.id, row.name) for row in rows]


def account_of_service_id(connection: sa.Connection, iam_id: str) -> list[Account]:
    """The one account of a service id, as a list; empty where there is no such service id."""
    a, s = tables.accounts, tables.service_ids
    rows = connection.execute(
        sa.select(a.c.id, a.c.name).join(s, s.c.account_id == a.c.id).where(s.c.iam_id == iam_id)
    )
    return [Account(row.id, row.name) for row in rows]


def is_administrator(connection: sa.Connection, account_id: str, iam_id: str) -> bool | None:
    """Whether this user administers the account; None where they are no member."""
    m = tables.memberships
    found: bool | None = connection.execute(
        sa.select(m.c.administrator).where(m.c.account_id == account_id, m.c.iam_id == iam_id)
    ).scalar()
    return found


def _user(connection: sa.Connection, where: sa.ColumnElement[bool]) -> User | None:
    u = tables.users
    row = connection.execute(
        sa.select(u.c.iam_id, u.c.email, u.c.name, u.c.password_hash).where(where)
    ).first()
    return User(*row) if row else None
