"""A secret is a type that masks itself, so a careless log line is harmless."""

from __future__ import annotations

import hashlib
import hmac
from typing import Any, Final, NoReturn

MASK: Final = "********"


class Secret:
    """Plaintext of a key, token or password.

    `str`, `repr`, `format` and f-strings print a mask; pickling and copying into JSON raise. The one door
    to the text is `reveal()`; every caller of it says in a comment who needs the text.
    """

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text: Final = text

    def reveal(self) -> str:
        """The plaintext."""
        return self._text

    def digest(self) -> bytes:
        """SHA-256 of the text: 32 bytes. Fit for values with full entropy, not for passwords."""
        return hashlib.sha256(self._text.encode()).digest()

    @property
    def last_four(self) -> str:
        """The last four characters, by which an owner knows a key; empty where that would tell too much."""
        return self._text[-4:] if len(self._text) >= 16 else ""

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Secret):
            return NotImplemented
        return hmac.compare_digest(self._text.encode(), other._text.encode())

    def __hash__(self) -> int:
        return hash(self.digest())

    def __bool__(self) -> bool:
        return bool(self._text)

    def __str__(self) -> str:
        return MASK

    def __repr__(self) -> str:
        return f"Secret({MASK})"

    def __format__(self, spec: str) -> str:
        return MASK

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Secret cannot be pickled")

    def __copy__(self) -> Secret:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Secret:
        return self
