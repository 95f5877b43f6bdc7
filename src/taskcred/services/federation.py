"""Workloads that are a service by a token of their own platform: OpenID Connect federation.

A trust says: whoever has a token of this issuer, for exactly this subject and audience, is the service. A pod
in Kubernetes has such a token of its service account, renewed by the cluster, and so needs no client secret.
Trusts are the operator's to add, since we call the addresses they name; administrators see and end them.
"""

from __future__ import annotations

import base64
import json
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

from sqlalchemy.exc import IntegrityError

from taskcred.domain.permissions import Principal
from taskcred.domain.services import ServiceView, TrustView, refuse_url
from taskcred.errors import ConflictError, InvalidRequestError, InvalidTokenError, NotFoundError
from taskcred.ports import TrustedIssuers
from taskcred.services.context import Context
from taskcred.services.service_door import By, enter, for_change, record, seen, to_read
from taskcred.services.service_entry import let_in
from taskcred.services.sessions import Visit
from taskcred.store import audit, changes
from taskcred.store import services as store

_LONGEST: Final = 512
_LONGEST_TOKEN: Final = 16_384


@dataclass(frozen=True, slots=True)
class NewTrust:
    """See `TrustView`."""

    issuer: str
    subject: str
    audience: str
    jwks_url: str = ""
    ca_file: str = ""


def add_trust(ctx: Context, operator: audit.Actor, service_id: str, new: NewTrust) -> ServiceView:
    """Trust these workloads to be the service. Raises InvalidRequestError, and ConflictError
    (`trust_exists`) where they are a service already."""
    _verify(ctx, new)
    trust_id, now = str(uuid.uuid4()), ctx.clock.now()
    try:
        with ctx.store.write() as connection:
            for_change(connection, operator, service_id)
            store.add_trust(
                connection,
                id=trust_id,
                service_id=service_id,
                issuer=new.issuer,
                subject=new.subject,
                audience=new.audience,
                jwks_url=new.jwks_url,
                ca_file=new.ca_file,
                created_at=now,
                created_by=operator.id,
            )
            store.change(connection, service_id)
            record(
                ctx,
                connection,
                operator,
                "service:trust",
                service_id,
                trust=trust_id,
                issuer=new.issuer,
                subject=new.subject,
                audience=new.audience,
            )
            return seen(ctx, connection, service_id)
    except IntegrityError:
        raise ConflictError(
            "This issuer's subject and audience are trusted already, by this service or another.",
            hint="End that trust first, or choose another audience.",
            code="trust_exists",
        ) from None


def end_trust(ctx: Context, by: By, service_id: str, trust_id: str) -> ServiceView:
    """Trust these workloads no more, from the next request on."""
    actor = enter(ctx, by, service_id)
    now = ctx.clock.now()
    with ctx.store.write() as connection:
        for_change(connection, by, service_id)
        if not store.remove_trust(connection, service_id, trust_id):
            raise NotFoundError("There is no such trust.", hint="Read the service to see those it has.")
        ctx.revocations.append("service_trust", trust_id, "", "")
        store.change(connection, service_id)
        changes.append(connection, "service", service_id, now)
        record(ctx, connection, actor, "service:end_trust", service_id, trust=trust_id)
        return seen(ctx, connection, service_id)


def log_in(ctx: Context, issuers: TrustedIssuers, raw_token: str, visit: Visit) -> Principal | None:
    """The service that the bearer of this token is; None where no service trusts the token's issuer, which
    may be the identity provider.

    What the token says of itself before it is verified only decides whether, and by which trust, it is. Raises
    InvalidTokenError whatever is wrong with it, UpstreamUnavailableError where the issuer's keys cannot be
    had, ForbiddenError (`service_disabled`).
    """
    claims = _unverified(raw_token)
    issuer = claims.get("iss")
    if not isinstance(issuer, str) or issuer == _own_issuer(ctx):
        return None
    with ctx.store.read() as connection:
        known = store.trusts_of_issuer(connection, issuer)
    if not known:
        return None
    fitting = [(service_id, trust) for service_id, trust in known if _fits(trust, claims)]
    if len({service_id for service_id, _ in fitting}) != 1:
        raise _refused()  # nobody's, or, by two audiences in one token, more than one's
    service_id, trust = fitting[0]
    # What was read above is what is verified here: the claims are of the very same text.
    if not _fits(trust, issuers.verify(raw_token, trust)):
        raise _refused()
    with ctx.store.read() as connection:
        row = to_read(connection, service_id)
    note_use = partial(store.note_trust_use, trust_id=trust.id, now=ctx.clock.now())
    return let_in(ctx, row, visit, trust.last_used_at, note_use)


def _verify(ctx: Context, new: NewTrust) -> None:
    for field in ("issuer", "subject", "audience"):
        text = getattr(new, field)
        if not (0 < len(text) <= _LONGEST and text.isprintable()):
            raise InvalidRequestError(
                f"`{field}` has 1 to {_LONGEST} visible characters.", hint="Name it exactly.", field=field
            )
    for field, url in (("issuer", new.issuer), ("jwks_url", new.jwks_url)):
        why = refuse_url(url) if url else None
        if why is not None:
            raise InvalidRequestError(
                f"`{field}`: the URL {why}.",
                hint="It is of https, as in the tokens' claim `iss`.",
                code="invalid_url",
                field=field,
            )
    if new.issuer == _own_issuer(ctx):
        raise InvalidRequestError(
            "The identity provider's own tokens are people's and programs', and never a service's.",
            hint="Trust another issuer, or use a client secret.",
            field="issuer",
        )
    if new.ca_file and not (Path(new.ca_file).is_absolute() and Path(new.ca_file).is_file()):
        raise InvalidRequestError(
            "`ca_file` is not the whole path of a file on this machine.",
            hint="It must be readable by the server.",
            field="ca_file",
        )


def _own_issuer(ctx: Context) -> str:
    return f"{ctx.public_url}/identity"


def _fits(trust: TrustView, claims: Mapping[str, Any]) -> bool:
    audience = claims.get("aud")
    named = audience if isinstance(audience, list) else [audience]
    return claims.get("sub") == trust.subject and trust.audience in named


def _unverified(raw_token: str) -> Mapping[str, Any]:
    """The claims as the token says them, of anybody's making; none where it is no JWT."""
    parts = raw_token.split(".")
    if len(parts) != 3 or len(raw_token) > _LONGEST_TOKEN:
        return {}
    try:
        claims = json.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
    except (ValueError, RecursionError):
        return {}
    return claims if isinstance(claims, dict) else {}


def _refused() -> InvalidTokenError:
    return InvalidTokenError(
        "The token is not valid for a service.",
        hint="Its issuer is trusted; subject, audience, time or signature are not what the trust says. "
        "`taskcred admin service show` lists the trusts.",
    )
