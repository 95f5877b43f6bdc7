"""The bytes of a sealed record. Wire format: it only ever grows, at the end, under a new format byte.

    1 byte    format, 1
    4 bytes   id of the data key, big-endian
    12 bytes  nonce, random; one data key seals far fewer than 2^32 records (NIST SP 800-38D, 8.3)
    n bytes   AES-256-GCM ciphertext of the UTF-8 text
    16 bytes  tag

Associated data is a label, the first five bytes and the record's path, so that a record can neither be
moved to another path nor be passed off as one under another key.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from taskcred.domain.secret import Secret
from taskcred.errors import IntegrityError

FORMAT: Final = 1
NONCE_SIZE: Final = 12
_HEAD_SIZE: Final = 5
_TAG_SIZE: Final = 16
_LABEL: Final = b"taskcred vault record\x00"


def seal(cipher: AESGCM, key_id: int, path: str, secret: Secret, nonce: bytes) -> bytes:
    """The sealed record of `secret` under `path`. `nonce`: 12 bytes never used with this key before."""
    head = bytes([FORMAT]) + key_id.to_bytes(4, "big")
    # The text is needed to encrypt it.
    text = secret.reveal().encode()
    return head + nonce + cipher.encrypt(nonce, text, _LABEL + head + path.encode())


def key_id_of(sealed: bytes) -> int:
    """Which data key opens this record. Raises IntegrityError where these are no sealed record's bytes."""
    if len(sealed) < _HEAD_SIZE + NONCE_SIZE + _TAG_SIZE or sealed[0] != FORMAT:
        raise IntegrityError("A vault record has bytes that taskcred did not write.", hint=_CURE)
    return int.from_bytes(sealed[1:_HEAD_SIZE], "big")


def open_sealed(ciphers: Mapping[int, AESGCM], path: str, sealed: bytes) -> Secret:
    """The secret that was sealed under `path`. `ciphers` has the key that `key_id_of` names. Raises
    IntegrityError where the record was altered or moved."""
    cipher = ciphers[key_id_of(sealed)]
    head, rest = sealed[:_HEAD_SIZE], sealed[_HEAD_SIZE:]
    try:
        text = cipher.decrypt(rest[:NONCE_SIZE], rest[NONCE_SIZE:], _LABEL + head + path.encode())
    except InvalidTag:
        raise IntegrityError(f"The vault record {path!r} was altered or moved.", hint=_CURE) from None
    return Secret(text.decode())


_CURE: Final = "Stop the server and restore the last good backup; somebody or something wrote to vault.db."
