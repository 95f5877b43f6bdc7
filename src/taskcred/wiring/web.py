"""Web: pages, REST and the token endpoint in front of one another."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from typing import Final, NamedTuple, cast

from taskcred import logs
from taskcred.config import Settings
from taskcred.http.app import create_app
from taskcred.http.token_endpoint import TokenEndpoint
from taskcred.iam.service import LocalIam
from taskcred.jobs.queue import DbosQueue
from taskcred.roles import lifeline
from taskcred.roles import web as role
from taskcred.roles.listener import Listener, Tls
from taskcred.services.broker import TokenBroker
from taskcred.web import pages
from taskcred.wiring.common import COOKIE_KEY
from taskcred.wiring.trusted import open_trusted
from taskcred.wsgi import Environ, StartResponse, WsgiApp

_IAM_PREFIXES = ("/identity/", "/v1/apikeys", "/v1/serviceids", "/v1/accounts")
_COUNTS: Final = 5.0  # seconds between two writings of how often API keys were used


class Web(NamedTuple):
    """The application, and what needs threads beside it: broker, the local IAM's counts, the run queue."""

    app: WsgiApp
    broker: TokenBroker
    iam: LocalIam
    queue: DbosQueue


def run(settings: Settings, fd: int, number: int) -> None:
    """A web process on the inherited listening socket `fd`; `number` counts from 0 and chooses its core."""
    lifeline.take_name("web")
    role.keep_memory_together()
    if settings.server.pin:
        role.pin_to_core(number, settings.server.processes)
    logs.configure(settings.log, "web")
    web = build_web(settings)
    server = settings.server
    tls = Tls(server.tls_cert, server.tls_key) if server.tls_cert and server.tls_key else None
    web.broker.start()
    threading.Thread(target=web.queue.load, name="load the engine", daemon=True).start()
    with role.repeating(web.iam.exchange.flush, _COUNTS):
        role.serve(Listener(web.app, fd, threads=server.threads, tls=tls), drain=server.drain.total_seconds())
    web.broker.close()
    web.iam.close()


def build_web(settings: Settings) -> Web:
    """The whole WSGI application of a web process."""
    trusted = open_trusted(settings)
    ctx = trusted.ctx
    broker = TokenBroker(ctx)
    app = create_app(
        ctx,
        broker,
        secret_key=ctx.vault.open(COOKIE_KEY),
        cookie_secure=settings.server.public_url.startswith("https:"),
    )
    pages.register(app, ctx)
    token = TokenEndpoint(broker, trusted.iam_app)
    return Web(
        _dispatcher(token, trusted.iam_app, app.wsgi_app), broker, trusted.iam, cast("DbosQueue", ctx.queue)
    )


def _dispatcher(token: WsgiApp, iam: WsgiApp, rest: WsgiApp) -> WsgiApp:
    """The token endpoint outside any framework, the local IAM's routes, everything else."""

    def answer(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        path = environ["PATH_INFO"]
        if path == "/identity/token":
            return token(environ, start_response)
        if path.startswith(_IAM_PREFIXES):
            return iam(environ, start_response)
        return rest(environ, start_response)

    return answer
