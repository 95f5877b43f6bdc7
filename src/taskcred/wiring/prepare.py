"""What a first start makes and a later start brings up to date; safe to repeat at any point."""

from __future__ import annotations

import secrets
from typing import Final

from taskcred.clock import SystemClock
from taskcred.config import Settings
from taskcred.data_dir import DataDir, write_private
from taskcred.domain.secret import Secret
from taskcred.errors import RecordNotFoundError
from taskcred.iam import operator
from taskcred.jobs.queue import migrate_engine
from taskcred.ports import Vault
from taskcred.store import migrate, tokens, workers
from taskcred.store.engine import Store, sqlite_engine
from taskcred.store.epoch import Epoch
from taskcred.store.sealer import Sealer
from taskcred.wiring.common import COOKIE_KEY, TOKEN_KEYSET
from taskcred.wiring.trusted import open_iam, open_vault

WORKER_NAME: Final = "embedded"


def prepare(settings: Settings) -> None:
    """The vault comes first: where its master key does not open it this raises, and nothing was changed."""
    files = DataDir(settings.data_dir)
    lay(settings)
    vault = open_vault(settings)
    engine = sqlite_engine(files.records)
    migrate_engine(engine)
    iam = open_iam(settings, vault)
    iam.prepare()
    _record_once(vault, TOKEN_KEYSET, Sealer.new_keyset())
    _record_once(vault, COOKIE_KEY, Secret(secrets.token_urlsafe(32)))
    store = Store(engine, Epoch(files.epoch))
    _issue_worker_credential(store, files)
    _forget_tokens_of_another_issuer(store, files, iam.config.issuer)
    iam.close()
    vault.close()
    engine.dispose()
    _invite_administrator(settings, files)


def lay(settings: Settings) -> None:
    """The vault and the records, as a first start lays them: for what an operator does before it."""
    files = DataDir(settings.data_dir)
    files.make()
    open_vault(settings).close()
    engine = sqlite_engine(files.records)
    migrate.upgrade(engine)
    engine.dispose()


def _record_once(vault: Vault, path: str, fresh: Secret) -> None:
    try:
        vault.open(path)
    except RecordNotFoundError:
        vault.store(path, fresh)


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
