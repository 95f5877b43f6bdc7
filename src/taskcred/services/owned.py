"""A caller's own credential, or none: another's existence is never told."""

from __future__ import annotations

import sqlalchemy as sa

from taskcred.domain.credentials import CredentialState, CredentialView
from taskcred.domain.permissions import Principal
from taskcred.errors import NotFoundError
from taskcred.store import credentials


def find(connection: sa.Connection, principal: Principal, credential_id: str) -> CredentialView:
    """The caller's credential. Raises NotFoundError for another's, an ended one and none alike."""
    return _require(credentials.find(connection, credential_id), principal)


def find_for_change(connection: sa.Connection, principal: Principal, credential_id: str) -> CredentialView:
    """The same, locked until the transaction ends."""
    return _require(credentials.find_for_change(connection, credential_id), principal)


def _require(credential: CredentialView | None, principal: Principal) -> CredentialView:
    if (
        credential is None
        or credential.state is CredentialState.ENDED
        or (credential.account_id, credential.iam_id) != (principal.account_id, principal.iam_id)
    ):
        raise NotFoundError(
            "There is no such task credential.", hint="List your task credentials to see its id."
        )
    return credential
