"""Proving who one is by a password, wherever a form asks for it."""

from __future__ import annotations

from taskcred.domain.secret import Secret
from taskcred.iam import accounts, throttle
from taskcred.iam.database import NOBODY, remember
from taskcred.iam.service import LocalIam

WRONG = "The e-mail address or the password is wrong."


def proven(iam: LocalIam, email: str, password: Secret, address: str) -> accounts.User | None:
    """The user whose password this is. Raises RateLimitedError."""
    subjects = throttle.of_password(email, address)
    iam.throttle.begin(subjects, "Too many wrong passwords.")
    with iam.database.read() as connection:
        user = accounts.find_user(connection, email)
    if not iam.passwords.is_right(password, user.password_hash if user else None) or user is None:
        # For an address that is nobody's as well, or the time an answer takes would tell which are known.
        with iam.database.write() as connection:
            remember(
                connection,
                at=iam.clock.now(),
                action="user:sign_in_refused",
                target=user.iam_id if user else NOBODY,
                iam_id="",
                account_id="",
                params={"address": address},
            )
        return None
    iam.throttle.succeeded(subjects)
    return user
