"""`/identity/token` and what clients need to know about it: the published keys, the discovery document.

Grant parameters are read from the body and from the query, where some of IBM's clients put them.
"""

from __future__ import annotations

import base64
import binascii
from typing import Any

from flask import Blueprint, Request, Response, jsonify, request

from taskcred.domain.secret import Secret
from taskcred.errors import ForbiddenError, InvalidRequestError, InvalidTokenError
from taskcred.iam import accounts
from taskcred.iam.clients import Client
from taskcred.iam.errors import NOT_A_MEMBER, PROPERTY_INVALID
from taskcred.iam.fields import missing
from taskcred.iam.service import LocalIam
from taskcred.iam.signing import ALGORITHM
from taskcred.iam.tokens import GRANT_API_KEY, GRANT_CODE, GRANT_REFRESH, SCOPE, Proof, Subject

_PUBLISHED_FOR = "public, max-age=300"


def routes(iam: LocalIam) -> Blueprint:
    """The routes, over one local IAM."""
    blueprint = Blueprint("tokens", __name__)

    @blueprint.post("/identity/token")
    def issue_token() -> Response:
        grant_type = _parameter(request, "grant_type")
        if not grant_type:
            raise missing("grant_type")
        client = _client(iam, request)
        if grant_type == GRANT_API_KEY:
            return jsonify(_by_api_key(iam, request, client))
        if grant_type == GRANT_CODE:
            return jsonify(_by_code(iam, request, client))
        if grant_type == GRANT_REFRESH:
            return jsonify(_by_refresh_token(iam, request, client))
        raise InvalidRequestError(
            "This grant type is not supported here.",
            hint=f"Use one of: {GRANT_API_KEY}, {GRANT_CODE}, {GRANT_REFRESH}.",
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
    raw_key = _parameter(request, "apikey")
    if not raw_key:
        raise missing("apikey")
    subject = iam.exchange.subject_of(Secret(raw_key))
    return iam.tokens.answer(subject, Proof(GRANT_API_KEY, client.id if client else ""))


def _by_code(iam: LocalIam, request: Request, client: Client | None) -> dict[str, Any]:
    given = {name: _parameter(request, name) for name in ("code", "redirect_uri", "code_verifier")}
    for name, value in given.items():
        if not value:
            raise missing(name)
    client = client or _unnamed()
    grant, refresh_token = iam.sign_ins.redeem(
        Secret(given["code"]),
        client_id=client.id,
        redirect_uri=given["redirect_uri"],
        code_verifier=given["code_verifier"],
    )
    return iam.tokens.answer(
        _member(iam, grant.iam_id, grant.account_id),
        Proof(GRANT_CODE, client.id, grant.auth_time, grant.nonce),
        scope=grant.scope,
        refresh_token=refresh_token,
    )


def _by_refresh_token(iam: LocalIam, request: Request, client: Client | None) -> dict[str, Any]:
    raw_token = _parameter(request, "refresh_token")
    if not raw_token:
        raise missing("refresh_token")
    client = client or _unnamed()
    refresh_token = Secret(raw_token)
    grant = iam.sign_ins.grant_of(refresh_token, client.id)
    account_id = _parameter(request, "account") or _parameter(request, "bss_account") or grant.account_id
    # The grant type stays that of the sign-in: it says how the person proved who they are.
    return iam.tokens.answer(
        _member(iam, grant.iam_id, account_id),
        Proof(GRANT_CODE, client.id, grant.auth_time),
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


def _parameter(request: Request, name: str) -> str:
    return request.form.get(name) or request.args.get(name) or ""


def _client(iam: LocalIam, request: Request) -> Client | None:
    """The client that presents itself, by Basic authentication (RFC 6749, 2.3.1) or parameters."""
    header = request.headers.get("Authorization", "")
    if header[:6].lower() == "basic ":
        try:
            raw = base64.b64decode(header[6:].strip(), validate=True).decode()
        except (binascii.Error, ValueError):
            raw = ""
        client_id, _, secret = raw.partition(":")
        return iam.clients.verify(client_id, Secret(secret))
    client_id = _parameter(request, "client_id")
    if not client_id:
        return None
    secret = _parameter(request, "client_secret")
    return iam.clients.verify(client_id, Secret(secret) if secret else None)


def _unnamed() -> Client:
    raise InvalidTokenError(
        "This grant needs a client.",
        hint="Send client_id, or client id and secret with HTTP Basic.",
        code="invalid_client",
        bxnim=PROPERTY_INVALID,
    )


def _discovery(issuer: str) -> dict[str, Any]:
    """OpenID Connect Discovery 1.0, 3."""
    return {
        "issuer": issuer,
        "authorization_endpoint": f"{issuer}/authorize",
        "token_endpoint": f"{issuer}/token",
        "jwks_uri": f"{issuer}/keys",
        "end_session_endpoint": f"{issuer}/sign-out",
        "response_types_supported": ["code"],
        "response_modes_supported": ["query"],
        "grant_types_supported": [GRANT_API_KEY, GRANT_CODE, GRANT_REFRESH],
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
