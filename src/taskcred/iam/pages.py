"""What every page of the local IAM shares: its headers, its cookies, and the defence of its forms.

The pages need no script. A form is accepted when the browser says it comes from here (`Origin`) and its
hidden token equals the one in a cookie that only we could have set.
"""

from __future__ import annotations

import hmac
from typing import Any, Final
from urllib.parse import urlsplit

import werkzeug
from flask import Request, Response, make_response, render_template, request

from taskcred.domain.secret import Secret
from taskcred.errors import ForbiddenError
from taskcred.iam.signins import new_value

COOKIE_PATH: Final = "/identity"
MAX_VALUE: Final = 256


class Pages:
    """Renders pages and keeps cookies for one issuer."""

    def __init__(self, issuer: str) -> None:
        parts = urlsplit(issuer)
        self.origin: Final = f"{parts.scheme}://{parts.netloc}"
        self._is_secure: Final = parts.scheme == "https"
        prefix = "__Secure-" if self._is_secure else ""
        self._sign_in_cookie: Final = f"{prefix}taskcred_sign_in"
        self._form_cookie: Final = f"{prefix}taskcred_form"

    def render(self, template: str, status: int = 200, *, form_target: str = "", **values: Any) -> Response:
        """A page. `form_target` is an origin its form may lead to besides ours: browsers apply
        form-action to the redirect that follows, too."""
        token = self._form_token(request) or new_value().reveal()
        response = make_response(render_template(template, form_token=token, **values), status)
        self._set(response, self._form_cookie, token)
        targets = f"'self' {form_target}".strip()
        response.headers["Content-Security-Policy"] = (
            "default-src 'none'; style-src 'self'; img-src 'self'; base-uri 'none'; "
            f"frame-ancestors 'none'; form-action {targets}"
        )
        response.headers["X-Frame-Options"] = "DENY"
        # Not no-referrer: browsers would then send `Origin: null` with our own forms.
        response.headers["Referrer-Policy"] = "same-origin"
        return response

    def verify_form(self, request: Request) -> None:
        """Raise ForbiddenError where a form was not sent from a page of ours."""
        origin = request.headers.get("Origin")
        expected = self._form_token(request)
        given = request.form.get("form_token", "")
        if (
            (origin is not None and origin != self.origin)
            or not expected
            or not hmac.compare_digest(given.encode("utf-8", "surrogatepass"), expected.encode())
        ):
            raise ForbiddenError(
                "This form is too old, or did not come from this page.",
                hint=f"Open the page again at {self.origin} and make sure that cookies are allowed.",
                code="form_refused",
            )

    def sign_in_value(self, request: Request) -> Secret | None:
        """The browser's sign-in, unchecked."""
        raw = request.cookies.get(self._sign_in_cookie, "")
        return Secret(raw) if 0 < len(raw) <= MAX_VALUE else None

    def set_sign_in(self, response: werkzeug.Response, value: Secret) -> None:
        """Let the browser keep its sign-in, until it is closed."""
        self._set(response, self._sign_in_cookie, value.reveal())

    def forget_sign_in(self, response: Response) -> None:
        """Take the sign-in from the browser."""
        response.delete_cookie(
            self._sign_in_cookie, path=COOKIE_PATH, secure=self._is_secure, httponly=True, samesite="Lax"
        )

    def _form_token(self, request: Request) -> str:
        raw = request.cookies.get(self._form_cookie, "")
        return raw if 32 <= len(raw) <= MAX_VALUE and raw.isascii() else ""

    def _set(self, response: werkzeug.Response, name: str, value: str) -> None:
        response.set_cookie(
            name, value, path=COOKIE_PATH, secure=self._is_secure, httponly=True, samesite="Lax"
        )
