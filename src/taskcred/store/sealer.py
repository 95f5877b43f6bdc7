"""Sealing small values that lie in the records: cached access tokens, sessions' tokens.

The keyset is itself a vault record, so a stolen records database opens nothing. Each ciphertext begins
with a format byte and the id of its key; the row it belongs to is bound in as associated data.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import os
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from taskcred.domain.secret import Secret
from taskcred.errors import IntegrityError

_FORMAT: Final = 1
_NONCE: Final = 12


class Sealer:
    """AES-256-GCM under a keyset {key id: 32 bytes}; the highest id seals, every id opens."""

    def __init__(self, keyset: Secret) -> None:
        # The keyset's text is needed here and nowhere else: to build the ciphers.
        raw = {int(key_id): base64.b64decode(text) for key_id, text in json.loads(keyset.reveal()).items()}
        self._ciphers: Final = {key_id: AESGCM(key) for key_id, key in raw.items()}
        self._primary: Final = max(raw)
        self._digest_key: Final = hmac.digest(raw[min(raw)], b"taskcred keyed digest", "sha256")

    @staticmethod
    def new_keyset() -> Secret:
        """A keyset with one fresh key, as the text the vault keeps."""
        return Secret(json.dumps({"1": base64.b64encode(os.urandom(32)).decode()}))

    def seal(self, secret: Secret, context: str) -> bytes:
        """Ciphertext of `secret`, good for the row that `context` names only."""
        nonce = os.urandom(_NONCE)
        head = bytes([_FORMAT]) + self._primary.to_bytes(2, "big") + nonce
        # The text is needed to encrypt it.
        return head + self._ciphers[self._primary].encrypt(nonce, secret.reveal().encode(), context.encode())

    def open(self, sealed: bytes, context: str) -> Secret:
        """The secret. Raises IntegrityError where the bytes are not what was sealed for `context`."""
        cipher = self._ciphers.get(int.from_bytes(sealed[1:3], "big"))
        if not sealed or sealed[0] != _FORMAT or cipher is None:
            raise IntegrityError("A sealed value is under a key this process does not have.")
        try:
            return Secret(
                cipher.decrypt(sealed[3 : 3 + _NONCE], sealed[3 + _NONCE :], context.encode()).decode()
            )
        except InvalidTag:
            raise IntegrityError("A sealed value in the records was altered or moved.") from None

    def keyed_digest(self, secret: Secret) -> bytes:
        """HMAC-SHA-256 by which a value can be recognised again, and by nobody who lacks the keyset."""
        # The text is needed to digest it.
        return hmac.new(self._digest_key, secret.reveal().encode(), hashlib.sha256).digest()
