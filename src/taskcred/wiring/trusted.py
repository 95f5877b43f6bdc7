"""The parts of the roles that may open the vault: web and keeper."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple

from taskcred.clock import SystemClock
from taskcred.config import Settings
from taskcred.data_dir import DataDir
from taskcred.iam.app import create_app as create_iam_app
from taskcred.iam.clients import SECRET_PATH
from taskcred.iam.service import IamConfig, LocalIam
from taskcred.identity.claims import CLIENT_ID
from taskcred.identity.client import IamClient
from taskcred.ports import Vault
from taskcred.revocations import FileRevocationLog, directory_of
from taskcred.services.context import Context
from taskcred.store.sealer import Sealer
from taskcred.vaults.embedded import EmbeddedVault
from taskcred.vaults.master_key import MasterKeyFile
from taskcred.wiring.common import TOKEN_KEYSET, build_context
from taskcred.wsgi import WsgiApp

if TYPE_CHECKING:
    from taskcred.vaults.openbao import OpenBaoVault


class Trusted(NamedTuple):
    """A context that can exchange and store; the local IAM behind it, and its WSGI application."""

    ctx: Context
    iam: LocalIam
    iam_app: WsgiApp


def open_vault(settings: Settings) -> EmbeddedVault | OpenBaoVault:
    """The vault that the settings name, found to work. Raises what its `check` raises, and ConfigurationError."""
    if settings.vault.kind == "openbao":
        from taskcred.wiring.openbao import open_openbao  # hvac takes 0.3 s to load: only where it is chosen

        return open_openbao(settings.vault.openbao)
    return open_embedded(settings)


def open_embedded(settings: Settings) -> EmbeddedVault:
    """The embedded vault; `vaults.master_key` says where its master key is looked for."""
    master_key = MasterKeyFile.locate(settings.data_dir, settings.vault.master_key_file, os.environ)
    return EmbeddedVault(DataDir(settings.data_dir).vault, master_key)


def open_iam(settings: Settings, vault: Vault) -> LocalIam:
    """The local IAM on its own database."""
    config = IamConfig(
        database=DataDir(settings.data_dir).iam,
        issuer=f"{settings.server.public_url}/identity",
        token_ttl=settings.iam.token_ttl,
        sign_in_ttl=settings.iam.sign_in_ttl,
        signing_key_life=settings.iam.signing_key_life,
    )
    clock = SystemClock()
    return LocalIam(config, vault, clock, FileRevocationLog(directory_of(settings), clock))


def open_trusted(settings: Settings) -> Trusted:
    """Vault, local IAM and context. The provider is reached as any IBM-shaped IAM is, over HTTP, here without
    a network: requests go straight into the local IAM's own application."""
    vault = open_vault(settings)
    iam = open_iam(settings, vault)
    iam_app = create_iam_app(iam)
    provider = IamClient(
        settings.server.public_url,
        client_id=CLIENT_ID,
        client_secret=vault.open(SECRET_PATH),
        clock=SystemClock(),
        timeout=settings.identity.timeout,
        permits=settings.identity.bulkhead,
        app=iam_app,
    )
    ctx = build_context(settings, vault, provider, Sealer(vault.open(TOKEN_KEYSET)))
    return Trusted(ctx, iam, iam_app)
