"""The device authorization grant's two doors (RFC 8628): where a program asks, and the pages where a person
types its code, sees what asks and from where, and allows it with their password.

The password is asked for always: a link with the code in it may come from somebody else (5.4), so a
remembered browser must not answer it at a click.
"""

from __future__ import annotations

from typing import Final

import werkzeug
from flask import Blueprint, Response, jsonify, request

from taskcred.domain.secret import Secret
from taskcred.errors import InvalidRequestError, RateLimitedError, TaskcredError
from taskcred.iam import accounts, devices, oauth, throttle
from taskcred.iam.clients import COMMAND_LINE
from taskcred.iam.devices import Waiting, normal_user_code
from taskcred.iam.errors import answer_for
from taskcred.iam.fields import is_plain
from taskcred.iam.pages import MAX_VALUE, Pages
from taskcred.iam.proof import WRONG, proven
from taskcred.iam.service import LocalIam
from taskcred.iam.tokens import SCOPE

PATH: Final = "/identity/device"
_UNKNOWN: Final = "No program waits under this code, or not any more."
_MALFORMED: Final = "That is not a code: it has eight letters, as in BCDF-GHJK."
_Answer = werkzeug.Response


def routes(iam: LocalIam) -> Blueprint:
    """The routes, over one local IAM."""
    blueprint = Blueprint("devices", __name__)
    pages = Pages(iam.config.issuer)

    @blueprint.post("/identity/device_authorization")
    def ask() -> Response:
        try:
            begun = _begin(iam)
        except TaskcredError as error:
            return oauth.answer_error(error)
        page = f"{iam.config.public_url}{PATH}"
        return jsonify(
            {
                # The program that asks is the one holder of its code.
                "device_code": begun.device_code.reveal(),
                "user_code": begun.user_code,
                "verification_uri": page,
                "verification_uri_complete": f"{page}?user_code={begun.user_code}",
                "expires_in": int(devices.CODE_TTL.total_seconds()),
                "interval": devices.INTERVAL,
            }
        )

    @blueprint.errorhandler(TaskcredError)
    def show_problem(error: TaskcredError) -> _Answer:
        status, _ = answer_for(error)
        return pages.render("iam/problem.html", status, message=error.message, hint=error.hint)

    @blueprint.get(PATH)
    def enter_code() -> _Answer:
        # Nothing is looked up yet: a link must not be worth more than the code typed by hand.
        return _code_form(pages, typed=normal_user_code(request.args.get("user_code", "")) or "")

    @blueprint.post(PATH)
    def answer() -> _Answer:
        pages.verify_form(request)
        typed = request.form.get("user_code", "")[:MAX_VALUE]
        user_code = normal_user_code(typed)
        if user_code is None:
            return _code_form(pages, 422, typed=typed, problem=_MALFORMED)
        try:
            waiting = _waiting(iam, user_code)
        except RateLimitedError as error:
            response = _code_form(pages, 429, typed=user_code, wait=error.retry_after)
            response.headers["Retry-After"] = str(error.retry_after)
            return response
        if waiting is None:
            return _code_form(pages, 422, typed=user_code, problem=_UNKNOWN)
        match request.form.get("answer", ""):
            case "deny":
                iam.devices.deny(user_code)
                return pages.render("iam/device_done.html", is_allowed=False)
            case "allow":
                return _allow(iam, pages, waiting)
            case _:
                return _question(iam, pages, waiting)

    return blueprint


def _begin(iam: LocalIam) -> devices.Begun:
    client = oauth.required_client(request, iam.clients)
    if client.id != COMMAND_LINE:
        raise InvalidRequestError(
            "This client may not use the device authorization grant.",
            hint=f"Only {COMMAND_LINE} may.",
            code="unauthorized_client",
        )
    scope = oauth.parameter(request, "scope") or SCOPE
    if set(scope.split()) - set(SCOPE.split()):
        raise InvalidRequestError(
            "The scope is not known here.", hint=f"It must be of: {SCOPE}.", code="invalid_scope"
        )
    account_id = oauth.parameter(request, "account")
    if len(account_id) > 64 or not is_plain(account_id):
        raise InvalidRequestError("account is no account's id.", hint="Leave it out, or name one by its id.")
    return iam.devices.begin(
        client_id=client.id,
        scope=" ".join(scope.split()),
        account_id=account_id,
        address=(request.remote_addr or "")[:64],
    )


def _waiting(iam: LocalIam, user_code: str) -> Waiting | None:
    """Who waits under the code. Counts a wrong one; raises RateLimitedError after too many."""
    subjects = throttle.of_user_code(request.remote_addr or "")
    iam.throttle.begin(subjects, "Too many wrong codes.")
    waiting = iam.devices.find(user_code)
    if waiting is not None:
        iam.throttle.succeeded(subjects)
    return waiting


def _allow(iam: LocalIam, pages: Pages, waiting: Waiting) -> _Answer:
    email = request.form.get("email", "").strip().lower()[:MAX_VALUE]
    try:
        user = proven(iam, email, Secret(request.form.get("password", "")), request.remote_addr or "")
    except RateLimitedError as error:
        response = _question(iam, pages, waiting, 429, email=email, wait=error.retry_after)
        response.headers["Retry-After"] = str(error.retry_after)
        return response
    if user is None:
        return _question(iam, pages, waiting, 422, email=email, problem=WRONG)
    with iam.database.read() as connection:
        own = accounts.accounts_of(connection, user.iam_id)
    chosen = next(
        (account for account in own if not waiting.account_id or account.id == waiting.account_id), None
    )
    if chosen is None:
        problem = "You are not a member of the account this was asked for, or of any."
        return _question(iam, pages, waiting, 422, email=email, problem=problem)
    # A sign-in of the program's own: this browser may be somebody else's, and is not signed in by this.
    sign_in, _ = iam.sign_ins.begin(user.iam_id, how="device")
    if not iam.devices.allow(waiting.user_code, sign_in, chosen.id):
        return _code_form(pages, 422, typed=waiting.user_code, problem=_UNKNOWN)
    return pages.render("iam/device_done.html", is_allowed=True, email=user.email, account=chosen.name)


def _code_form(pages: Pages, status: int = 200, *, typed: str, problem: str = "", wait: int = 0) -> Response:
    return pages.render("iam/device.html", status, typed=typed, problem=problem, wait=wait)


def _question(
    iam: LocalIam,
    pages: Pages,
    waiting: Waiting,
    status: int = 200,
    *,
    email: str = "",
    problem: str = "",
    wait: int = 0,
) -> Response:
    """What asks, from where and since when; with the form to allow or deny it."""
    is_known = not throttle.is_loopback(waiting.address)
    with iam.database.read() as connection:
        account = accounts.find_account(connection, waiting.account_id) if waiting.account_id else None
    return pages.render(
        "iam/device_question.html",
        status,
        user_code=waiting.user_code,
        asked_at=waiting.asked_at,
        minutes=(iam.clock.now() - waiting.asked_at).seconds // 60,
        address=waiting.address if is_known else "",
        own_address=request.remote_addr if is_known else "",
        account=account.name if account else "",
        email=email,
        problem=problem,
        wait=wait,
    )
