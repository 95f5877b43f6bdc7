"""Who is calling, and the one door every API route lies behind.

A caller proves itself by a bearer token of the identity provider, by the cookie of a page session, or by HTTP
Basic: the worker credential, or a service's client id and secret. A bearer token may also be a workload's own,
of an issuer that a service trusts. Each operation names the permission it needs (`http.operations`); the door
looks both up in the table of `domain.permissions` before the request is validated or a service is called. A
route under /v1 that names none is closed. The header `Taskcred-Act-For` beside a person's token makes them
act for a service id (`services.acting`); a page session has chosen that beforehand.
"""

from __future__ import annotations

from typing import Final

from flask import Request, current_app, g, request, session

from taskcred.domain.keytext import SERVICE_SECRET_PREFIX, has_form
from taskcred.domain.permissions import Authentication, Permission, Principal
from taskcred.domain.secret import Secret
from taskcred.errors import InvalidRequestError, InvalidTokenError
from taskcred.http.csrf import require_csrf_token
from taskcred.http.problems import request_id
from taskcred.identity import claims as identity_claims
from taskcred.ports import AccessToken, TrustedIssuers
from taskcred.services import acting, federation, service_secrets, sessions, tokens
from taskcred.services.authorize import authorize
from taskcred.services.context import Context
from taskcred.store import workers

SESSION_ID: Final = "sid"  # in the signed cookie, beside the CSRF token: whoever replaces one replaces both
ISSUERS: Final = "taskcred.issuers"  # the app's `ports.TrustedIssuers`, among its extensions
ACT_FOR: Final = "Taskcred-Act-For"  # a request header: the iam_id of a service id
_SAFE: Final = frozenset({"GET", "HEAD"})


def context() -> Context:
    """The context of the app that answers this request."""
    ctx: Context = current_app.extensions["taskcred"]
    return ctx


def visit() -> sessions.Visit:
    """Where this request came from."""
    return sessions.Visit(request_id(), (request.remote_addr or "")[:64])


def session_id() -> Secret | None:
    """The page session's id that the browser sent, whether or not it is one."""
    text = session.get(SESSION_ID)
    return Secret(text) if isinstance(text, str) else None


def current_principal() -> Principal | None:
    """Who holds this request's page session; None for everybody else, bearers of tokens included."""
    if "page_session" not in g:
        sid = session_id()
        g.page_session = None  # also while we say why there is none
        g.page_session = None if sid is None else sessions.find(context(), sid, visit())
    principal: Principal | None = g.page_session
    return principal


def enter(permission: Permission) -> None:
    """Let the API request in, or raise InvalidTokenError (401) or ForbiddenError (403, audited)."""
    if permission is Permission.RUN_ATTEMPT:
        g.challenge = "Basic"
    principal = _acting(_identify(request))
    g.principal = principal
    if principal.authentication is Authentication.SESSION and request.method not in _SAFE:
        require_csrf_token()
    target_type = permission.partition(":")[0]
    target_id = next(iter((request.view_args or {}).values()), "")
    authorize(context(), principal, permission, target_type, str(target_id))


def caller() -> Principal:
    """The principal that `enter` let in."""
    principal: Principal = g.principal
    return principal


def _acting(principal: Principal) -> Principal:
    """The caller, as the service id that the request is to be carried out for, where it names one."""
    iam_id = request.headers.get(ACT_FOR)
    if iam_id is None:
        return principal
    if principal.authentication is Authentication.SESSION:
        raise InvalidRequestError(
            f"{ACT_FOR} goes with a bearer token; a page session acts for whom it has chosen.",
            hint="Choose in the pages' header, or send a bearer token.",
            field=ACT_FOR,
            target_type="header",
        )
    return acting.act_for(context(), principal, iam_id)


def _identify(incoming: Request) -> Principal:
    authorization = incoming.authorization
    if authorization is None:
        if incoming.headers.get("Authorization"):
            raise _unusable()
        return _of_session()
    if authorization.type == "bearer" and authorization.token:
        return _of_workload(authorization.token) or of_token(context().provider.verify(authorization.token))
    if authorization.type == "basic" and authorization.username and authorization.password:
        g.challenge = "Basic"
        secret = Secret(authorization.password)
        # Who looks like a service is asked for as one; the form of its secret is in the text itself.
        if has_form(authorization.password, SERVICE_SECRET_PREFIX):
            return service_secrets.authenticate(context(), authorization.username, secret, visit())
        return _of_worker(authorization.username, secret)
    raise _unusable()


def _of_session() -> Principal:
    principal = current_principal()
    if principal is None:
        raise InvalidTokenError(
            "You are not signed in.",
            hint="Send an access token as `Authorization: Bearer …`, or sign in.",
            code="authentication_required",
            action_url=f"{context().public_url}/sign-in",
        )
    return principal


def of_token(token: AccessToken) -> Principal:
    """Whoever a verified access token is of."""
    where = visit()
    return Principal(
        token.iam_id,
        token.account_id,
        _kind(token),
        auth_time=identity_claims.auth_time(token.claims),
        email=str(token.claims.get("email") or ""),
        name=str(token.claims.get("name") or ""),
        token=token.token,
        request_id=where.request_id,
        address=where.address,
    )


def _kind(token: AccessToken) -> Authentication:
    if identity_claims.is_interactive(token.claims):
        return Authentication.INTERACTIVE
    is_ours = token.claims.get("client_id") == identity_claims.CLIENT_ID
    if is_ours or tokens.is_run_token(context(), token.token.digest()):
        return Authentication.RUN_TOKEN
    return Authentication.PROGRAMMATIC


def _of_workload(raw_token: str) -> Principal | None:
    issuers: TrustedIssuers = current_app.extensions[ISSUERS]
    return federation.log_in(context(), issuers, raw_token, visit())


def _of_worker(worker_id: str, secret: Secret) -> Principal:
    ctx = context()
    with ctx.store.read() as connection:
        name = workers.find_name(connection, worker_id, secret)
    if name is None:
        raise InvalidTokenError(
            "This id and secret are not valid.",
            hint="A worker uses the file worker.credential of this server; a service its whole client secret.",
        )
    where = visit()
    return Principal(
        f"worker:{name}",
        "",
        Authentication.WORKER,
        request_id=where.request_id,
        address=where.address,
    )


def _unusable() -> InvalidTokenError:
    return InvalidTokenError(
        "The Authorization header cannot be used.", hint="Send `Authorization: Bearer` and an access token."
    )
