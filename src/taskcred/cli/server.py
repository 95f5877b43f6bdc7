"""`serve`, and each role by itself."""

from __future__ import annotations

import gc
from pathlib import Path
from typing import Annotated

import typer

from taskcred.cli import local
from taskcred.cli.options import ConfigFile, DataDir
from taskcred.errors import InvalidRequestError


def serve(
    data_dir: DataDir = None,
    config: ConfigFile = None,
    host: Annotated[str | None, typer.Option("--host", help="Address to listen on.")] = None,
    port: Annotated[
        int | None, typer.Option("--port", min=0, max=65535, help="Port to listen on; 0 takes a free one.")
    ] = None,
    tls_cert: Annotated[
        Path | None, typer.Option("--tls-cert", metavar="FILE", help="PEM file of the certificate chain.")
    ] = None,
    tls_key: Annotated[
        Path | None, typer.Option("--tls-key", metavar="FILE", help="PEM file of the certificate's key.")
    ] = None,
    tls_self_signed: Annotated[
        bool, typer.Option("--tls-self-signed", help="Make a certificate for a local try of https.")
    ] = False,
    public_url: Annotated[
        str | None,
        typer.Option("--public-url", metavar="URL", help="The URL under which users reach the server."),
    ] = None,
) -> None:
    """Run everything: pages, REST, tokens, keeper and worker. SIGHUP replaces web and keeper."""
    if tls_self_signed and (tls_cert or tls_key):
        raise InvalidRequestError(
            "--tls-self-signed and --tls-cert exclude each other.",
            hint="Give a certificate, or have one made.",
        )
    said = {"host": host, "port": port, "tls_cert": tls_cert, "tls_key": tls_key, "public_url": public_url}
    settings = local.settings(config, data_dir, server=said)
    if tls_self_signed:
        from taskcred.data_dir import DataDir as Files
        from taskcred.roles.certificates import self_signed

        files = Files(settings.data_dir)
        files.make()
        tls = self_signed(files.tls, settings.server.host)
        said |= {"tls_cert": tls.certificate, "tls_key": tls.key}
        settings = local.settings(config, data_dir, server=said)
    gc.disable()  # all that is loaded now stays: searching it for garbage again and again only slows the start
    from taskcred.cli.app import run
    from taskcred.wiring import serve as wiring

    wiring.serve(settings, config, lambda arguments: run(list(arguments)))


def prepare() -> None:
    """Make or bring up to date what a start needs."""
    from taskcred.wiring import prepare as wiring

    wiring.prepare(local.settings(None, None))


def worker(data_dir: DataDir = None, config: ConfigFile = None) -> None:
    """Run jobs. `serve` starts one by itself; this is for a worker on its own."""
    from taskcred.wiring import worker as wiring

    wiring.run(local.settings(config, data_dir))


def keeper(data_dir: DataDir = None, config: ConfigFile = None) -> None:
    """Advance intents, schedules, notices. One keeper is active, others stand by."""
    from taskcred.wiring import keeper as wiring

    wiring.run(local.settings(config, data_dir))


def web(
    socket: Annotated[int, typer.Option("--socket", help="Descriptor of the listening socket.")],
    number: Annotated[int, typer.Option("--number", help="Which of the web processes, from 0.")] = 0,
    data_dir: DataDir = None,
    config: ConfigFile = None,
) -> None:
    """Answer requests on a socket that the supervisor opened."""
    from taskcred.wiring import web as wiring

    wiring.run(local.settings(config, data_dir), socket, number)


def add_to(app: typer.Typer) -> None:
    """Hang the commands into the tree."""
    app.command()(serve)
    app.command()(worker)
    app.command()(keeper)
    app.command(hidden=True)(web)
    app.command(hidden=True)(prepare)
