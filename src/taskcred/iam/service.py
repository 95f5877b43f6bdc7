"""The local IAM as one object: its database, its vault records, its parts."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Final

from taskcred.iam.clients import Clients
from taskcred.iam.database import Database
from taskcred.iam.devices import Devices
from taskcred.iam.exchange import Exchange
from taskcred.iam.housekeeping import sweep
from taskcred.iam.passwords import Passwords
from taskcred.iam.signing import SigningKeys
from taskcred.iam.signins import SignIns
from taskcred.iam.stored_values import StoredValues
from taskcred.iam.throttle import Throttle
from taskcred.iam.tokens import Tokens
from taskcred.ports import Clock, RevocationLog, Vault


@dataclass(frozen=True, slots=True)
class IamConfig:
    """`issuer` is `<public URL>/identity`, without a slash at its end."""

    database: Path
    issuer: str
    token_ttl: timedelta = timedelta(hours=1)
    sign_in_ttl: timedelta = timedelta(hours=12)
    signing_key_life: timedelta = timedelta(days=30)

    @property
    def public_url(self) -> str:
        """Where users reach the server."""
        return self.issuer.removesuffix("/identity")


class LocalIam:
    """An identity provider with IBM's wire shapes. One object serves all threads of a process."""

    def __init__(self, config: IamConfig, vault: Vault, clock: Clock, revocations: RevocationLog) -> None:
        self.config: Final = config
        self.clock: Final = clock
        self.revocations: Final = revocations
        self.database: Final = Database(config.database)
        self.signing_keys: Final = SigningKeys(
            self.database, vault, clock, life=config.signing_key_life, token_ttl=config.token_ttl
        )
        self.clients: Final = Clients(vault, f"{config.public_url}/auth/callback")
        self.tokens: Final = Tokens(self.signing_keys, clock, issuer=config.issuer, ttl=config.token_ttl)
        self.exchange: Final = Exchange(self.database, clock)
        self.passwords: Final = Passwords()
        self.throttle: Final = Throttle(self.database, clock)
        self.sign_ins: Final = SignIns(self.database, clock, ttl=config.sign_in_ttl)
        self.devices: Final = Devices(self.database, clock, sign_in_ttl=config.sign_in_ttl)
        self.stored_values: Final = StoredValues(self.database, vault, clock)

    def prepare(self) -> None:
        """Migrate, and make the first signing key and the client secret. Safe to repeat; to be called by
        one process before the others start."""
        self.database.migrate()
        self.signing_keys.prepare()
        self.clients.prepare()

    def tend(self) -> None:
        """What has to be done now and then, by the keeper, every minute or so: rotate signing keys, finish
        what a crash left in the vault, forget what expired."""
        self.signing_keys.tend()
        self.stored_values.tend()
        self.exchange.flush()
        sweep(self.database, self.clock.now())

    def close(self) -> None:
        """Write counts down and close the database."""
        self.exchange.flush()
        self.database.close()
