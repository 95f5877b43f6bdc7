"""Checks of the settings: whether they fit together and name what is there."""

from __future__ import annotations

import os
import ssl
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import urlsplit

from taskcred.config import Settings
from taskcred.doctor.check import Check
from taskcred.errors import TaskcredError
from taskcred.jobs import catalogue
from taskcred.revocations import directory_of


def configuration(settings: Settings) -> list[Check]:
    """What can be wrong with settings that are well-formed. Empty lists do not exist: the last word is ok."""
    found = [*_addresses(settings), *_named_files(settings), *_directories(settings), *_tasks(settings)]
    return found or [Check("configuration", "ok", "The settings fit together.")]


def _addresses(settings: Settings) -> Iterator[Check]:
    server = settings.server
    if server.public_url:
        parts = urlsplit(server.public_url)
        if parts.scheme not in {"http", "https"} or not parts.hostname or parts.query or parts.fragment:
            yield Check(
                "public URL",
                "failed",
                f"{server.public_url!r} is no URL.",
                "Write https://name, without a path.",
            )
            return
    url = urlsplit(
        server.public_url or f"{'https' if server.tls_cert else 'http'}://{_bracketed(server.host)}"
    )
    if url.scheme == "http" and not _is_loopback(url.hostname or ""):
        yield Check(
            "public URL",
            "warning",
            "Users reach the server over http: passwords and tokens cross the network in the clear.",
            "Set server.tls_cert and server.tls_key, or an https server.public_url behind a proxy.",
        )
    vault = urlsplit(settings.vault.openbao.address)
    if settings.vault.kind == "openbao" and vault.scheme == "http" and not _is_loopback(vault.hostname or ""):
        yield Check(
            "vault.openbao.address",
            "warning",
            "The vault is reached over http: keys cross the network in the clear.",
            "Give the vault a certificate and write an https address; vault.openbao.ca_file names its authority.",
        )


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _named_files(settings: Settings) -> Iterator[Check]:
    """Files that settings name: there, readable, and closed to others where they hold a secret."""
    named = [
        ("server.tls_cert", settings.server.tls_cert, False),
        ("server.tls_key", settings.server.tls_key, True),
        ("vault.master_key_file", settings.vault.master_key_file, True),
        *_files_of_openbao(settings),
        ("notices.smtp_password_file", settings.notices.smtp_password_file, True),
        ("notices.webhook_secret_file", settings.notices.webhook_secret_file, True),
    ]
    for setting, path, is_secret in named:
        if path is None:
            continue
        if not os.access(path, os.R_OK):
            yield Check(
                setting, "failed", f"{path} cannot be read.", "Put the file there, or correct the setting."
            )
        elif is_secret and path.stat().st_mode & 0o007:
            yield Check(
                setting, "failed", f"{path} is open to every user of this machine.", f"chmod 600 {path}"
            )
    if settings.server.tls_cert and settings.server.tls_key:
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(
                settings.server.tls_cert, settings.server.tls_key
            )
        except (OSError, ssl.SSLError):  # OSError: said above
            yield Check(
                "server.tls_key",
                "failed",
                "Certificate and key do not belong together.",
                "Name those of one pair.",
            )


def _files_of_openbao(settings: Settings) -> Iterator[tuple[str, Path | None, bool]]:
    """Those that the chosen login reads. Kubernetes lets everybody in the pod read its token."""
    if settings.vault.kind != "openbao":
        return
    openbao = settings.vault.openbao
    yield "vault.openbao.ca_file", openbao.ca_file, False
    match openbao.login:
        case "approle":
            yield "vault.openbao.secret_id_file", openbao.secret_id_file, True
        case "kubernetes":
            yield "vault.openbao.jwt_file", openbao.jwt_file, False
        case "token":
            yield "vault.openbao.token_file", openbao.token_file, True


def _directories(settings: Settings) -> Iterator[Check]:
    log = directory_of(settings).absolute()
    if log.is_relative_to(settings.data_dir):
        yield Check(
            "revocations_dir",
            "failed",
            f"The revocation log {log} lies in the data directory, and so in its backups.",
            "Name a directory outside it: a restored backup must not restore the log.",
        )
    for path in settings.jobs.readable:
        if settings.data_dir.is_relative_to(path) or path.is_relative_to(settings.data_dir):
            yield Check(
                "jobs.readable",
                "failed",
                f"{path} would show jobs the data directory.",
                "Name narrower directories; jobs must not see where credentials lie.",
            )
        elif not path.exists():
            yield Check(
                "jobs.readable", "warning", f"{path} does not exist.", "Make it, or remove it from the list."
            )


def _tasks(settings: Settings) -> Iterator[Check]:
    try:
        tasks = catalogue.load_tasks(settings.tasks, settings.jobs.http_allow)
    except TaskcredError as error:
        yield Check("tasks", "failed", error.message, error.hint)
        return
    if set(tasks) <= {catalogue.EXEC}:
        yield Check(
            "tasks",
            "warning",
            "The catalogue is empty: users can run nothing but `taskcred exec`.",
            "Add [tasks.NAME] tables.",
        )
