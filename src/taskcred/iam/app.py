"""The local IAM's own WSGI application: `/identity/*`, `/v1/apikeys*`, `/v1/serviceids*`, `/v1/accounts`.

It is mounted beside the rest and never calls back; the rest talks to it over HTTP only.
"""

from __future__ import annotations

import logging

from flask import Flask, Response
from werkzeug.exceptions import HTTPException

from taskcred.errors import TaskcredError
from taskcred.iam import errors
from taskcred.iam.acting_routes import routes as acting_routes
from taskcred.iam.apikey_routes import routes as apikey_routes
from taskcred.iam.device_routes import routes as device_routes
from taskcred.iam.fields import MAX_BODY
from taskcred.iam.service import LocalIam
from taskcred.iam.serviceid_routes import routes as serviceid_routes
from taskcred.iam.sign_in_routes import routes as sign_in_routes
from taskcred.iam.token_routes import routes as token_routes

_log = logging.getLogger(__name__)


def create_app(iam: LocalIam) -> Flask:
    """The application over one local IAM."""
    app = Flask(__name__, static_url_path="/identity/static")
    app.config["MAX_CONTENT_LENGTH"] = MAX_BODY
    app.config["MAX_FORM_MEMORY_SIZE"] = MAX_BODY
    app.json.sort_keys = False  # type: ignore[attr-defined]  # the default provider has it
    app.url_map.strict_slashes = False  # IBM's SDK writes /v1/serviceids/, IBM's documentation does not
    app.before_request(errors.begin_request)
    app.after_request(errors.add_headers)

    @app.errorhandler(TaskcredError)
    def refuse(error: TaskcredError) -> Response:
        return errors.answer_error(error)

    @app.errorhandler(HTTPException)
    def refuse_route(error: HTTPException) -> Response:
        return errors.answer_http_exception(error)

    @app.errorhandler(Exception)
    def report_bug(error: Exception) -> Response:
        # The class and the place, never the text: it may hold a secret.
        place = error.__traceback__
        while place is not None and place.tb_next is not None:
            place = place.tb_next
        _log.error(
            "iam_bug error=%s file=%s line=%s",
            type(error).__name__,
            place.tb_frame.f_code.co_filename if place else "",
            place.tb_lineno if place else 0,
        )
        return errors.answer_bug()

    for routes in (
        token_routes,
        sign_in_routes,
        device_routes,
        acting_routes,
        apikey_routes,
        serviceid_routes,
    ):
        app.register_blueprint(routes(iam))
    return app
