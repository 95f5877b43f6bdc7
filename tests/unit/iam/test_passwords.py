"""Passwords."""

from __future__ import annotations

import pytest

from taskcred.domain.secret import Secret
from taskcred.errors import InvalidRequestError
from taskcred.iam.passwords import MAX_LENGTH, Passwords


def test_a_password_is_kept_as_argon2id_and_recognized() -> None:
    passwords, password = Passwords(), Secret("correct horse battery")
    hashed = passwords.hash(password)
    assert hashed.startswith("$argon2id$")
    assert hashed != passwords.hash(password)  # salted
    assert passwords.is_right(password, hashed)
    assert not passwords.is_right(Secret("correct horse batterz"), hashed)
    assert not passwords.is_right(password, None)
    assert not passwords.is_right(Secret("nobody's password"), None)


@pytest.mark.parametrize("text", ["", "x" * 11, "x" * (MAX_LENGTH + 1), " " * 20])
def test_what_is_no_password_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequestError):
        Passwords().hash(Secret(text))


def test_any_characters_make_a_password() -> None:
    passwords, password = Passwords(), Secret("\x00\ud800 päßwörd \U0001f511")
    assert passwords.is_right(password, passwords.hash(password))
