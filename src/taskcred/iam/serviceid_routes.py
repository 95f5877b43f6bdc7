"""`/v1/serviceids`, as IBM's SDK uses it, and `/v1/accounts`, which is ours.

IBM's SDK writes the collection with a slash at its end, IBM's documentation without: both are served.
"""

from __future__ import annotations

from typing import Any, Final

import sqlalchemy as sa
from flask import Blueprint, Response, jsonify, request

from taskcred.errors import ForbiddenError
from taskcred.iam import accounts, apikeys, paging, serviceids, tables
from taskcred.iam.callers import Caller, bearer_of, caller_of
from taskcred.iam.entities import answer_entity, change, read_header, verify_if_match, verify_unlocked
from taskcred.iam.fields import DESCRIPTION_LENGTH, Fields
from taskcred.iam.histories import activity_as_json, history_of
from taskcred.iam.service import LocalIam

_SORTABLE: Final = frozenset({"name", "description", "created_at", "modified_at"})
_NO_CONTENT: Final = 204

_s, _k = tables.service_ids, tables.api_keys


def routes(iam: LocalIam) -> Blueprint:
    """The routes, over one local IAM."""
    blueprint = Blueprint("serviceids", __name__)

    def caller() -> Caller:
        return caller_of(request, iam.tokens, iam.database)

    def administrator() -> Caller:
        found = caller()
        found.verify_may_write()
        found.verify_administrator()
        return found

    @blueprint.get("/v1/accounts")
    def own_accounts() -> Response:
        iam_id = iam.tokens.verify_access_token(bearer_of(request))["iam_id"]
        with iam.database.read() as connection:
            own = accounts.accounts_of(connection, iam_id) or accounts.account_of_service_id(
                connection, iam_id
            )
        return jsonify({"accounts": [{"id": account.id, "name": account.name} for account in own]})

    @blueprint.post("/v1/serviceids/")
    def create() -> Response:
        by = administrator()
        fields = Fields.of(request)
        _verify_own_account(by, fields.text("account_id", required=True))
        new = serviceids.NewServiceId.read(fields, locked=read_header(request, "Entity-Lock"))
        show_group_id = paging.read_flag(request.args, "show_group_id")
        inner = fields.object("apikey")
        now = iam.clock.now()
        new_key = apikeys.NewKey.read(inner, now) if inner else None
        key_id = apikeys.new_key_id()
        value = (new_key.value if new_key else None) or apikeys.draw_value()
        if new_key and new_key.is_stored:
            iam.stored_values.keep(key_id, value)
        with iam.database.write() as connection:
            row = serviceids.add(connection, new, account_id=by.account_id, by=by.iam_id, now=now)
            body = serviceids.as_json(row, show_group_id=show_group_id)
            if new_key:
                apikeys.add(
                    connection,
                    key_id,
                    new_key,
                    value=value,
                    account_id=by.account_id,
                    iam_id=row.iam_id,
                    by=by.iam_id,
                    now=now,
                )
                key = connection.execute(sa.select(_k).where(_k.c.id == key_id)).one()
                body["apikey"] = apikeys.as_json(key, value=value)
        return answer_entity(body, 201)

    @blueprint.get("/v1/serviceids/")
    def list_service_ids() -> Response:
        by = caller()
        by.verify_administrator()
        query = request.args
        _verify_own_account(by, paging.read_text(query, "account_id") or by.account_id)
        page = paging.read_page(query, _s, _SORTABLE)
        where = [_s.c.account_id == by.account_id]
        for name in ("name", "group_id"):
            wanted = paging.read_text(query, name)
            if wanted:
                where.append(_s.c[name] == wanted)
        wants_history = paging.read_flag(query, "include_history")
        show_group_id = paging.read_flag(query, "show_group_id")
        with iam.database.read() as connection:
            rows = paging.fetch(connection, _s, page, *where)
            items = [_described(connection, row, wants_history, show_group_id) for row in rows[: page.size]]
        return jsonify(
            paging.as_json(
                page,
                rows,
                items,
                field="serviceids",
                url=f"{iam.config.public_url}/v1/serviceids/",
                query=query,
            )
        )

    @blueprint.get("/v1/serviceids/<service_id>")
    def get(service_id: str) -> Response:
        by = caller()
        wants_history = paging.read_flag(request.args, "include_history")
        wants_activity = paging.read_flag(request.args, "include_activity")
        show_group_id = paging.read_flag(request.args, "show_group_id")
        if wants_activity:
            iam.exchange.flush()
        with iam.database.read() as connection:
            row = serviceids.get(connection, service_id, by.account_id)
            if row.iam_id != by.iam_id:
                by.verify_administrator()
            body = _described(connection, row, wants_history, show_group_id)
            if wants_activity:
                count, last_at = connection.execute(
                    sa.select(
                        sa.func.coalesce(sa.func.sum(_k.c.authn_count), 0), sa.func.max(_k.c.last_authn_at)
                    ).where(_k.c.iam_id == row.iam_id)
                ).one()
                body["activity"] = activity_as_json(count, last_at)
        return answer_entity(body)

    @blueprint.put("/v1/serviceids/<service_id>")
    def update(service_id: str) -> Response:
        by = administrator()
        fields = Fields.of(request)
        values = _changes(fields)
        show_group_id = paging.read_flag(request.args, "show_group_id")
        with iam.database.write() as connection:
            row = serviceids.get(connection, service_id, by.account_id)
            verify_if_match(request, row)
            verify_unlocked(row, "service id")
            change(connection, _s, row, values, action="serviceid:update", by=by.iam_id, now=iam.clock.now())
            changed = serviceids.get(connection, service_id, by.account_id)
        return answer_entity(serviceids.as_json(changed, show_group_id=show_group_id))

    @blueprint.delete("/v1/serviceids/<service_id>")
    def delete(service_id: str) -> tuple[str, int]:
        by = administrator()
        with iam.database.write() as connection:
            row = serviceids.get(connection, service_id, by.account_id)
            verify_unlocked(row, "service id")
            kept = serviceids.delete(connection, row, by=by.iam_id, now=iam.clock.now())
            # Before the commit: what cannot be logged is not taken away.
            iam.revocations.append("iam_service_id", row.id, row.account_id, row.iam_id)
        for key_id in kept:
            iam.stored_values.destroy(key_id)
        return "", _NO_CONTENT

    def mark(service_id: str, action: str, *, locked: bool) -> tuple[str, int]:
        by = administrator()
        with iam.database.write() as connection:
            row = serviceids.get(connection, service_id, by.account_id)
            if row.locked is not locked:
                change(
                    connection, _s, row, {"locked": locked}, action=action, by=by.iam_id, now=iam.clock.now()
                )
        return "", _NO_CONTENT

    @blueprint.post("/v1/serviceids/<service_id>/lock")
    def lock(service_id: str) -> tuple[str, int]:
        return mark(service_id, "serviceid:lock", locked=True)

    @blueprint.delete("/v1/serviceids/<service_id>/lock")
    def unlock(service_id: str) -> tuple[str, int]:
        return mark(service_id, "serviceid:unlock", locked=False)

    return blueprint


def _verify_own_account(by: Caller, account_id: str) -> None:
    if account_id != by.account_id:
        raise ForbiddenError(
            "Your access token is for another account.", hint="Use a token for this account."
        )


def _described(
    connection: sa.Connection, row: sa.Row[Any], wants_history: bool, show_group_id: bool
) -> dict[str, Any]:
    body = serviceids.as_json(row, show_group_id=show_group_id)
    if wants_history:
        body["history"] = history_of(connection, row.id)
    return body


def _changes(fields: Fields) -> dict[str, Any]:
    """The columns an update sets: only what was sent; an empty value takes one away."""
    values: dict[str, Any] = {}
    if fields.has("name"):
        values["name"] = fields.text("name", required=True)
    if fields.has("description"):
        values["description"] = fields.text("description", at_most=DESCRIPTION_LENGTH, lines=True)
    if fields.has("unique_instance_crns"):
        values["unique_instance_crns"] = fields.texts("unique_instance_crns")
    return values
