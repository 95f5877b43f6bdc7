"""What every page stands in: who is here, CSRF, headers, messages, errors as pages."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Callable
from datetime import timedelta
from functools import cache, wraps
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final, ParamSpec
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo

import structlog
from flask import Blueprint, current_app, flash, make_response, redirect, render_template, request
from flask.typing import ResponseReturnValue
from flask_wtf.csrf import generate_csrf
from werkzeug.wrappers import Response

from taskcred.domain.permissions import FRESH_FOR, Principal
from taskcred.errors import ForbiddenError, TaskcredError
from taskcred.http.authentication import context as ctx
from taskcred.http.authentication import current_principal
from taskcred.http.csrf import require_csrf_token
from taskcred.http.problems import request_id, status_of
from taskcred.http.safe_return import sign_in_path
from taskcred.services import registry
from taskcred.web import acting, words
from taskcred.web.accounts import AccountBook, Choices

log = structlog.get_logger("web")

ACCOUNTS: Final = "taskcred.accounts"  # the app's AccountBook, among its extensions
_HERE: Final = Path(__file__).parent
blueprint: Final = Blueprint(
    "pages", __name__, template_folder="templates", static_folder="static", static_url_path="/assets"
)

# A form that needs a recent sign-in is opened only while there is time left to fill it in.
_TIME_TO_FILL_IN: Final = timedelta(minutes=5)

# Where errors send people, by the name of the page.
_PLACES: Final = (
    ("/sign-in", "Sign in"),
    ("/profile/api-key/create", "Create key"),
    ("/profile", "User API key"),
    ("/prompts", "Answer"),
    ("/runs", "Runs"),
)

P = ParamSpec("P")
View = Callable[P, ResponseReturnValue]

_OPEN_TO_ALL: Final = {"pages.static"}


def signed_out_too(view: View[P]) -> View[P]:
    """Mark a view that people who are not signed in may see."""
    _OPEN_TO_ALL.add(f"pages.{getattr(view, '__name__', '')}")
    return view


def me() -> Principal:
    """The signed-in person; only in views that are not `signed_out_too`."""
    principal = current_principal()
    if principal is None:
        raise ForbiddenError("You are not signed in.", hint="Sign in again.")
    return principal


def choices() -> Choices:
    """Where and as whom the signed-in person may go on."""
    book: AccountBook = current_app.extensions[ACCOUNTS]
    return book.of(me())


@blueprint.before_request
def _enter() -> ResponseReturnValue | None:
    """Only page sessions get in (a bearer token is for the API), and forms must be ours."""
    if request.endpoint == "pages.static":
        return None
    if current_principal() is None and request.endpoint not in _OPEN_TO_ALL:
        if request.method == "GET":
            return _to_sign_in(fresh=False)
        return problem_page(
            401,
            "You are not signed in any more",
            "Nothing was changed.",
            action=(sign_in_path(request.path), "Sign in"),
        )
    if request.method == "POST":
        require_csrf_token()
    return None


@blueprint.after_request
def _keep_assets(response: Response) -> Response:
    """The address of a static file carries its content's digest; all else has the app's headers."""
    if request.endpoint == "pages.static":
        response.headers["Cache-Control"] = "public, max-age=31536000, immutable"
    return response


@blueprint.errorhandler(TaskcredError)
def _error_page(error: TaskcredError) -> ResponseReturnValue:
    """The error tree as a page: what happened, the cure, one link to it."""
    status = status_of(error)
    match error.error_code:
        case "fresh_sign_in_required":
            # A link and no redirect, so that nobody believes their form was taken.
            return problem_page(
                status,
                "Please sign in again",
                "Your last sign-in is more than 15 minutes old, and changing keys needs a fresh one. "
                "Nothing was changed.",
                action=(sign_in_path(request.full_path.rstrip("?"), fresh=True), "Sign in again"),
            )
        case "csrf_token_required":
            return problem_page(
                status,
                "This form can no longer be used",
                "It is from an earlier sign-in, or not from one of our pages. Nothing was changed.",
                action=(request.full_path.rstrip("?"), "Open the form again"),
            )
    if status >= 500 and error.retry == "never":
        log.error("failed", code=error.error_code, exc_info=error)
        return _bug_page()
    if status == 404 and request.method == "GET":
        page = _act_first()
        if page is not None:
            return page, status
    # The service's hint for this names a command and an API route.
    hint = "It may be gone, or be in another account of yours." if status == 404 else error.hint
    return problem_page(status, error.message, hint, action=_action(error.action_url))


def _act_first() -> str | None:
    """The way to a page that its reader may see, though not as who they are now."""
    principal = current_principal()
    if principal is None:
        return None
    offer = acting.offer(ctx(), principal, choices(), request.view_args or {})
    if offer is None:
        return None
    title = f"This belongs to the service id {offer.name}" if offer.name else "This belongs to you"
    return render("act_first.html", title=title, offer=offer)


@blueprint.errorhandler(500)
def _bug(error: Exception) -> ResponseReturnValue:
    # Its text may hold anything, so only the log gets it, and redacted.
    cause = getattr(error, "original_exception", None) or error
    log.error("bug", kind=type(cause).__name__, exc_info=cause)
    return _bug_page()


def _bug_page() -> ResponseReturnValue:
    return problem_page(
        500, "Something went wrong on our side", f"Tell the operator this request's id: {request_id()}."
    )


@blueprint.after_app_request
def _problem_for_browsers(response: Response) -> Response:
    """A problem that a browser met outside the API (an unknown address, a sign-in that failed) as a page."""
    if response.mimetype != "application/problem+json" or request.path.startswith(("/v1/", "/identity/")):
        return response
    if not request.accept_mimetypes.accept_html or request.accept_mimetypes.best == "*/*":
        return response
    problem = response.get_json()
    hint = "Follow a link from here." if response.status_code == 404 else str(problem["hint"])
    action = _action(problem.get("action_url"))
    return make_response(problem_page(response.status_code, str(problem["detail"]), hint, action=action))


def _action(url: str | None) -> tuple[str, str] | None:
    """Where an error says one can act, with the name of that page."""
    if not url:
        return None
    path = urlsplit(url).path
    return url, next((name for prefix, name in _PLACES if path.startswith(prefix)), "Go on")


def problem_page(
    status: int, title: str, text: str = "", *, action: tuple[str, str] | None = None
) -> ResponseReturnValue:
    """A page that says what went wrong and where to go on; `action` is (address, words)."""
    kind = f"{status} {HTTPStatus(status).phrase}"
    return render("problem.html", kind=kind, title=title, text=text, action=action), status


def fresh(view: View[P]) -> View[P]:
    """Open this form only after a recent sign-in; the service checks again when it is sent."""

    @wraps(view)
    def checked(*args: P.args, **kwargs: P.kwargs) -> ResponseReturnValue:
        signed_in_at = me().auth_time
        oldest = ctx().clock.now() - (FRESH_FOR - _TIME_TO_FILL_IN)
        if request.method == "GET" and (signed_in_at is None or signed_in_at < oldest):
            return _to_sign_in(fresh=True)
        return view(*args, **kwargs)

    return checked


def _to_sign_in(*, fresh: bool) -> Response:
    return redirect(sign_in_path(request.full_path.rstrip("?"), fresh=fresh), 303)


def go(path: str) -> Response:
    """After a change: to a page that can be reloaded (303)."""
    return redirect(path, 303)


def say(text: str, tone: words.Tone = "good") -> None:
    """A message for the next page."""
    flash(text, tone)


def render(template: str, **values: Any) -> str:
    """A template with what all pages need."""
    principal = current_principal()
    return render_template(
        template,
        me=principal,
        choices=choices() if principal else None,
        administers=bool(principal and registry.looks_after_any(ctx(), principal)),
        csrf_token=generate_csrf,
        asset=_asset,
        now=ctx().clock.now(),
        words=words,
        here=request.path,
        address=request.full_path.rstrip("?"),
        tasks=ctx().tasks,
        new_id=uuid.uuid4,
        zone_of=ZoneInfo,
        **values,
    )


def fragment(template: str, **values: Any) -> Response:
    """A part of a page for polling, with an ETag: 304 while nothing in it changed."""
    response = make_response(render(template, **values))
    response.add_etag()
    return response.make_conditional(request)


@cache
def _asset(name: str) -> str:
    """Address of a static file; changes with its content."""
    digest = hashlib.sha256((_HERE / "static" / name).read_bytes()).hexdigest()[:12]
    return f"/assets/{name}?v={digest}"
