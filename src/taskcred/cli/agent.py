"""`agent`: a pod's credentials, kept in files beside its main container."""

from __future__ import annotations

import logging
import signal
import sys
import threading
from pathlib import Path
from typing import Annotated

import typer

from taskcred.cli import parameters
from taskcred.cli.options import Parameters


def agent(
    task: Annotated[str, typer.Option("--task", metavar="NAME", help="The task of the catalogue.")],
    grant: Annotated[str, typer.Option("--grant", metavar="ID", help="The grant of the run's owner.")],
    key: Annotated[
        str,
        typer.Option(
            "--key",
            metavar="TEXT",
            help="What this piece of work is called; an agent that is started again finds its run by it.",
        ),
    ],
    directory: Annotated[
        Path, typer.Option("--directory", metavar="DIR", help="Where the files are kept.")
    ] = Path("/run/taskcred"),
    values: Parameters = None,
    reference: Annotated[
        str, typer.Option("--reference", metavar="TEXT", help="What people read at the run.")
    ] = "",
    address: Annotated[
        list[str] | None,
        typer.Option(
            "--address",
            metavar="NETWORK",
            help="Where the stand-in key may be used from, as the server sees it; repeat for more.",
        ),
    ] = None,
    health_port: Annotated[
        int | None,
        typer.Option("--health-port", metavar="PORT", help="Answer GET /ready here, for a startup probe."),
    ] = None,
) -> None:
    """Keep a pod's credentials in files. Begins an attempt, keeps its token and stand-in key fresh while the main container works, and ends it."""
    from taskcred.adapters.attempts import Job
    from taskcred.adapters.kubernetes.agent import Agent, Work
    from taskcred.adapters.kubernetes.files import SharedFiles
    from taskcred.adapters.kubernetes.health import HealthServer
    from taskcred.client import Client

    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)  # a line for each look at the server
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    with Client() as client:
        work = Work(
            Job(key, task, grant, parameters.read(values or [], {}), reference),
            addresses=address or [],
        )
        own = Agent(client, work, SharedFiles(directory), stop)
        if health_port is not None:
            HealthServer(own, health_port).start()
        own.run()


def add_to(app: typer.Typer) -> None:
    """Hang the command into the tree."""
    app.command()(agent)
