"""Profile and settings, tab User API key: list, create, rename, rotate, end, delete."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final

from flask import request
from flask.typing import ResponseReturnValue

from taskcred.domain.credentials import (
    Created,
    CredentialState,
    CredentialView,
    Drain,
    KeyState,
    is_safe_to_delete,
)
from taskcred.errors import (
    ConflictError,
    InvalidRequestError,
    KeyRefusedError,
    NotFoundError,
    PolicyViolationError,
    RateLimitedError,
    StalePreconditionError,
    TaskcredError,
    UnavailableError,
)
from taskcred.http.authentication import context as ctx
from taskcred.http.problems import status_of
from taskcred.http.safe_return import safe_return
from taskcred.services import credentials
from taskcred.web.frame import blueprint, fragment, fresh, go, me, render, say
from taskcred.web.sources import EXPIRY_CHOICES, SourceForm, read_source

HERE: Final = "/profile/api-key"
_LIVE: Final = frozenset({KeyState.ACTIVE, KeyState.PHASED_OUT})

# The services' names of what the forms ask for.
_FIELDS: Final = {
    "name": "name",
    "description": "description",
    "expires_at": "expiry",
    "drain": "drain",
    "secret.api_key": "api_key",
}

# What a form answers in place, with its values kept; anything else gets a page of its own.
MENDABLE: Final = (
    ConflictError,
    InvalidRequestError,
    KeyRefusedError,
    PolicyViolationError,
    RateLimitedError,
    StalePreconditionError,
    UnavailableError,
)


def own_credential() -> CredentialView | None:
    """The person's task credential in this account; one at most."""
    own = credentials.list_own(ctx(), me())
    return own[0] if own else None


def _required() -> CredentialView:
    credential = own_credential()
    if credential is None:
        raise NotFoundError(
            "You have no User API key in this account.",
            hint="Create one first.",
            action_url=f"{ctx().public_url}{HERE}/create",
        )
    return credential


@blueprint.get("/profile")
def profile() -> ResponseReturnValue:
    """Profile and settings opens on its first tab."""
    return go(HERE)


@blueprint.get(HERE)
def api_key() -> ResponseReturnValue:
    """The key list."""
    return render("api_key.html", title="User API key", **_keys())


@blueprint.get(f"{HERE}/live")
def api_key_live() -> ResponseReturnValue:
    """The key list alone, for polling while a key is being made."""
    return fragment("_keys.html", **_keys())


def _keys() -> dict[str, object]:
    credential = own_credential()
    if credential is None:
        return {"credential": None}
    keys = credentials.keys(ctx(), me(), credential.id)
    now = ctx().clock.now()
    return {
        "credential": credential,
        "impact": credentials.impact(ctx(), me(), credential.id),
        "keys": [key for key in keys if key.state in _LIVE],
        "earlier": [key for key in keys if key.state not in _LIVE],
        "safe": {key.id for key in keys if is_safe_to_delete(key, now)},
    }


@blueprint.route(f"{HERE}/create", methods=["GET", "POST"])
@fresh
def create_key() -> ResponseReturnValue:
    """Create key: name and purpose, where the key comes from, when it expires. `return_to` is where one goes
    on afterwards."""
    then = safe_return(request.args.get("return_to", HERE))
    if own_credential() is not None and request.method == "GET":
        say("You already have a User API key in this account. Rotate it to replace the key.", "wait")
        return go(HERE)
    if request.method == "GET":
        return _create_form({}, SourceForm(), {})
    source, filled = read_source(request.form, ctx().clock.now())
    errors = dict(filled.errors)
    name = request.form.get("name", "").strip()
    if not name:
        errors["name"] = "Enter a name, in your own words."
    if source is None or errors:
        return _create_form(request.form, filled, errors), 422
    try:
        created = credentials.create(
            ctx(), me(), name=name, description=request.form.get("description", "").strip(), source=source
        )
    except MENDABLE as error:
        return _create_form(request.form, filled, refused(error)), status_of(error)
    return after_key(created, "Your key was created. Runs that waited for it go on.", then)


def _create_form(values: Mapping[str, str], filled: SourceForm, errors: dict[str, str]) -> str:
    return render(
        "create_key.html",
        title="Create key",
        values=values,
        source=filled,
        expiry_choices=EXPIRY_CHOICES,
        errors=errors,
        today=ctx().clock.now().date(),
    )


def refused(error: TaskcredError) -> dict[str, str]:
    """A service's refusal as a complaint beside the field it is about, or above the form."""
    if isinstance(error, StalePreconditionError):
        return {
            "": "It was changed elsewhere after you opened this form, so nothing was saved. Open it again."
        }
    field = "secret.api_key" if isinstance(error, KeyRefusedError) else error.details.get("field", "")
    return {_FIELDS.get(str(field), ""): f"{error.message} {error.hint}".strip()}


def after_key(created: Created, done: str, then: str) -> ResponseReturnValue:
    """After a key was made: show it once where that was asked, else go on to `then`.

    The key's page is the answer to the form itself and is stored nowhere: no redirect could carry it.
    """
    if created.shown_once is not None:
        return render(
            "key_once.html",
            title="Your new key",
            # Its owner needs the text: they asked to see it, this once.
            key=created.shown_once.reveal(),
            done=done,
            then=then,
        )
    if not then.startswith("/"):
        return go(then)  # what is said here would be read who knows when
    if created.stage == "done":
        say(done)
    else:
        say("The change is under way. This page shows when it is done.", "busy")
    return go(then)


@blueprint.route(f"{HERE}/edit", methods=["GET", "POST"])
def edit_key() -> ResponseReturnValue:
    """Name and purpose."""
    credential = _required()
    errors: dict[str, str] = {}
    if request.method == "POST":
        try:
            credentials.update(
                ctx(),
                me(),
                credential.id,
                name=request.form.get("name", "").strip(),
                description=request.form.get("description", "").strip(),
                if_match=request.form.get("revision", type=int),
            )
        except MENDABLE as error:
            errors = refused(error)
        else:
            say("Name and purpose were saved.")
            return go(HERE)
    page = render(
        "edit_key.html",
        title="Edit name and purpose",
        credential=credential,
        values=request.form
        or {
            "name": credential.name,
            "description": credential.description,
            "revision": str(credential.revision),
        },
        errors=errors,
    )
    return (page, 422) if errors else page


@blueprint.route(f"{HERE}/rotate", methods=["GET", "POST"])
@fresh
def rotate_key() -> ResponseReturnValue:
    """Rotate key: a new key first, then the old one ends as chosen. `?leaked=1` ends the old one first."""
    credential = _required()
    leaked = bool(request.args.get("leaked"))
    if credential.state not in {CredentialState.USABLE, CredentialState.UNUSABLE}:
        say("This key cannot be rotated now; see its state below.", "wait")
        return go(HERE)
    if request.method == "GET":
        return _rotate_form(credential, leaked, {}, SourceForm(), {})
    source, filled = read_source(request.form, ctx().clock.now())
    errors = dict(filled.errors)
    drain = Drain("now") if leaked else _drain(request.form, ctx().clock.now(), errors)
    # The form names the key it was opened for: sent a second time, it must not rotate the new one away.
    if request.form.get("replaces", "") != (credential.active_key.id if credential.active_key else ""):
        errors[""] = "The key was already replaced after this form was opened. See the list of keys."
    if source is None or errors:
        return _rotate_form(credential, leaked, request.form, filled, errors), 422
    try:
        created = credentials.rotate(ctx(), me(), credential.id, source=source, drain=drain, leaked=leaked)
    except MENDABLE as error:
        return _rotate_form(credential, leaked, request.form, filled, refused(error)), status_of(error)
    done = "Your key was rotated. Jobs move to the new key by themselves."
    return after_key(created, "The leaked key was revoked and replaced." if leaked else done, HERE)


def _drain(form: Mapping[str, str], now: datetime, errors: dict[str, str]) -> Drain:
    match form.get("drain"):
        case "tokens":
            return Drain("tokens")
        case "now":
            return Drain("now")
        case "at":
            try:
                at = datetime.fromisoformat(form.get("drain_at", "")).replace(tzinfo=UTC)
            except ValueError:
                errors["drain_at"] = "Enter the date and time, in UTC, at which the old key ends."
            else:
                if at > now:
                    return Drain("at", at)
                errors["drain_at"] = "Choose a time in the future."
        case _:
            errors["drain"] = "Choose when the old key ends."
    return Drain()


def _rotate_form(
    credential: CredentialView,
    leaked: bool,
    values: Mapping[str, str],
    filled: SourceForm,
    errors: dict[str, str],
) -> str:
    return render(
        "rotate_key.html",
        title="Replace a leaked key" if leaked else "Rotate key",
        credential=credential,
        leaked=leaked,
        values=values,
        source=filled,
        expiry_choices=EXPIRY_CHOICES,
        errors=errors,
        today=ctx().clock.now().date(),
    )


@blueprint.route(f"{HERE}/delete", methods=["GET", "POST"])
@fresh
def delete_key() -> ResponseReturnValue:
    """Delete: what would break, then the name typed."""
    credential = _required()
    errors: dict[str, str] = {}
    if request.method == "POST":
        if request.form.get("confirm", "").strip() == credential.name:
            credentials.delete(ctx(), me(), credential.id)
            say(f"The key {credential.name} was deleted. Nothing can use it any more.")
            return go(HERE)
        errors["confirm"] = "This is not the key's name. Type it exactly as shown."
    page = render(
        "delete_key.html",
        title="Delete key",
        credential=credential,
        impact=credentials.impact(ctx(), me(), credential.id),
        values=request.form,
        errors=errors,
    )
    return (page, 422) if errors else page


@blueprint.route(f"{HERE}/keys/<key_id>/end", methods=["GET", "POST"])
@fresh
def end_key(key_id: str) -> ResponseReturnValue:
    """End a phased-out key now instead of when it would end by itself."""
    credential = _required()
    found = [key for key in credentials.keys(ctx(), me(), credential.id) if key.id == key_id]
    if not found or found[0].state is not KeyState.PHASED_OUT:
        say("This key is not phased out any more.", "wait")
        return go(HERE)
    if request.method == "POST":
        credentials.end_key(ctx(), me(), credential.id, key_id)
        say("The old key was ended.")
        return go(HERE)
    return render(
        "end_key.html",
        title="End the old key now",
        credential=credential,
        key=found[0],
        safe=is_safe_to_delete(found[0], ctx().clock.now()),
    )
