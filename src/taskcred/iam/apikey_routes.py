"""`/v1/apikeys`, as IBM's SDK uses it."""

from __future__ import annotations

from typing import Any, Final

import sqlalchemy as sa
from flask import Blueprint, Response, jsonify, request

from taskcred.domain.secret import Secret
from taskcred.errors import ForbiddenError
from taskcred.iam import accounts, apikeys, paging, tables
from taskcred.iam.callers import Caller, caller_of
from taskcred.iam.entities import answer_entity, change, read_header, verify_if_match, verify_unlocked
from taskcred.iam.errors import NOT_A_MEMBER
from taskcred.iam.fields import DESCRIPTION_LENGTH, Fields, invalid, missing
from taskcred.iam.histories import activity_as_json, history_of
from taskcred.iam.service import LocalIam

_SORTABLE: Final = frozenset({"name", "description", "created_at", "created_by"})
_NO_CONTENT: Final = 204

_k, _s = tables.api_keys, tables.service_ids


def routes(iam: LocalIam) -> Blueprint:
    """The routes, over one local IAM."""
    blueprint = Blueprint("apikeys", __name__)

    def caller() -> Caller:
        return caller_of(request, iam.tokens, iam.database)

    def writer() -> Caller:
        found = caller()
        found.verify_may_write()
        return found

    @blueprint.post("/v1/apikeys")
    def create() -> Response:
        by = writer()
        fields = Fields.of(request)
        iam_id = fields.text("iam_id", required=True)
        account_id = fields.text("account_id") or by.account_id
        new = apikeys.NewKey.read(
            fields,
            iam.clock.now(),
            locked=read_header(request, "Entity-Lock"),
            disabled=read_header(request, "Entity-Disable"),
        )
        _verify_may_create(iam, by, new, account_id, iam_id)
        key_id = apikeys.new_key_id()
        value = new.value or apikeys.draw_value()
        if new.is_stored:
            iam.stored_values.keep(key_id, value)
        with iam.database.write() as connection:
            apikeys.add(
                connection,
                key_id,
                new,
                value=value,
                account_id=account_id,
                iam_id=iam_id,
                by=by.iam_id,
                now=iam.clock.now(),
            )
            row = _found(connection, by, key_id)
        return answer_entity(apikeys.as_json(row, value=value), 201)

    @blueprint.get("/v1/apikeys")
    def list_keys() -> Response:
        by = caller()
        page = paging.read_page(request.args, _k, _SORTABLE)
        where = _visible(by)
        wants_history = paging.read_flag(request.args, "include_history")
        with iam.database.read() as connection:
            rows = paging.fetch(connection, _k, page, *where)
            items = [_described(connection, row, wants_history) for row in rows[: page.size]]
        return jsonify(
            paging.as_json(
                page,
                rows,
                items,
                field="apikeys",
                url=f"{iam.config.public_url}/v1/apikeys",
                query=request.args,
            )
        )

    @blueprint.get("/v1/apikeys/details")
    def details() -> Response:
        by = caller()
        raw_value = request.headers.get("IAM-ApiKey", "")
        if not raw_value:
            raise missing("IAM-ApiKey")
        wants_history = paging.read_flag(request.args, "include_history")
        with iam.database.read() as connection:
            # Header texts are Latin-1 (PEP 3333); a key may hold any characters, which clients send in UTF-8.
            row = apikeys.find_by_value(connection, Secret(raw_value)) or apikeys.find_by_value(
                connection, Secret(_as_utf8(raw_value))
            )
            if row is None or not by.may_manage(row.account_id, row.iam_id):
                raise apikeys.not_found()
            body = _described(connection, row, wants_history)
        return answer_entity(body)

    @blueprint.get("/v1/apikeys/<key_id>")
    def get(key_id: str) -> Response:
        by = caller()
        wants_history = paging.read_flag(request.args, "include_history")
        wants_activity = paging.read_flag(request.args, "include_activity")
        if wants_activity:
            iam.exchange.flush()
        with iam.database.read() as connection:
            row = _found(connection, by, key_id)
            body = _described(connection, row, wants_history)
        if wants_activity:
            body["activity"] = activity_as_json(row.authn_count, row.last_authn_at)
        return answer_entity(_with_value(iam, by, row, body))

    @blueprint.put("/v1/apikeys/<key_id>")
    def update(key_id: str) -> Response:
        by = writer()
        fields = Fields.of(request)
        values = _changes(fields)
        with iam.database.write() as connection:
            row = _found(connection, by, key_id)
            verify_if_match(request, row)
            verify_unlocked(row, "API key")
            change(connection, _k, row, values, action="apikey:update", by=by.iam_id, now=iam.clock.now())
            changed = _found(connection, by, key_id)
        return answer_entity(_with_value(iam, by, changed, apikeys.as_json(changed)))

    @blueprint.delete("/v1/apikeys/<key_id>")
    def delete(key_id: str) -> tuple[str, int]:
        by = writer()
        with iam.database.write() as connection:
            row = _found(connection, by, key_id)
            verify_unlocked(row, "API key")
            apikeys.delete(connection, row, by=by.iam_id, now=iam.clock.now())
            _note(iam, "iam_key", row)
        if row.stored:
            iam.stored_values.destroy(row.id)
        return "", _NO_CONTENT

    def mark(column: str, action: str, *, to: bool, key_id: str) -> tuple[str, int]:
        # Disabling takes something away, so a lock does not stand against it.
        by = writer()
        with iam.database.write() as connection:
            row = _found(connection, by, key_id)
            if getattr(row, column) is not to:
                change(connection, _k, row, {column: to}, action=action, by=by.iam_id, now=iam.clock.now())
                if column == "disabled":
                    _note(iam, "iam_key_disabled" if to else "iam_key_enabled", row)
        return "", _NO_CONTENT

    @blueprint.post("/v1/apikeys/<key_id>/lock")
    def lock(key_id: str) -> tuple[str, int]:
        return mark("locked", "apikey:lock", to=True, key_id=key_id)

    @blueprint.delete("/v1/apikeys/<key_id>/lock")
    def unlock(key_id: str) -> tuple[str, int]:
        return mark("locked", "apikey:unlock", to=False, key_id=key_id)

    @blueprint.post("/v1/apikeys/<key_id>/disable")
    def disable(key_id: str) -> tuple[str, int]:
        return mark("disabled", "apikey:disable", to=True, key_id=key_id)

    @blueprint.delete("/v1/apikeys/<key_id>/disable")
    def enable(key_id: str) -> tuple[str, int]:
        return mark("disabled", "apikey:enable", to=False, key_id=key_id)

    return blueprint


def _note(iam: LocalIam, kind: str, row: sa.Row[Any]) -> None:
    """Tell the log outside every backup, before the commit: what cannot be logged is not taken away."""
    iam.revocations.append(kind, row.id, row.account_id, row.iam_id)


def _verify_may_create(iam: LocalIam, by: Caller, new: apikeys.NewKey, account_id: str, iam_id: str) -> None:
    """Raise where the caller may not make this key, or the identity is not in the account."""
    if not by.may_manage(account_id, iam_id):
        raise ForbiddenError(
            "You are not authorized to create an API key for this identity.",
            hint="Create a key for yourself, or ask an administrator of the account.",
        )
    with iam.database.read() as connection:
        is_person = accounts.is_administrator(connection, account_id, iam_id) is not None
        is_service_id = any(
            account.id == account_id for account in accounts.account_of_service_id(connection, iam_id)
        )
    if not is_person and not is_service_id:
        raise ForbiddenError(
            "This identity is not in the account.",
            hint="Name a member or a service id of the account.",
            bxnim=NOT_A_MEMBER,
        )
    if is_person and new.is_stored:
        raise invalid("store_value", "The value of a user's API key is never stored; leave this out.")


def _found(connection: sa.Connection, by: Caller, key_id: str) -> sa.Row[Any]:
    row = apikeys.find(connection, key_id)
    if row is None or not by.may_manage(row.account_id, row.iam_id):
        raise apikeys.not_found()
    return row


def _visible(by: Caller) -> list[sa.ColumnElement[bool]]:
    """What of the list the query asks for, within what the caller may see."""
    query = request.args
    if paging.read_text(query, "account_id") not in {"", by.account_id}:
        raise ForbiddenError(
            "Your access token is for another account.", hint="Use a token for this account."
        )
    where = [_k.c.account_id == by.account_id]
    scope = paging.read_text(query, "scope") or "entity"
    if scope not in {"entity", "account"}:
        raise invalid("scope", "It must be entity or account.")
    iam_id = paging.read_text(query, "iam_id")
    if iam_id or scope == "entity" or not by.is_administrator:
        wanted = iam_id or by.iam_id
        if not by.may_manage(by.account_id, wanted):
            raise ForbiddenError(
                "You are not authorized to list the API keys of this identity.",
                hint="List your own, or ask an administrator of the account.",
            )
        where.append(_k.c.iam_id == wanted)
    kind = paging.read_text(query, "type")
    if kind not in {"", "user", "serviceid"}:
        raise invalid("type", "It must be user or serviceid.")
    if kind:
        is_service_id = _k.c.iam_id.in_(sa.select(_s.c.iam_id))
        where.append(is_service_id if kind == "serviceid" else sa.not_(is_service_id))
    return where


def _described(connection: sa.Connection, row: sa.Row[Any], wants_history: bool) -> dict[str, Any]:
    body = apikeys.as_json(row)
    if wants_history:
        body["history"] = history_of(connection, row.id)
    return body


def _with_value(iam: LocalIam, by: Caller, row: sa.Row[Any], body: dict[str, Any]) -> dict[str, Any]:
    """`body` with the kept value of a service id's key; a run never gets to see one."""
    value = iam.stored_values.open(row.id) if row.stored and not by.is_run else None
    # Whoever set store_value asked to be shown the value here.
    return {**body, "apikey": value.reveal()} if value else body


def _changes(fields: Fields) -> dict[str, Any]:
    """The columns an update sets: only what was sent; an empty text takes a value away."""
    values: dict[str, Any] = {}
    if fields.has("name"):
        values["name"] = fields.text("name", required=True)
    if fields.has("description"):
        values["description"] = fields.text("description", at_most=DESCRIPTION_LENGTH, lines=True)
    if fields.has("support_sessions"):
        values["support_sessions"] = fields.boolean("support_sessions")
    if fields.has("action_when_leaked"):
        values["action_when_leaked"] = fields.choice("action_when_leaked", apikeys.LEAK_ACTIONS, "none")
    if fields.has("expires_at"):
        values["expires_at"] = fields.instant("expires_at")
    return values


def _as_utf8(header: str) -> str:
    try:
        return header.encode("latin-1").decode()
    except ValueError:
        return header
