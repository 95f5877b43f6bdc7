"""`taskcred serve`: prepare the data directory, open the socket, supervise the roles."""

from __future__ import annotations

import gc
import json
import os
from pathlib import Path

import structlog

from taskcred import __version__, logs
from taskcred.config import Settings
from taskcred.data_dir import DataDir, lock, write_private
from taskcred.roles.forked import Command, ForkedProcess
from taskcred.roles.supervisor import Role, Supervisor, listen
from taskcred.wiring import prepare as _prepare  # noqa: F401 - loaded once, for the forks

log = structlog.get_logger("serve")


def serve(settings: Settings, config_file: Path | None, command: Command) -> None:
    """Serve until stopped. `command` carries out a command line of ours in a fork: preparing, web, keeper.

    Raises ConfigurationError, or SystemExit with the code of a preparation that failed and said why, before
    anything is started.
    """
    logs.configure(settings.log, "supervisor")
    files = DataDir(settings.data_dir.resolve())
    files.make()
    if settings.vault.kind == "openbao":
        from taskcred.wiring import openbao as _openbao  # noqa: F401 - loaded once, for the forks, where chosen
    held = lock(files.serve_lock, "taskcred serve")
    listener = listen(settings.server.host, settings.server.port)
    settings = _with_public_url(settings, listener.getsockname()[1])
    os.environ.update(_for_roles(settings, files, config_file))
    # What opens the vault does so in a fork, so that this process, of which others are forked, never had its keys.
    preparation = ForkedProcess(command, ("prepare",), {}, [listener.fileno(), held])
    _load_roles()
    if failed := preparation.wait():
        raise SystemExit(failed)
    supervisor = Supervisor(_roles(settings, listener.fileno()), listener, command, [held])
    supervisor.start()
    write_private(files.server, json.dumps({"url": settings.server.public_url, "pid": os.getpid()}))
    log.info("serving", url=settings.server.public_url, version=__version__, data_dir=str(files.path))
    try:
        supervisor.run()
    finally:
        files.server.unlink(missing_ok=True)
        os.close(held)


def _load_roles() -> None:
    """What the forks share, loaded while the data directory is prepared."""
    from taskcred.wiring import keeper, web  # noqa: F401 - loaded once, for the forks

    gc.freeze()
    gc.enable()


def _with_public_url(settings: Settings, port: int) -> Settings:
    server = settings.server
    scheme = "https" if server.tls_cert else "http"
    host = f"[{server.host}]" if ":" in server.host else server.host
    url = (server.public_url or f"{scheme}://{host}:{port}").rstrip("/")
    return settings.model_copy(update={"server": server.model_copy(update={"public_url": url, "port": port})})


def _for_roles(settings: Settings, files: DataDir, config_file: Path | None) -> dict[str, str]:
    """What the command line said, handed down by environment; the rest each role reads for itself, so that a
    replaced one sees a changed file."""
    server = settings.server
    said = {
        "TASKCRED_DATA_DIR": files.path,
        "TASKCRED_CONFIG": config_file and config_file.resolve(),
        "TASKCRED_SERVER__HOST": server.host,
        "TASKCRED_SERVER__PORT": server.port,
        "TASKCRED_SERVER__PUBLIC_URL": server.public_url,
        "TASKCRED_SERVER__TLS_CERT": server.tls_cert and server.tls_cert.resolve(),
        "TASKCRED_SERVER__TLS_KEY": server.tls_key and server.tls_key.resolve(),
    }
    return {name: str(value) for name, value in said.items() if value}


def _roles(settings: Settings, fd: int) -> list[Role]:
    web = [
        Role("web", ("web", "--socket", str(fd), "--number", str(number)), forkable=True)
        for number in range(settings.server.processes)
    ]
    return [*web, Role("keeper", ("keeper",), forkable=True), Role("worker", ("worker",), essential=False)]
