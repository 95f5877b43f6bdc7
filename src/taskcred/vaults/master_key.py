"""The embedded vault's master key: one file of 32 random bytes in base64 (`openssl rand -base64 32`).

The key wraps the vault's data keys and nothing else. It is read when the keyset is loaded and not kept.
Where no file is named, the first start makes `master.key` in the data directory; a named file is the
operator's: we read it and never write it.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import os
import secrets
import stat
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from taskcred.errors import ConfigurationError, IntegrityError

ENVIRONMENT: Final = "TASKCRED_MASTER_KEY_FILE"
FILE_NAME: Final = "master.key"  # in the data directory, and the name of the systemd credential
_KEY_SIZE: Final = 32
_NONCE_SIZE: Final = 12
_FORMAT: Final = 1
_LABEL: Final = b"taskcred vault data key\x00"


class MasterKey:
    """The key itself. `id` tells keys apart and gives nothing away; `repr` shows only that.

    A wrapped data key is: format byte 1, nonce of 12 bytes, AES-256-GCM ciphertext and tag; associated data
    are a label, the data key's id (4 bytes, big-endian) and the master key's id.
    """

    __slots__ = ("_cipher", "id")

    def __init__(self, raw: bytes) -> None:
        self.id: Final = hmac.digest(raw, b"taskcred master key id", "sha256")[:8].hex()
        self._cipher: Final = AESGCM(raw)

    def __repr__(self) -> str:
        return f"MasterKey(id={self.id!r})"

    def _context(self, data_key_id: int) -> bytes:
        return _LABEL + data_key_id.to_bytes(4, "big") + self.id.encode()

    def wrap(self, data_key_id: int, data_key: bytes, nonce: bytes) -> bytes:
        """`data_key` under this key; `nonce`: 12 fresh random bytes."""
        return bytes([_FORMAT]) + nonce + self._cipher.encrypt(nonce, data_key, self._context(data_key_id))

    def unwrap(self, data_key_id: int, wrapped: bytes) -> bytes:
        """The data key. Raises IntegrityError where `wrapped` is not what `wrap` made for this id."""
        head, nonce, ciphertext = wrapped[:1], wrapped[1 : 1 + _NONCE_SIZE], wrapped[1 + _NONCE_SIZE :]
        if head == bytes([_FORMAT]) and len(nonce) == _NONCE_SIZE:
            with suppress(InvalidTag):
                return self._cipher.decrypt(nonce, ciphertext, self._context(data_key_id))
        raise IntegrityError(
            "A wrapped data key in the vault was altered.", hint="Restore the last good backup of vault.db."
        )


@dataclass(frozen=True, slots=True)
class MasterKeyFile:
    """Where the master key is. `is_ours`: the default file, which taskcred makes and replaces.

    `is_private` is False for a systemd credential: its directory is closed to others, and the access list
    systemd puts on the file shows up as group bits.
    """

    path: Path
    is_ours: bool = False
    is_private: bool = True

    @staticmethod
    def locate(data_dir: Path, named: Path | None, environ: Mapping[str, str]) -> MasterKeyFile:
        """In this order: TASKCRED_MASTER_KEY_FILE, the setting, the systemd credential `master.key`, the
        default."""
        if ENVIRONMENT in environ:
            return MasterKeyFile(Path(environ[ENVIRONMENT]))
        if named is not None:
            return MasterKeyFile(named)
        credential = Path(environ.get("CREDENTIALS_DIRECTORY", "/nonexistent"), FILE_NAME)
        if credential.exists():
            return MasterKeyFile(credential, is_private=False)
        return MasterKeyFile(data_dir / FILE_NAME, is_ours=True)

    def read(self) -> MasterKey:
        """The key. Raises ConfigurationError where the file is missing, too open or malformed."""
        try:
            mode = self.path.stat().st_mode
            text = self.path.read_bytes()
        except FileNotFoundError:
            raise ConfigurationError(
                f"The master key file {self.path} is missing.",
                hint="Put the file back from where you keep it. Nothing was changed; without it nothing in "
                "the vault can be opened.",
                code="master_key_missing",
            ) from None
        except OSError as error:
            raise ConfigurationError(
                f"The master key file {self.path} cannot be read: {error.strerror}.",
                hint="Let the user that runs taskcred, and nobody else, read it.",
                code="master_key_unreadable",
            ) from None
        if self.is_private and stat.S_IMODE(mode) & 0o077:
            raise ConfigurationError(
                f"The master key file {self.path} is open to other users (mode {stat.S_IMODE(mode):04o}).",
                hint=f"chmod 600 {self.path}; if somebody may have read it, run `taskcred vault rewrap` too.",
                code="master_key_too_open",
            )
        return MasterKey(self._decoded(text))

    def _decoded(self, text: bytes) -> bytes:
        try:
            raw = base64.b64decode(text.strip(), validate=True)
        except binascii.Error:
            raw = b""
        if len(raw) != _KEY_SIZE:
            raise ConfigurationError(
                f"The master key file {self.path} does not hold a master key: 32 bytes in base64 on one line.",
                hint="Put the right file back. For a new vault: openssl rand -base64 32 > FILE; chmod 600 FILE.",
                code="master_key_malformed",
            )
        return raw

    def create(self) -> None:
        """Make the file with a fresh key unless there is one: complete, durable and mode 0600 from the moment
        it has its name, whoever else tries at the same time."""
        draft = self.path.with_name(f".{self.path.name}.{secrets.token_hex(4)}")
        _write_durably(draft, base64.b64encode(secrets.token_bytes(_KEY_SIZE)) + b"\n")
        with suppress(FileExistsError):
            os.link(draft, self.path)
        draft.unlink()
        _sync_directory(self.path)

    def copy_from(self, other: MasterKeyFile) -> None:
        """Hold the key of the file `other` from now on. One process at a time."""
        draft = self.path.with_name(f".{self.path.name}.copy")
        _write_durably(draft, other.path.read_bytes())
        draft.replace(self.path)
        _sync_directory(self.path)

    def move_from(self, other: MasterKeyFile) -> None:
        """Hold the key of the file `other`, which is gone then, in one step."""
        other.path.replace(self.path)
        _sync_directory(self.path)


def _write_durably(path: Path, text: bytes) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(fd, "wb") as file:
        file.write(text)
        file.flush()
        os.fsync(fd)


def _sync_directory(of: Path) -> None:
    fd = os.open(of.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
