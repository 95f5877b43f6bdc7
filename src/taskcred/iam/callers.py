"""Who calls the resource routes, and what they may do there.

Members manage their own keys, and those of service ids they may act for, while they are signed in;
administrators of an account manage its service ids and everybody's keys.
A token that was exchanged for a run reads, and changes nothing (dead-with-the-run).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import sqlalchemy as sa
from flask import Request

from taskcred.errors import ForbiddenError, InvalidTokenError
from taskcred.iam import tables
from taskcred.iam.accounts import is_administrator
from taskcred.iam.acting import acts_for
from taskcred.iam.clients import PAGES
from taskcred.iam.database import Database
from taskcred.iam.errors import NO_AUTHORIZATION, NOT_A_MEMBER
from taskcred.iam.tokens import GRANT_API_KEY, INTERACTIVE, Tokens

_SCHEME: Final = "bearer "


@dataclass(frozen=True, slots=True)
class Caller:
    """An authenticated caller, in the account its token is for."""

    iam_id: str
    account_id: str
    is_administrator: bool
    is_run: bool
    is_interactive: bool
    acts_for: frozenset[str]  # iam_ids of service ids of the account; empty unless a person signed in

    def may_manage(self, account_id: str, iam_id: str) -> bool:
        """Whether the keys of `iam_id` in `account_id` are this caller's to see and change."""
        is_own = iam_id == self.iam_id or iam_id in self.acts_for
        return account_id == self.account_id and (self.is_administrator or is_own)

    def verify_may_write(self) -> None:
        """Raise ForbiddenError for the token of a run."""
        if self.is_run:
            raise ForbiddenError(
                "This access token was handed to a run and cannot change keys or service ids.",
                hint="Use a token made from your own API key, or sign in.",
                code="run_token",
            )

    def verify_administrator(self) -> None:
        """Raise ForbiddenError for all but administrators of the account."""
        if not self.is_administrator:
            raise ForbiddenError(
                "You are not authorized to manage service ids in this account.",
                hint="Ask an administrator of the account.",
            )


def bearer_of(request: Request) -> str:
    """The request's bearer token, unchecked. Raises InvalidTokenError (401) where there is none."""
    header = request.headers.get("Authorization", "")
    if header[: len(_SCHEME)].lower() != _SCHEME or not header[len(_SCHEME) :].strip():
        raise InvalidTokenError(
            "Authorization header missing.",
            hint="Send an access token: 'Authorization: Bearer ...'.",
            bxnim=NO_AUTHORIZATION,
        )
    return header[len(_SCHEME) :].strip()


def caller_of(request: Request, tokens: Tokens, database: Database) -> Caller:
    """The caller of a resource route. Raises InvalidTokenError; ForbiddenError where the token's owner is
    no longer in its account."""
    claims = tokens.verify_access_token(bearer_of(request))
    iam_id: str = claims["iam_id"]
    account_id: str = claims["account"]["bss"]
    is_interactive = claims["grant_type"] in INTERACTIVE
    s = tables.service_ids
    with database.read() as connection:
        administrator = is_administrator(connection, account_id, iam_id)
        is_known = administrator is not None or (
            connection.execute(
                sa.select(s.c.id).where(s.c.iam_id == iam_id, s.c.account_id == account_id)
            ).first()
            is not None
        )
        acting = acts_for(connection, account_id, iam_id) if is_interactive else []
    if not is_known:
        raise ForbiddenError(
            "You are not a member of this account.",
            hint="Sign in again, to an account you are a member of.",
            bxnim=NOT_A_MEMBER,
        )
    return Caller(
        iam_id,
        account_id,
        is_administrator=bool(administrator),
        is_interactive=is_interactive,
        acts_for=frozenset(service_id.iam_id for service_id in acting),
        is_run=claims["grant_type"] == GRANT_API_KEY and claims.get("client_id") == PAGES,
    )
