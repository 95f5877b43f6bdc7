"""What a first start makes and a later start brings up to date; safe to repeat at any point."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Final

from taskcred.clock import SystemClock
from taskcred.config import Settings
from taskcred.data_dir import DataDir, write_private
from taskcred.domain.secret import Secret
from taskcred.errors import ConfigurationError
from taskcred.iam import operator
from taskcred.jobs.queue import migrate_engine
from taskcred.ports import Vault
from taskcred.store import migrate, tokens, workers
from taskcred.store.engine import Store
from taskcred.store.epoch import Epoch
from taskcred.store.sealer import Sealer
from taskcred.wiring.common import COOKIE_KEY, TOKEN_KEYSET, has_records, open_records
from taskcred.wiring.trusted import open_iam, open_vault

if TYPE_CHECKING:
    from taskcred.vaults.embedded import EmbeddedVault
    from taskcred.vaults.openbao import OpenBaoVault

WORKER_NAME: Final = "embedded"


def prepare(settings: Settings) -> None:
    """The vault comes first: where its master key does not open it this raises, and nothing was changed."""
    files = DataDir(settings.data_dir)
    vault = _lay(settings, files)
    engine = open_records(settings)
    migrate_engine(engine)
    iam = open_iam(settings, vault)
    iam.prepare()
    store = Store(engine, Epoch(files.epoch))
    _issue_worker_credential(store, files)
    _forget_tokens_of_another_issuer(store, files, iam.config.issuer)
    iam.close()
    vault.close()
    engine.dispose()
    _invite_administrator(settings, files)


def lay(settings: Settings) -> None:
    """The vault and the records, as a first start lays them: for what an operator does before it."""
    _lay(settings, DataDir(settings.data_dir)).close()


def _lay(settings: Settings, files: DataDir) -> EmbeddedVault | OpenBaoVault:
    """As `lay`; the vault, open. Keys that every process shares are in it before there are records."""
    files.make()
    vault = open_vault(settings)
    try:
        if settings.vault.kind == "openbao":
            _verify_belonging(vault, settings.vault.openbao.mount, are_there=has_records(settings))
        vault.store_once(TOKEN_KEYSET, Sealer.new_keyset())
        vault.store_once(COOKIE_KEY, Secret(secrets.token_urlsafe(32)))
        engine = open_records(settings)
        migrate.upgrade(engine)
        engine.dispose()
    except BaseException:
        vault.close()
        raise
    return vault


def _verify_belonging(vault: Vault, mount: str, *, are_there: bool) -> None:
    """Refuse a mount that is not that of these records: all keys would seem lost, or another installation's
    be cleared away. Since the shared keys come first, records without them are another mount's."""
    if are_there and not vault.paths(TOKEN_KEYSET):
        raise ConfigurationError(
            f"The mount {mount} holds nothing of this installation.",
            hint="Check `vault.kind`, `vault.openbao.mount` and `vault.openbao.namespace`; nothing was changed.",
        )
    if not are_there and not set(vault.paths()) <= {TOKEN_KEYSET, COOKIE_KEY}:
        raise ConfigurationError(
            f"The mount {mount} holds another installation's keys, or this one's records are lost.",
            hint="Give each installation a mount of its own, or restore the records' backup; nothing was changed.",
        )


def _issue_worker_credential(store: Store, files: DataDir) -> None:
    if files.worker_credential.exists():
        return
    secret = Secret(secrets.token_urlsafe(32))
    now = SystemClock().now()
    with store.write() as connection:
        workers.end(connection, WORKER_NAME, now)  # its file is gone, so it is of no use to anyone honest
        worker_id = workers.add(connection, WORKER_NAME, secret, now)
    # The worker needs the text, to prove itself to web with it.
    write_private(files.worker_credential, f"{worker_id}:{secret.reveal()}\n")


def _forget_tokens_of_another_issuer(store: Store, files: DataDir, issuer: str) -> None:
    """After a change of the public URL nobody accepts the cached tokens any more; new ones cost an exchange."""
    if files.issuer.exists() and files.issuer.read_text().strip() == issuer:
        return
    with store.write() as connection:
        tokens.forget_cached(connection)
    write_private(files.issuer, f"{issuer}\n")


def _invite_administrator(settings: Settings, files: DataDir) -> None:
    """On the first start: an account, its administrator, and a link that lets them choose a password, once."""
    link = operator.invite_first_administrator(files.iam, settings.server.public_url)
    if link is None:
        return
    # The administrator needs the text; it goes into a file only this user can read, never to a terminal.
    write_private(files.administrator_link, link.reveal() + "\n")
    print(f"The first administrator's one-time sign-in link is in {files.administrator_link}", flush=True)  # noqa: T201 - said to the person who started it
