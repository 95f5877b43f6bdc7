"""Signing keys: vault records that rotate, with the public halves published before and after their use.

A new key is published for `PUBLISH_AHEAD` before it signs, and an old one until the last token it signed
has expired, so a client that caches the key set never meets a signature it cannot check. The row is
written first without `signs_from`; it gets one when the vault holds the private half. What a crash leaves
in between is a row that signs nothing, which `tend` clears away.
"""

from __future__ import annotations

import secrets
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

import jwt
import sqlalchemy as sa
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from joserfc.jwk import ECKey, KeySet

from taskcred.domain.secret import Secret
from taskcred.errors import IntegrityError, UnavailableError
from taskcred.iam import tables
from taskcred.iam.database import Database
from taskcred.ports import Clock, Vault

ALGORITHM: Final = "ES256"
PUBLISH_AHEAD: Final = timedelta(minutes=15)
_RELOAD_SECONDS: Final = 30.0
_ABANDONED: Final = timedelta(hours=1)
_PREFIX: Final = "iam/signing/"


@dataclass(frozen=True, slots=True)
class _Row:
    kid: str
    public: dict[str, Any]
    created_at: datetime
    signs_from: datetime
    published_until: datetime | None


class SigningKeys:
    """The keys that sign the local IAM's tokens. One object serves all threads of a process."""

    def __init__(
        self, database: Database, vault: Vault, clock: Clock, *, life: timedelta, token_ttl: timedelta
    ) -> None:
        self._database: Final = database
        self._vault: Final = vault
        self._clock: Final = clock
        self._life: Final = life
        self._token_ttl: Final = token_ttl
        self._lock: Final = threading.Lock()
        self._private: Final[dict[str, ec.EllipticCurvePrivateKey]] = {}
        self._rows: tuple[_Row, ...] = ()
        self._public: KeySet = KeySet([])
        self._loaded_at = float("-inf")

    def sign(self, claims: Mapping[str, Any]) -> str:
        """A JWT over `claims` with the present key. Raises UnavailableError where there is none yet."""
        row = self._signing_row(self._clock.now())
        return jwt.encode(dict(claims), self._private_key(row.kid), ALGORITHM, headers={"kid": row.kid})

    def published(self) -> dict[str, Any]:
        """The key set as clients fetch it (RFC 7517, 5)."""
        self._load()
        now = self._clock.now()
        return {"keys": [row.public for row in self._rows if _is_published(row, now)]}

    def public_keys(self) -> KeySet:
        """The published keys, ready to verify with."""
        if self._clock.monotonic() - self._loaded_at > _RELOAD_SECONDS:
            self._load()
        return self._public

    def prepare(self) -> None:
        """Make the first key, which signs at once; nothing happens where there is one.

        A key whose private half the vault does not hold is forgotten first: a restore that mixed two
        moments leaves such rows.
        """
        t = tables.signing_keys
        held = set(self._vault.paths(_PREFIX))
        for row in self._load():
            if _PREFIX + row.kid not in held:
                with self._database.write() as connection:
                    connection.execute(sa.delete(t).where(t.c.kid == row.kid))
        if not any(row.published_until is None for row in self._load()):
            self._create(self._clock.now())

    def rotate(self) -> None:
        """Make the next key now; it signs after `PUBLISH_AHEAD`. Nothing happens where the newest key is
        younger than that: another process was faster."""
        self._create(self._clock.now() + PUBLISH_AHEAD)

    def tend(self) -> None:
        """Replace the newest key when it is old enough; forget keys nobody can need; clear away what a
        crash left half-made. For the keeper, now and then."""
        self._load()
        now = self._clock.now()
        if self._rows and now - self._rows[-1].created_at >= self._life - PUBLISH_AHEAD:
            self.rotate()
        t = tables.signing_keys
        with self._database.read() as connection:
            gone = connection.scalars(
                sa.select(t.c.kid).where(
                    sa.or_(
                        t.c.published_until < now,
                        sa.and_(t.c.signs_from.is_(None), t.c.created_at < now - _ABANDONED),
                    )
                )
            ).all()
        for kid in gone:
            self._vault.destroy(_PREFIX + kid)
            with self._database.write() as connection:
                connection.execute(sa.delete(t).where(t.c.kid == kid))

    def _create(self, signs_from: datetime) -> None:
        now = self._clock.now()
        kid = f"{now:%Y%m%d}-{secrets.token_hex(8)}"
        private = ec.generate_private_key(ec.SECP256R1())
        t = tables.signing_keys
        with self._database.write() as connection:
            connection.execute(
                sa.insert(t).values(kid=kid, public=_published_form(private, kid), created_at=now)
            )
        pem = private.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        self._vault.store(_PREFIX + kid, Secret(pem.decode()))
        with self._database.write() as connection:
            # Two processes may be here at once: the second to commit finds a key as young as its own.
            rival = connection.execute(
                sa.select(t.c.kid).where(
                    t.c.signs_from.is_not(None),
                    t.c.published_until.is_(None),
                    t.c.created_at > now - PUBLISH_AHEAD,
                )
            ).first()
            if rival is None:
                connection.execute(
                    sa.update(t)
                    .where(t.c.signs_from.is_not(None), t.c.published_until.is_(None))
                    .values(published_until=signs_from + self._token_ttl + PUBLISH_AHEAD)
                )
                connection.execute(sa.update(t).where(t.c.kid == kid).values(signs_from=signs_from))
            else:
                connection.execute(sa.delete(t).where(t.c.kid == kid))
        if rival is not None:
            self._vault.destroy(_PREFIX + kid)
        self._load()

    def _load(self) -> tuple[_Row, ...]:
        t = tables.signing_keys
        with self._database.read() as connection:
            rows = tuple(
                _Row(*row)
                for row in connection.execute(
                    sa.select(t.c.kid, t.c.public, t.c.created_at, t.c.signs_from, t.c.published_until)
                    .where(t.c.signs_from.is_not(None))
                    .order_by(t.c.signs_from, t.c.kid)
                )
            )
        now = self._clock.now()
        with self._lock:
            self._rows = rows
            self._public = KeySet([ECKey.import_key(row.public) for row in rows if _is_published(row, now)])
            self._loaded_at = self._clock.monotonic()
            for kid in self._private.keys() - {row.kid for row in rows}:
                del self._private[kid]
        return rows

    def _signing_row(self, now: datetime) -> _Row:
        if self._clock.monotonic() - self._loaded_at > _RELOAD_SECONDS:
            self._load()
        present = [row for row in self._rows if row.signs_from <= now]
        if not present:
            raise UnavailableError(
                "There is no key to sign access tokens with yet.",
                hint="Start the server once, then try again.",
            )
        return present[-1]

    def _private_key(self, kid: str) -> ec.EllipticCurvePrivateKey:
        key = self._private.get(kid)
        if key is None:
            # The PEM text is needed here, once for each process, to build the key object.
            pem = self._vault.open(_PREFIX + kid).reveal().encode()
            loaded = serialization.load_pem_private_key(pem, None)
            if not isinstance(loaded, ec.EllipticCurvePrivateKey):
                raise IntegrityError("A signing key in the vault is not an elliptic-curve key.")
            key = self._private[kid] = loaded
        return key


def _is_published(row: _Row, now: datetime) -> bool:
    return row.published_until is None or now <= row.published_until


def _published_form(private: ec.EllipticCurvePrivateKey, kid: str) -> dict[str, Any]:
    pem = private.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    public = ECKey.import_key(pem).as_dict(private=False)
    return {**public, "kid": kid, "use": "sig", "alg": ALGORITHM}
