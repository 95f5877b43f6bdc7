"""`/identity/act-for`, which is ours: whom the token's own person may act for (`serviceid:act`).

Only a person who signed in is answered, about themself, for the account of their token.
"""

from __future__ import annotations

from typing import Any

from flask import Blueprint, Response, jsonify, request

from taskcred.errors import ForbiddenError, NotFoundError
from taskcred.iam.acting import acts_for
from taskcred.iam.callers import Caller, caller_of
from taskcred.iam.service import LocalIam
from taskcred.iam.serviceids import ServiceId


def routes(iam: LocalIam) -> Blueprint:
    """The routes, over one local IAM."""
    blueprint = Blueprint("acting", __name__)

    def person() -> Caller:
        caller = caller_of(request, iam.tokens, iam.database)
        if not caller.is_interactive:
            raise ForbiddenError(
                "Only a person who signed in acts for a service id.",
                hint="Sign in. A program that has a key of the service id uses it directly.",
            )
        return caller

    @blueprint.get("/identity/act-for")
    def all_of_them() -> Response:
        by = person()
        with iam.database.read() as connection:
            found = acts_for(connection, by.account_id, by.iam_id)
        return jsonify({"service_ids": [_as_json(service_id) for service_id in found]})

    @blueprint.get("/identity/act-for/<iam_id>")
    def one_of_them(iam_id: str) -> Response:
        by = person()
        with iam.database.read() as connection:
            found = [each for each in acts_for(connection, by.account_id, by.iam_id) if each.iam_id == iam_id]
        if not found:
            # One answer for a service id that is not there and for one that is not this person's to act for.
            raise NotFoundError(
                "You may not act for this service id in this account.",
                hint="The operator of the server lets you: `taskcred iam allow-act`.",
            )
        return jsonify(_as_json(found[0]))

    return blueprint


def _as_json(service_id: ServiceId) -> dict[str, Any]:
    return {
        "id": service_id.id,
        "iam_id": service_id.iam_id,
        "account_id": service_id.account_id,
        "name": service_id.name,
    }
