"""Texts of keys we make: a prefix that scanners can match, 43 random characters, 6 of checksum.

The checksum (CRC-32, base 62) lets a stand-in key be told from any other key, and a typing error from an
unknown key, without a look-up. It is no security: the 43 characters are (log2(62^43) = 256 bits).
"""

from __future__ import annotations

import re
import secrets
import string
import zlib
from typing import Final

from taskcred.domain.secret import Secret

USER_KEY_PREFIX: Final = "tcu_"
STANDIN_KEY_PREFIX: Final = "tcs_"
SERVICE_SECRET_PREFIX: Final = "tcc_"  # noqa: S105 - a prefix, not a secret

_ALPHABET: Final = string.digits + string.ascii_uppercase + string.ascii_lowercase
_RANDOM: Final = 43
_CHECKSUM: Final = 6
LENGTH: Final = 4 + _RANDOM + _CHECKSUM
_STANDIN_KEY: Final = re.compile(rf"{STANDIN_KEY_PREFIX}[0-9A-Za-z]{{{_RANDOM + _CHECKSUM}}}")


def _checksum(text: str) -> str:
    value = zlib.crc32(text.encode("ascii"))
    digits = ""
    for _ in range(_CHECKSUM):
        value, index = divmod(value, len(_ALPHABET))
        digits = _ALPHABET[index] + digits
    return digits


def new_key(prefix: str) -> Secret:
    """A fresh key text from the operating system's randomness: 53 characters."""
    body = prefix + "".join(secrets.choice(_ALPHABET) for _ in range(_RANDOM))
    return Secret(body + _checksum(body))


def is_standin_key(text: str) -> bool:
    """Whether `text` has the form of a stand-in key (it need not be one that exists)."""
    return has_form(text, STANDIN_KEY_PREFIX)


def mask_standin_keys(text: str) -> str:
    """`text` with what has the form of a stand-in key replaced: a job may print what it was given."""
    return _STANDIN_KEY.sub(
        lambda found: f"{STANDIN_KEY_PREFIX}***" if is_standin_key(found[0]) else found[0], text
    )


def has_form(text: str, prefix: str) -> bool:
    """Whether `text` is `prefix`, 43 characters of the alphabet and the checksum that fits them."""
    return (
        len(text) == LENGTH
        and text.startswith(prefix)
        and text.isascii()
        and text[4:].isalnum()
        and text[-_CHECKSUM:] == _checksum(text[:-_CHECKSUM])
    )
