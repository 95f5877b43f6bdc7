"""One-time sign-in links: how a person without a password gets in, and chooses one."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

import sqlalchemy as sa

from taskcred.domain.secret import Secret
from taskcred.iam import tables
from taskcred.iam.accounts import User, set_password_hash, user_of
from taskcred.iam.database import remember
from taskcred.iam.signins import end_all, new_value

LINK_TTL: Final = timedelta(days=7)
PATH: Final = "/identity/first-sign-in"

_l = tables.sign_in_links


def new_link(connection: sa.Connection, public_url: str, iam_id: str, now: datetime) -> Secret:
    """A link for this person; it replaces the one before it. Whoever holds it can set the password."""
    value = new_value()
    connection.execute(sa.delete(_l).where(_l.c.iam_id == iam_id))
    connection.execute(sa.insert(_l).values(digest=value.digest(), iam_id=iam_id, expires_at=now + LINK_TTL))
    remember(connection, at=now, action="user:sign_in_link", target=iam_id, iam_id="", account_id="")
    # The link is made to be handed to the person.
    return Secret(f"{public_url}{PATH}?link={value.reveal()}")


def user_of_link(connection: sa.Connection, value: Secret, now: datetime) -> User | None:
    """The person a link is for, while it is good."""
    iam_id = connection.scalar(
        sa.select(_l.c.iam_id).where(_l.c.digest == value.digest(), _l.c.expires_at > now)
    )
    return user_of(connection, iam_id) if iam_id else None


def use_link(connection: sa.Connection, value: Secret, password_hash: str, now: datetime) -> User | None:
    """Set the password of the link's person; the link and every older sign-in of theirs end. None
    where the link is not good, or was used a moment ago."""
    user = user_of_link(connection, value, now)
    if user is None:
        return None
    connection.execute(sa.delete(_l).where(_l.c.iam_id == user.iam_id))
    set_password(connection, user.iam_id, password_hash, by=user.iam_id, now=now)
    return user


def set_password(
    connection: sa.Connection, iam_id: str, password_hash: str, *, by: str, now: datetime
) -> None:
    """Replace a person's password, by its hash; every older sign-in of theirs ends."""
    end_all(connection, iam_id)
    set_password_hash(connection, iam_id, password_hash)
    remember(connection, at=now, action="user:set_password", target=iam_id, iam_id=by, account_id="")
