"""Secrets that are printed in one piece or in several."""

from __future__ import annotations

import pytest

from taskcred.domain.masking import begun, mask

SECRETS = ("abcabd", "xyz")


def test_secrets_are_replaced_wherever_they_are() -> None:
    assert mask("1 abcabd xyzxyz ab", SECRETS) == "1 ******** **************** ab"
    assert mask("nothing", ()) == "nothing"


@pytest.mark.parametrize(
    ("text", "length"),
    [("", 0), ("1", 0), ("1a", 1), ("1abcab", 5), ("abcabc", 3), ("abcabx", 1), ("xy ", 0), ("1\nxy", 2)],
)
def test_the_longest_end_that_may_begin_a_secret(text: str, length: int) -> None:
    assert begun(text, SECRETS) == length
    assert begun(text, ()) == 0
