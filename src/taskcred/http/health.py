"""/healthz, /readyz, /metrics: for supervisors, load balancers and Prometheus; open to all, no secrets.

`/healthz` says that the process answers. `/readyz` looks at each part. A vault or identity provider that
is away makes the server degraded, not unready: running jobs go on with cached tokens (never-interrupted),
and taking every web process out of a load balancer would cut them off. A process that no longer hears what is
taken away is unready: it soon gives out no tokens (at-once), and where others still hear, they answer better.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Final

from flask import Blueprint, Response, current_app, jsonify
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from taskcred.errors import OutOfTouchError, TaskcredError
from taskcred.http.metrics import Metrics
from taskcred.ports import Clock
from taskcred.services.broker import TokenBroker
from taskcred.services.context import Context

blueprint: Final = Blueprint("health", __name__)

_KEEP: Final = 2.0  # seconds: asking us often must not mean asking the vault often


class Health:
    """The parts' states, asked for at most every two seconds."""

    def __init__(self, ctx: Context, broker: TokenBroker) -> None:
        self._clock: Final[Clock] = ctx.clock
        self._parts: Final[dict[str, Callable[[], None]]] = {
            "records": lambda: _read(ctx),
            "tokens": lambda: _verify_in_touch(broker),
            "vault": ctx.vault.check,
            "identity_provider": ctx.provider.check,
        }
        self._lock: Final = threading.Lock()
        self._known: tuple[float, dict[str, str]] | None = None

    def states(self) -> dict[str, str]:
        """Part -> "ok" or the code of what is wrong with it."""
        with self._lock:
            now = self._clock.monotonic()
            if self._known is None or now - self._known[0] >= _KEEP:
                self._known = (now, {name: _state(check) for name, check in self._parts.items()})
            return self._known[1]


def _read(ctx: Context) -> None:
    with ctx.store.read() as connection:
        connection.exec_driver_sql("SELECT 1")


def _verify_in_touch(broker: TokenBroker) -> None:
    if not broker.is_in_touch:
        raise OutOfTouchError("This process has not heard lately what was taken away.")


def _state(check: Callable[[], None]) -> str:
    try:
        check()
    except TaskcredError as error:
        return error.error_code
    return "ok"


@blueprint.get("/healthz", provide_automatic_options=False)
def healthz() -> Response:
    """The process answers."""
    return jsonify({"status": "ok"})


@blueprint.get("/readyz", provide_automatic_options=False)
def readyz() -> Response:
    """Whether requests can be answered, and what is away."""
    health: Health = current_app.extensions["taskcred.health"]
    states = health.states()
    ready = states["records"] == states["tokens"] == "ok"
    word = "ready" if set(states.values()) == {"ok"} else "degraded" if ready else "not_ready"
    response = jsonify({"status": word, "parts": states})
    response.status_code = 200 if ready else 503
    return response


@blueprint.get("/metrics", provide_automatic_options=False)
def metrics() -> Response:
    """Prometheus' text format."""
    held: Metrics = current_app.extensions["taskcred.metrics"]
    return Response(generate_latest(held.registry), content_type=CONTENT_TYPE_LATEST)
