"""Signing in to the pages: authorization code with PKCE (RFC 6749, RFC 7636), sign-out, account switch.

The sign-in under way is kept in the browser's signed cookie, so a code that arrives in another browser,
or under a state we did not give this one, is refused (RFC 9700, 2.1).
"""

from __future__ import annotations

import base64
import hashlib
import secrets
from typing import Any, Final
from urllib.parse import urlencode, urlsplit

from flask import Blueprint, redirect, request, session
from werkzeug.wrappers import Response

from taskcred.domain.permissions import FRESH_FOR
from taskcred.domain.secret import Secret
from taskcred.errors import (
    ForbiddenError,
    InvalidRequestError,
    InvalidTokenError,
    KeyRefusedError,
    ProviderRefusedError,
)
from taskcred.http.authentication import SESSION_ID, context, current_principal, session_id, visit
from taskcred.http.csrf import require_csrf_token
from taskcred.http.safe_return import safe_return
from taskcred.services import sessions

blueprint: Final = Blueprint("sign_in", __name__)

ACT_FOR_PREFIX: Final = "act-for:"
_PENDING: Final = "pending"
_MOST_PENDING: Final = 4  # tabs that sign in at the same time; the cookie is small
_PENDING_FOR: Final = 600  # seconds
_ROOM: Final = 2048  # characters of addresses to return to; browsers drop a cookie of more than 4096 bytes


@blueprint.get("/sign-in", provide_automatic_options=False)
def begin() -> Response:
    """Lead through the identity provider's page and back to `return_to`; at once where somebody is signed
    in, unless `fresh=1` asks for a new proof of identity."""
    ctx = context()
    return_to = safe_return(request.args.get("return_to"))
    fresh = request.args.get("fresh") == "1"
    home = urlsplit(ctx.public_url)
    if request.host != home.netloc and "moved" not in request.args:
        # The cookie must be set on the host that the provider sends the browser back to. Once: a proxy may
        # give us another name than the one that users see.
        query = urlencode({"return_to": return_to, **({"fresh": "1"} if fresh else {}), "moved": "1"})
        return redirect(f"{ctx.public_url}/sign-in?{query}", 303)
    if not fresh and current_principal() is not None:
        return redirect(return_to, 303)
    state = secrets.token_urlsafe(24)
    verifier = secrets.token_urlsafe(48)
    pending = dict(list(_pending().items())[-(_MOST_PENDING - 1) :])
    while pending and sum(len(each["return_to"]) for each in pending.values()) + len(return_to) > _ROOM:
        pending.pop(next(iter(pending)))
    begun_at = int(ctx.clock.now().timestamp())
    pending[state] = {"verifier": verifier, "return_to": return_to, "fresh": fresh, "at": begun_at}
    session[_PENDING] = pending
    challenge = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()
    where = ctx.provider.sign_in_url(
        redirect_uri=_redirect_uri(), state=state, code_challenge=challenge, fresh=fresh
    )
    return redirect(where, 303)


@blueprint.get("/auth/callback", provide_automatic_options=False)
def finish() -> Response:
    """The provider sends the browser back here with a code."""
    ctx = context()
    pending = _pending()
    under_way = pending.pop(request.args.get("state", ""), None)
    session[_PENDING] = pending
    code = request.args.get("code", "")
    if under_way is None or ctx.clock.now().timestamp() - under_way["at"] > _PENDING_FOR:
        raise _failed("This sign-in was not begun in this browser, or took longer than ten minutes.")
    if request.args.get("error") or not code:
        raise _failed("The identity provider did not sign you in.")
    try:
        sign_in = ctx.provider.finish_sign_in(
            code=code, redirect_uri=_redirect_uri(), code_verifier=under_way["verifier"]
        )
    except (InvalidTokenError, KeyRefusedError, ProviderRefusedError):
        raise _failed("The identity provider did not accept the end of this sign-in.") from None
    if under_way["fresh"] and ctx.clock.now() - sign_in.auth_time > FRESH_FOR:
        raise ForbiddenError(
            "The identity provider did not ask for a new proof of who you are.",
            hint="Sign out there, then sign in again.",
            code="fresh_sign_in_required",
        )
    new_id = sessions.begin(ctx, sign_in, visit(), replaces=session_id())
    _keep(new_id)
    return redirect(safe_return(under_way["return_to"]), 303)


@blueprint.post("/sign-out", provide_automatic_options=False)
def sign_out() -> Response:
    """End the page session, and lead to where the identity provider forgets this browser too: else the next
    one at this machine would be signed in again at a click."""
    require_csrf_token()
    sid = session_id()
    if sid is not None:
        sessions.end(context(), sid, visit())
    session.clear()
    return redirect(context().provider.sign_out_url(), 303)


@blueprint.post("/account", provide_automatic_options=False)
def switch_account() -> Response:
    """Go on, at `return_to`, as oneself in an account (form field `account_id`), or for a service id of the
    present one (the same field, `act-for:` and its iam_id: one choice in one list)."""
    require_csrf_token()
    sid = session_id()
    chosen = request.form.get("account_id", "")
    if sid is None:
        raise InvalidTokenError("You are not signed in.", hint="Sign in again.")
    if chosen.startswith(ACT_FOR_PREFIX):
        _keep(sessions.act_for(context(), sid, chosen.removeprefix(ACT_FOR_PREFIX), visit()))
        return redirect(safe_return(request.form.get("return_to")), 303)
    if not 0 < len(chosen) <= 64:
        raise InvalidRequestError(
            "account_id is missing or too long.", hint="Choose one.", field="account_id"
        )
    _keep(sessions.switch_account(context(), sid, chosen, visit()))
    return redirect(safe_return(request.form.get("return_to")), 303)


def _keep(new_id: Secret) -> None:
    """The browser holds the new session and nothing of what it held before: an id or CSRF token planted
    earlier is worth nothing afterwards."""
    session.clear()
    # The browser is the one holder of the id.
    session[SESSION_ID] = new_id.reveal()


def _pending() -> dict[str, Any]:
    pending = session.get(_PENDING)
    return dict(pending) if isinstance(pending, dict) else {}


def _redirect_uri() -> str:
    return f"{context().public_url}/auth/callback"


def _failed(message: str) -> InvalidRequestError:
    return InvalidRequestError(
        message,
        hint="Sign in again.",
        code="sign_in_failed",
        action_url=f"{context().public_url}/sign-in",
    )
