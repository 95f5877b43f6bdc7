"""Forged requests: what a browser sends by itself (the session's cookie) is not enough to change anything."""

from __future__ import annotations

from flask import Flask, request
from flask_wtf.csrf import CSRFProtect, ValidationError, validate_csrf

from taskcred.errors import ForbiddenError


def install(app: Flask) -> None:
    """Give templates `csrf_token()`. What is checked, and where, is said by `require_csrf_token` (the API)
    and by the pages' own door: a bearer token is sent on purpose and needs no second proof."""
    app.config["WTF_CSRF_CHECK_DEFAULT"] = False
    # A token is good as long as the session it is bound to.
    app.config["WTF_CSRF_TIME_LIMIT"] = None
    CSRFProtect(app)


def require_csrf_token() -> None:
    """Refuse a request that carries neither the header X-CSRF-Token nor the form field csrf_token."""
    try:
        validate_csrf(request.headers.get("X-CSRF-Token") or request.form.get("csrf_token"))
    except ValidationError:
        raise ForbiddenError(
            "This did not come from one of our pages, or the page is from an earlier sign-in.",
            hint="Load the page again and repeat this; programs send a bearer token instead of a cookie.",
            code="csrf_token_required",
        ) from None
