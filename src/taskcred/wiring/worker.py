"""The worker: records and jobs. It is given no vault, no identity provider and no token keyset; this module
and what it imports do not know how to open them."""

from __future__ import annotations

from pathlib import Path
from typing import NoReturn, cast

from taskcred import logs
from taskcred.config import Server, Settings
from taskcred.data_dir import DataDir
from taskcred.domain.secret import Secret
from taskcred.errors import ConfigurationError, IntegrityError
from taskcred.jobs.queue import DbosQueue
from taskcred.jobs.worker import Worker, WorkerSettings
from taskcred.ports import IdentityProvider, Vault
from taskcred.revocations import directory_of
from taskcred.roles import lifeline
from taskcred.services.context import Context
from taskcred.store import workers
from taskcred.store.engine import Store
from taskcred.store.sealer import Sealer
from taskcred.wiring.common import build_context


class Closed:
    """Stands where a role must not have a part: any use is a bug, and stops there."""

    def __init__(self, what: str) -> None:
        self._what = what

    def __getattr__(self, name: str) -> NoReturn:
        raise IntegrityError(f"A worker has no {self._what}.", hint="This is a bug; please report it.")


def build_worker_context(settings: Settings) -> Context:
    """A context whose vault and provider refuse, and whose sealer opens nothing that others sealed."""
    return build_context(
        settings,
        cast("Vault", Closed("vault")),
        cast("IdentityProvider", Closed("identity provider")),
        Sealer(Sealer.new_keyset()),
    )


def run(settings: Settings) -> None:
    """A worker process: waits for the one before it, then runs jobs until told to stop."""
    lifeline.take_name("worker")
    logs.configure(settings.log, "worker")
    ctx = build_worker_context(settings)
    worker = Worker(settings_of_worker(settings, ctx.store), ctx, cast("DbosQueue", ctx.queue))
    lifeline.watch(worker.end_now)
    worker.run(lifeline.tell_ready)


def settings_of_worker(settings: Settings, store: Store) -> WorkerSettings:
    """What this machine's worker needs. Raises ConfigurationError where it cannot prove itself to web."""
    files = DataDir(settings.data_dir)
    try:
        credential = Secret(files.worker_credential.read_text(encoding="utf-8").strip())
    except OSError as error:
        raise ConfigurationError(
            f"The worker credential {files.worker_credential} cannot be read: {error.strerror}.",
            hint="`taskcred serve` makes it at its first start; or `taskcred admin worker create`.",
        ) from error
    # Under this name web records the attempts it begins; the worker knows its own by it after a crash.
    worker_id, _, secret = credential.reveal().partition(":")
    with store.read() as connection:
        name = workers.find_name(connection, worker_id, Secret(secret))
    if name is None:
        raise ConfigurationError(
            f"The worker credential {files.worker_credential} is not one of this server's, or was ended.",
            hint="Remove the file: the next start makes a new one; or `taskcred admin worker create`.",
        )
    return WorkerSettings(
        name=name,
        credential=credential,
        url=_where_web_is(settings.server),
        ca_file=settings.server.tls_cert,
        data_dir=files.path,
        hidden=tuple(_hidden(settings, files)),
        jobs=settings.jobs,
    )


def _where_web_is(server: Server) -> str:
    """The URL by which the worker and its jobs reach web. Without TLS of our own that is the socket itself:
    whatever stands before it (a proxy with a certificate only browsers trust, another name) is not asked.
    With it, it is the public URL, whose name is in the certificate."""
    if server.tls_cert is not None:
        return server.public_url
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(server.host, server.host)  # noqa: S104 - compared, not bound
    return f"http://[{host}]:{server.port}" if ":" in host else f"http://{host}:{server.port}"


def _hidden(settings: Settings, files: DataDir) -> list[Path]:
    """What no job may see, wherever the operator put it."""
    named = (
        settings.vault.master_key_file,
        settings.vault.openbao.secret_id_file,
        settings.vault.openbao.token_file,
        settings.database.password_file,
        settings.server.tls_key,
        settings.notices.smtp_password_file,
        settings.notices.webhook_secret_file,
    )
    return [files.path, directory_of(settings), *(path for path in named if path is not None)]
