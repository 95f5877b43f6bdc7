"""An installation on disk: records, local IAM, embedded vault, revocation log; the parts a backup is made of."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pytest

from taskcred.clock import SystemClock
from taskcred.config import Settings
from taskcred.domain.credentials import CredentialView, Generated, KeyState
from taskcred.domain.permissions import Principal
from taskcred.iam.app import create_app
from taskcred.iam.operator import Made, Operator
from taskcred.iam.service import IamConfig, LocalIam
from taskcred.identity.client import IamClient
from taskcred.revocations import FileRevocationLog, directory_of
from taskcred.services import credentials
from taskcred.services.context import Context
from taskcred.store import credentials as credential_rows
from taskcred.testing import interactive, make_context
from taskcred.vaults.embedded import EmbeddedVault
from taskcred.vaults.master_key import MasterKeyFile

URL = "https://taskcred.test"


@dataclass
class Installation:
    """What a server on this data directory works with."""

    settings: Settings
    ctx: Context
    iam: LocalIam
    vault: EmbeddedVault

    def add_owner(self, name: str) -> Made:
        with Operator(self.settings.data_dir / "iam.db", SystemClock()) as operator:
            return operator.create_user(account="acme", email=f"{name}@example.test", with_api_key=True)

    def signed_in(self, owner: Made) -> Principal:
        """The owner, signed in just now, with a token that may manage their keys."""
        assert owner.api_key
        token = self.ctx.provider.exchange(owner.api_key, for_run=False).token
        return interactive(owner.iam_id, owner.account_id, auth_time=self.ctx.clock.now(), token=token)

    def create(self, owner: Made) -> CredentialView:
        made = credentials.create(self.ctx, self.signed_in(owner), name="mine", source=Generated())
        assert made.stage == "done"
        return made.credential

    def find(self, credential_id: str) -> CredentialView:
        with self.ctx.store.read() as connection:
            found = credential_rows.find(connection, credential_id)
        assert found
        return found

    def key_states(self, credential_id: str) -> list[KeyState]:
        with self.ctx.store.read() as connection:
            return [key.state for key in credential_rows.keys(connection, credential_id)]

    def close(self) -> None:
        self.ctx.store.engine.dispose()
        self.iam.close()
        self.vault.close()


def open_installation(settings: Settings) -> Installation:
    data_dir, clock = settings.data_dir, SystemClock()
    data_dir.mkdir(mode=0o700, exist_ok=True)
    vault = EmbeddedVault(data_dir / "vault.db", MasterKeyFile.locate(data_dir, None, {}))
    log = FileRevocationLog(directory_of(settings), clock)
    iam = LocalIam(IamConfig(database=data_dir / "iam.db", issuer=f"{URL}/identity"), vault, clock, log)
    iam.prepare()
    provider = IamClient(
        URL,
        client_id="taskcred",
        client_secret=vault.open("iam/clients/taskcred"),
        clock=clock,
        timeout=timedelta(seconds=5),
        app=create_app(iam),
    )
    ctx = make_context(data_dir, clock=clock, vault=vault, provider=provider, revocations=log, public_url=URL)
    return Installation(settings, ctx, iam, vault)


@pytest.fixture
def opened() -> Iterator[Callable[[Settings], Installation]]:
    """Open an installation; all are closed at the end."""
    installations: list[Installation] = []

    def make(settings: Settings) -> Installation:
        installations.append(open_installation(settings))
        return installations[-1]

    yield make
    for installation in installations:
        installation.close()


@pytest.fixture
def before(tmp_path: Path, opened: Callable[[Settings], Installation]) -> Installation:
    """The installation that is backed up."""
    return opened(Settings(data_dir=tmp_path / "before", revocations_dir=tmp_path / "revocations"))
