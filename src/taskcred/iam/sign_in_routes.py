"""The pages: signing in, the first sign-in by link, signing out."""

from __future__ import annotations

from urllib.parse import urlsplit

import werkzeug
from flask import Blueprint, redirect, request

from taskcred.domain.secret import Secret
from taskcred.errors import InvalidRequestError, RateLimitedError, TaskcredError
from taskcred.iam import accounts, links, passwords
from taskcred.iam.authorize import (
    AuthorizationRequest,
    RedirectError,
    needs_proof,
    read_request,
    redirect_with,
)
from taskcred.iam.clients import COMMAND_LINE
from taskcred.iam.errors import answer_for
from taskcred.iam.pages import MAX_VALUE, Pages
from taskcred.iam.proof import WRONG, proven
from taskcred.iam.service import LocalIam
from taskcred.iam.signins import SignIn

_Answer = werkzeug.Response


def routes(iam: LocalIam) -> Blueprint:
    """The routes, over one local IAM."""
    blueprint = Blueprint("pages", __name__)
    pages = Pages(iam.config.issuer)

    @blueprint.errorhandler(RedirectError)
    def tell_client(error: RedirectError) -> _Answer:
        return redirect(error.location, 303)

    @blueprint.errorhandler(TaskcredError)
    def show_problem(error: TaskcredError) -> _Answer:
        status, _ = answer_for(error)
        return pages.render("iam/problem.html", status, message=error.message, hint=error.hint)

    @blueprint.get("/identity/authorize")
    def authorize() -> _Answer:
        asked = read_request(request.args, iam.clients, iam.config.issuer)
        value = pages.sign_in_value(request)
        sign_in = iam.sign_ins.find(value) if value else None
        if sign_in is not None and not needs_proof(asked, sign_in, iam.clock.now()):
            return _send_code(iam, asked, sign_in)
        if asked.is_silent:
            raise RedirectError(_refusal(iam, asked, "login_required", "the person must sign in"))
        known = _email_of(iam, sign_in)
        return _form(pages, asked, email=asked.login_hint or known, is_again=bool(known))

    @blueprint.post("/identity/authorize")
    def sign_in_with_password() -> _Answer:
        pages.verify_form(request)
        asked = read_request(request.args, iam.clients, iam.config.issuer)
        email = request.form.get("email", "").strip().lower()[:MAX_VALUE]
        try:
            user = proven(iam, email, Secret(request.form.get("password", "")), request.remote_addr or "")
        except RateLimitedError as error:
            response = _form(pages, asked, status=429, email=email, wait=error.retry_after)
            response.headers["Retry-After"] = str(error.retry_after)
            return response
        if user is None:
            return _form(pages, asked, status=422, email=email, problem=WRONG)
        sign_in, value = iam.sign_ins.begin(
            user.iam_id, how="password", instead_of=pages.sign_in_value(request)
        )
        response = _send_code(iam, asked, sign_in)
        pages.set_sign_in(response, value)
        return response

    @blueprint.get(links.PATH)
    def first_sign_in() -> _Answer:
        with iam.database.read() as connection:
            user = links.user_of_link(connection, _link(), iam.clock.now())
        if user is None:
            raise _link_refused()
        return pages.render("iam/first_sign_in.html", email=user.email, least=passwords.MIN_LENGTH)

    @blueprint.post(links.PATH)
    def choose_password() -> _Answer:
        pages.verify_form(request)
        value = _link()
        with iam.database.read() as connection:
            user = links.user_of_link(connection, value, iam.clock.now())
        if user is None:
            raise _link_refused()
        try:
            password_hash = iam.passwords.hash(_chosen_password())
        except InvalidRequestError as error:
            return pages.render(
                "iam/first_sign_in.html",
                422,
                email=user.email,
                least=passwords.MIN_LENGTH,
                problem=error.message,
                hint=error.hint,
            )
        with iam.database.write() as connection:
            used = links.use_link(connection, value, password_hash, iam.clock.now())
        if used is None:
            raise _link_refused()
        _, cookie = iam.sign_ins.begin(user.iam_id, how="link", instead_of=pages.sign_in_value(request))
        # On through a sign-in of the pages, which this browser's new sign-in answers without a question.
        response = redirect(f"{iam.config.public_url}/sign-in", 303)
        pages.set_sign_in(response, cookie)
        return response

    @blueprint.get("/identity/sign-out")
    def ask_to_sign_out() -> _Answer:
        # Led here by our own pages the person has already said so; from elsewhere, ask first.
        if request.headers.get("Sec-Fetch-Site") == "same-origin":
            return _signed_out(iam, pages)
        return pages.render("iam/sign_out.html")

    @blueprint.post("/identity/sign-out")
    def sign_out() -> _Answer:
        pages.verify_form(request)
        return _signed_out(iam, pages)

    return blueprint


def _send_code(iam: LocalIam, asked: AuthorizationRequest, sign_in: SignIn) -> _Answer:
    with iam.database.read() as connection:
        own = accounts.accounts_of(connection, sign_in.iam_id)
    chosen = next(
        (account for account in own if not asked.account_id or account.id == asked.account_id), None
    )
    if chosen is None:
        raise RedirectError(
            _refusal(iam, asked, "access_denied", "you are not a member of this account, or of any")
        )
    code = iam.sign_ins.new_code(sign_in, chosen.id, asked.code)
    return redirect(
        redirect_with(
            asked.code.redirect_uri,
            # The client gets the code here: that is what a code is for.
            code=code.reveal(),
            state=asked.state,
            iss=iam.config.issuer,
        ),
        303,
    )


def _refusal(iam: LocalIam, asked: AuthorizationRequest, error: str, description: str) -> str:
    return redirect_with(
        asked.code.redirect_uri,
        error=error,
        error_description=description,
        state=asked.state,
        iss=iam.config.issuer,
    )


def _form(
    pages: Pages,
    asked: AuthorizationRequest,
    status: int = 200,
    *,
    email: str,
    is_again: bool = False,
    problem: str = "",
    wait: int = 0,
) -> _Answer:
    target = urlsplit(asked.code.redirect_uri)
    return pages.render(
        "iam/sign_in.html",
        status,
        form_target=f"{target.scheme}://{target.netloc}",
        is_command_line=asked.client_id == COMMAND_LINE,
        email=email,
        is_again=is_again,
        problem=problem,
        wait=wait,
    )


def _email_of(iam: LocalIam, sign_in: SignIn | None) -> str:
    if sign_in is None:
        return ""
    with iam.database.read() as connection:
        user = accounts.user_of(connection, sign_in.iam_id)
    return user.email if user else ""


def _link() -> Secret:
    return Secret(request.args.get("link", "")[:MAX_VALUE])


def _chosen_password() -> Secret:
    chosen = request.form.get("password", "")
    if chosen != request.form.get("repeated", ""):
        raise InvalidRequestError("The two passwords differ.", hint="Type the same password twice.")
    return Secret(chosen)


def _link_refused() -> InvalidRequestError:
    return InvalidRequestError(
        "This sign-in link is not good any more.",
        hint="A link works once and for a week. Ask the operator of this server for a new one: "
        "`taskcred iam sign-in-link`.",
        code="link_refused",
    )


def _signed_out(iam: LocalIam, pages: Pages) -> _Answer:
    value = pages.sign_in_value(request)
    if value:
        iam.sign_ins.end(value)
    response = pages.render("iam/signed_out.html", home=f"{iam.config.public_url}/")
    pages.forget_sign_in(response)
    return response
