"""Values of service ids' keys that their creators asked us to keep (`store_value`), in the vault.

The row in `stored_values` is the intent: written before the vault is, taken away after. So a value
without a key, which a crash between the two stores can leave, is always found and destroyed.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Final

import sqlalchemy as sa

from taskcred.domain.secret import Secret
from taskcred.errors import RecordNotFoundError
from taskcred.iam import tables
from taskcred.iam.database import Database
from taskcred.ports import Clock, Vault

_PREFIX: Final = "iam/apikeys/"
_ABANDONED: Final = timedelta(minutes=10)  # no request takes as long

_v, _k = tables.stored_values, tables.api_keys


class StoredValues:
    """The vault records `iam/apikeys/<key id>`."""

    def __init__(self, database: Database, vault: Vault, clock: Clock) -> None:
        self._database: Final = database
        self._vault: Final = vault
        self._clock: Final = clock

    def keep(self, key_id: str, value: Secret) -> None:
        """Seal the value of a key that is about to be created."""
        with self._database.write() as connection:
            connection.execute(sa.insert(_v).values(key_id=key_id, created_at=self._clock.now()))
        self._vault.store(_PREFIX + key_id, value)

    def open(self, key_id: str) -> Secret | None:
        """The value; None where there is none."""
        try:
            return self._vault.open(_PREFIX + key_id)
        except RecordNotFoundError:
            return None

    def destroy(self, key_id: str) -> None:
        """Erase the value of a key that is gone; nothing happens where none was kept."""
        self._vault.destroy(_PREFIX + key_id)
        with self._database.write() as connection:
            connection.execute(sa.delete(_v).where(_v.c.key_id == key_id))

    def tend(self) -> None:
        """Destroy the values whose key was never created or is gone."""
        with self._database.read() as connection:
            orphans = connection.scalars(
                sa.select(_v.c.key_id)
                .join(_k, _k.c.id == _v.c.key_id, isouter=True)
                .where(_k.c.id.is_(None), _v.c.created_at < self._clock.now() - _ABANDONED)
            ).all()
        for key_id in orphans:
            self.destroy(key_id)
