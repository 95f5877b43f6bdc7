"""`/identity/token` and what clients need to know about it: the published keys, the discovery document.

Grant parameters are read from the body and from the query, where some of IBM's clients put them.
"""

from __future__ import annotations

from typing import Any

from flask import Blueprint, Request, Response, jsonify, request

from taskcred.domain.secret import Secret
from taskcred.errors import ForbiddenError, InvalidRequestError, TaskcredError
from taskcred.iam import accounts, oauth
from taskcred.iam.clients import Client
from taskcred.iam.errors import NOT_A_MEMBER, PROPERTY_INVALID
from taskcred.iam.fields import missing
from taskcred.iam.oauth import client_of, parameter, required_client
from taskcred.iam.service import LocalIam
from taskcred.iam.signing import ALGORITHM
from taskcred.iam.signins import Grant
from taskcred.iam.tokens import (
    GRANT_API_KEY,
    GRANT_CODE,
    GRANT_DEVICE,
    GRANT_REFRESH,
    SCOPE,
    Proof,
    Subject,
)

_PUBLISHED_FOR = "public, max-age=300"
_GRANTS = (GRANT_API_KEY, GRANT_CODE, GRANT_DEVICE, GRANT_REFRESH)


def routes(iam: LocalIam) -> Blueprint:
    """The routes, over one local IAM."""
    blueprint = Blueprint("tokens", __name__)

    @blueprint.post("/identity/token")
    def issue_token() -> Response:
        grant_type = parameter(request, "grant_type")
        if not grant_type:
            raise missing("grant_type")
        if grant_type == GRANT_DEVICE:
            try:
                return jsonify(_by_device_code(iam, request))
            except TaskcredError as error:
                return oauth.answer_error(error)
        if grant_type == GRANT_API_KEY:
            return jsonify(_by_api_key(iam, request, client_of(request, iam.clients)))
        if grant_type == GRANT_CODE:
            return jsonify(_by_code(iam, request))
        if grant_type == GRANT_REFRESH:
            return jsonify(_by_refresh_token(iam, request))
        raise InvalidRequestError(
            "This grant type is not supported here.",
            hint=f"Use one of: {', '.join(_GRANTS)}.",
            bxnim=PROPERTY_INVALID,
            field="grant_type",
        )

    @blueprint.get("/identity/keys")
    def published_keys() -> Response:
        response = jsonify(iam.signing_keys.published())
        response.headers["Cache-Control"] = _PUBLISHED_FOR
        return response

    @blueprint.get("/identity/.well-known/openid-configuration")
    def discovery() -> Response:
        response = jsonify(_discovery(iam.config.issuer))
        response.headers["Cache-Control"] = _PUBLISHED_FOR
        return response

    return blueprint


def _by_api_key(iam: LocalIam, request: Request, client: Client | None) -> dict[str, Any]:
    raw_key = parameter(request, "apikey")
    if not raw_key:
        raise missing("apikey")
    subject = iam.exchange.subject_of(Secret(raw_key))
    return iam.tokens.answer(subject, Proof(GRANT_API_KEY, client.id if client else ""))


def _by_code(iam: LocalIam, request: Request) -> dict[str, Any]:
    given = {name: parameter(request, name) for name in ("code", "redirect_uri", "code_verifier")}
    for name, value in given.items():
        if not value:
            raise missing(name)
    client = required_client(request, iam.clients)
    grant, refresh_token = iam.sign_ins.redeem(
        Secret(given["code"]),
        client_id=client.id,
        redirect_uri=given["redirect_uri"],
        code_verifier=given["code_verifier"],
    )
    return _interactive(iam, grant, grant.account_id, refresh_token)


def _by_device_code(iam: LocalIam, request: Request) -> dict[str, Any]:
    device_code = parameter(request, "device_code")
    if not device_code:
        raise missing("device_code")
    client = required_client(request, iam.clients)
    grant, refresh_token = iam.devices.redeem(Secret(device_code), client.id)
    return _interactive(iam, grant, grant.account_id, refresh_token)


def _by_refresh_token(iam: LocalIam, request: Request) -> dict[str, Any]:
    raw_token = parameter(request, "refresh_token")
    if not raw_token:
        raise missing("refresh_token")
    client = required_client(request, iam.clients)
    refresh_token = Secret(raw_token)
    grant = iam.sign_ins.grant_of(refresh_token, client.id)
    account_id = parameter(request, "account") or parameter(request, "bss_account") or grant.account_id
    return _interactive(iam, grant, account_id, refresh_token)


def _interactive(iam: LocalIam, grant: Grant, account_id: str, refresh_token: Secret) -> dict[str, Any]:
    """Tokens for a person who signed in. However often they are refreshed, they say how and when that was."""
    return iam.tokens.answer(
        _member(iam, grant.iam_id, account_id),
        Proof(grant.grant_type, grant.client_id, grant.auth_time, grant.nonce),
        scope=grant.scope,
        refresh_token=refresh_token,
    )


def _member(iam: LocalIam, iam_id: str, account_id: str) -> Subject:
    with iam.database.read() as connection:
        user = accounts.user_of(connection, iam_id)
        membership = accounts.is_administrator(connection, account_id, iam_id)
    if user is None or membership is None:
        raise ForbiddenError(
            "You are not a member of this account.",
            hint="Choose another account, or ask its administrator to add you.",
            bxnim=NOT_A_MEMBER,
        )
    return Subject(iam_id, account_id, user.name, user.email)


def _discovery(issuer: str) -> dict[str, Any]:
    """OpenID Connect Discovery 1.0, 3."""
    return {
        "issuer": issuer,
        "authorization_endpoint": f"{issuer}/authorize",
        "device_authorization_endpoint": f"{issuer}/device_authorization",
        "token_endpoint": f"{issuer}/token",
        "jwks_uri": f"{issuer}/keys",
        "end_session_endpoint": f"{issuer}/sign-out",
        "response_types_supported": ["code"],
        "response_modes_supported": ["query"],
        "grant_types_supported": list(_GRANTS),
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": [ALGORITHM],
        "scopes_supported": SCOPE.split(),
        "token_endpoint_auth_methods_supported": ["client_secret_basic", "client_secret_post", "none"],
        "code_challenge_methods_supported": ["S256"],
        "prompt_values_supported": ["none", "login"],
        "authorization_response_iss_parameter_supported": True,
        "claims_supported": [
            "iam_id", "id", "realmid", "jti", "identifier", "name", "email", "sub", "sub_type", "account",
            "authn", "iat", "exp", "iss", "grant_type", "scope", "client_id", "acr", "amr", "auth_time", "nonce",
        ],
    }  # fmt: skip
