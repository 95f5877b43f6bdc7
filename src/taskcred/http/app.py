"""Putting the app together: routes, the door before them, headers after them, /openapi.json."""

from __future__ import annotations

import re
import time
import uuid
from collections.abc import Callable
from typing import Final

import structlog
from flask import Flask, Response, current_app, g, jsonify, request
from flask_openapi3 import Info, OpenAPI

from taskcred import __version__
from taskcred.domain.secret import Secret
from taskcred.http import (
    access,
    audit,
    csrf,
    events,
    executions,
    grants,
    health,
    problems,
    prompts,
    runs,
    schedules,
    services,
    sign_in,
    task_credentials,
    tasks,
)
from taskcred.http.authentication import ISSUERS, enter
from taskcred.http.metrics import Metrics
from taskcred.http.operations import PERMISSIONS, SECURITY_SCHEMES
from taskcred.http.reading import StrictRequest, refuse_invalid, refuse_oversized
from taskcred.identity.federation import WorkloadIssuers
from taskcred.services.broker import TokenBroker
from taskcred.services.context import Context

log = structlog.get_logger("http")

_APIS: Final = (
    task_credentials,
    tasks,
    runs,
    executions,
    schedules,
    prompts,
    grants,
    access,
    services,
    events,
    audit,
)
_SELF: Final = "'self'"
_REQUEST_ID: Final = re.compile(r"[A-Za-z0-9._-]{8,64}")


def create_app(
    ctx: Context,
    broker: TokenBroker,
    *,
    secret_key: Secret,
    cookie_secure: bool,
    provider_origin: str = "",
) -> OpenAPI:
    """The REST API and the sign-in as one Flask app, to which pages are added as blueprints.

    `broker` is this process's, of which health and metrics tell; tokens are handed out in front of this app.
    `secret_key` signs cookies and is the same in every process. `cookie_secure` where users reach us by
    https. `provider_origin` is where sign-in pages are, if not here.
    """
    app = OpenAPI(
        "taskcred.http",
        info=Info(title="taskcred", version=__version__),
        security_schemes=SECURITY_SCHEMES,
        doc_ui=False,
        validation_error_status=400,
        validation_error_model=problems.Problem,
        validation_error_callback=refuse_invalid,
        static_folder=None,
    )
    app.request_class = StrictRequest
    app.extensions["taskcred"] = ctx
    app.extensions[ISSUERS] = WorkloadIssuers(ctx.clock)
    app.extensions["taskcred.health"] = health.Health(ctx, broker)
    app.extensions["taskcred.metrics"] = Metrics(ctx, broker)
    app.config.update(
        # Flask signs its cookie with it.
        SECRET_KEY=secret_key.reveal(),
        # With the prefix a browser takes the cookie from this host over https only (RFC 6265bis, 4.1.3.2).
        SESSION_COOKIE_NAME="__Host-taskcred" if cookie_secure else "taskcred",
        SESSION_COOKIE_SECURE=cookie_secure,
        SESSION_COOKIE_HTTPONLY=True,
        SESSION_COOKIE_SAMESITE="Lax",
    )
    csrf.install(app)
    problems.install(app)
    app.before_request(_begin)
    app.after_request(_headers(provider_origin))
    app.after_request(_account)
    app.teardown_request(_forget)
    for module in _APIS:
        app.register_api(module.api)
    for blueprint in (sign_in.blueprint, health.blueprint):
        app.register_blueprint(blueprint)
    app.add_url_rule("/openapi.json", "openapi", _document, provide_automatic_options=False)
    _verify_door(app)
    return app


def _begin() -> None:
    """Before anything else: an id, a limit, and for the API the door."""
    given = request.headers.get("X-Request-Id", "")
    g.request_id = given if _REQUEST_ID.fullmatch(given) else str(uuid.uuid4())
    g.begun = time.perf_counter()
    structlog.contextvars.bind_contextvars(request_id=g.request_id)
    refuse_oversized(request)
    permission = PERMISSIONS.get(request.endpoint or "")
    if permission is not None:
        enter(permission)


def _headers(provider_origin: str) -> Callable[[Response], Response]:
    """Headers that every answer carries unless its route set its own."""
    policy = (
        "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; connect-src 'self'; "
        "form-action {}; frame-ancestors 'none'; base-uri 'none'"
    )
    fixed = {
        "X-Content-Type-Options": "nosniff",
        # Same-origin requests keep their Referer; nobody else learns where our users were.
        "Referrer-Policy": "same-origin",
        "Cross-Origin-Opener-Policy": "same-origin",
        "Cross-Origin-Resource-Policy": "same-origin",
        "Cache-Control": "no-store",
    }

    def add(response: Response) -> Response:
        for name, value in fixed.items():
            response.headers.setdefault(name, value)
        # Browsers hold a form's redirect to this, too: a page that leads elsewhere names the origin in `g`.
        targets = " ".join(filter(None, (_SELF, provider_origin, g.get("form_leads_to"))))
        response.headers.setdefault("Content-Security-Policy", policy.format(targets))
        response.headers["X-Request-Id"] = problems.request_id()
        return response

    return add


def _account(response: Response) -> Response:
    """Count and log the request; never its query string, which may hold what IBM's clients put there."""
    # Not the path: ids would make a series each.
    route = request.url_rule.rule if request.url_rule else "none"
    metrics: Metrics = current_app.extensions["taskcred.metrics"]
    metrics.count(request.method, route, response.status_code)
    write = log.debug if request.blueprint == "health" else log.info
    write(
        "request",
        method=request.method,
        path=request.path,
        status=response.status_code,
        ms=round((time.perf_counter() - g.begun) * 1000, 1),
    )
    return response


def _forget(_error: BaseException | None) -> None:
    structlog.contextvars.unbind_contextvars("request_id")


def _document() -> Response:
    """The OpenAPI document, made from the models that requests are read with."""
    app = current_app
    assert isinstance(app, OpenAPI)  # noqa: S101 - tells the type checker what create_app made
    document = app.api_doc
    schema = problems.IbmErrors.model_json_schema(ref_template="#/components/schemas/{model}")
    for name, definition in schema.pop("$defs").items():
        document["components"]["schemas"][name] = definition
    document["components"]["schemas"]["IbmErrors"] = schema
    return jsonify(document)


def _verify_door(app: Flask) -> None:
    """A route under /v1 without a permission would be open: refuse to start with one."""
    for rule in app.url_map.iter_rules():
        if rule.rule.startswith("/v1/") and rule.endpoint not in PERMISSIONS:
            raise AssertionError(f"{rule.rule} names no permission")
