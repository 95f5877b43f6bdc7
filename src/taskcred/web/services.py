"""Administration, Services: what the person looks after. What a service may is the operator's to say."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import timedelta
from typing import Final, TypeVar

from flask import request
from flask.typing import ResponseReturnValue

from taskcred.domain.services import OVERLAP, SecretView, ServiceView, TrustView
from taskcred.errors import NotFoundError
from taskcred.http.authentication import context as ctx
from taskcred.http.problems import status_of
from taskcred.services import federation, registry, service_secrets
from taskcred.web.api_key import MENDABLE
from taskcred.web.frame import blueprint, fresh, go, me, render, say

T = TypeVar("T", SecretView, TrustView)

HERE: Final = "/administration/services"
_FIELDS: Final = ("title", "description", "callback_urls", "webhook_url")
OVERLAPS: Final = {
    int(OVERLAP.total_seconds()): "After 24 hours",
    3_600: "After one hour",
    7 * 86_400: "After 7 days",
    0: "Now",
}


@blueprint.get("/administration")
def administration() -> ResponseReturnValue:
    """Administration opens on its only room."""
    return go(HERE)


@blueprint.get(HERE)
def service_list() -> ResponseReturnValue:
    """The services that the person looks after."""
    return render("services.html", title="Services", services=registry.list_own(ctx(), me()))


@blueprint.get(f"{HERE}/<service_id>")
def service(service_id: str) -> ResponseReturnValue:
    """One service."""
    shown = _mine(service_id)
    return render(
        "service.html",
        title=shown.title or shown.name,
        service=shown,
        failed=registry.deliveries(ctx(), me(), service_id),
    )


@blueprint.route(f"{HERE}/<service_id>/edit", methods=["GET", "POST"])
@fresh
def edit_service(service_id: str) -> ResponseReturnValue:
    """Words for owners, and addresses."""
    shown = _mine(service_id)
    if request.method == "GET":
        values = {
            "title": shown.title,
            "description": shown.description,
            "callback_urls": "\n".join(shown.callback_urls),
            "webhook_url": shown.webhook_url,
            "revision": str(shown.revision),
        }
        return _edit_form(shown, values, {})
    form = {name: request.form.get(name, "").replace("\r\n", "\n").strip() for name in _FIELDS}
    change = registry.Change(
        title=form["title"],
        description=form["description"],
        callback_urls=tuple(filter(None, (line.strip() for line in form["callback_urls"].split("\n")))),
        webhook_url=form["webhook_url"],
    )
    revision = request.form.get("revision", type=int)
    try:
        registry.update(ctx(), me(), service_id, change, if_match=revision)
    except MENDABLE as error:
        field = str(error.details.get("field", ""))
        errors = {field if field in _FIELDS else "": f"{error.message} {error.hint}".strip()}
        return _edit_form(shown, {**form, "revision": str(revision or "")}, errors), status_of(error)
    first = bool(form["webhook_url"]) and not shown.webhook_url
    say(
        f"The service was saved.{' Replace its webhook secret: nobody knows the one it has.' if first else ''}"
    )
    return go(f"{HERE}/{service_id}")


def _edit_form(shown: ServiceView, values: Mapping[str, str], errors: dict[str, str]) -> str:
    return render("edit_service.html", title="Edit service", service=shown, values=values, errors=errors)


@blueprint.route(f"{HERE}/<service_id>/rotate-secret", methods=["GET", "POST"])
@fresh
def rotate_service_secret(service_id: str) -> ResponseReturnValue:
    """A new client secret, shown once; the old one ends as chosen."""
    shown = _mine(service_id)
    present = next((secret.id for secret in shown.secrets if secret.ends_at is None), "")
    errors: dict[str, str] = {}
    if request.method == "POST":
        seconds = request.form.get("overlap", type=int)
        if seconds not in OVERLAPS:
            errors["overlap"] = "Choose when the old secret ends."
        # The form names the secret it was opened for: sent a second time, it must not rotate the new one away.
        elif request.form.get("replaces", "") != present:
            errors[""] = "The secret was already replaced after this form was opened. See the service's page."
        else:
            overlap = timedelta(seconds=seconds)
            new = service_secrets.rotate(ctx(), me(), service_id, overlap=overlap)
            return _shown_once(shown, new, "Client secret", "The service proves itself with it.")
    page = render(
        "rotate_service_secret.html",
        title="Rotate the client secret",
        service=shown,
        present=present,
        overlaps=OVERLAPS,
        chosen=request.form.get("overlap", type=int),
        errors=errors,
    )
    return (page, 422) if errors else page


@blueprint.route(f"{HERE}/<service_id>/rotate-webhook-secret", methods=["GET", "POST"])
@fresh
def rotate_webhook_secret(service_id: str) -> ResponseReturnValue:
    """A new secret to sign webhooks with, shown once."""
    shown = _mine(service_id)
    if request.method == "POST":
        leaked = request.form.get("action") == "leaked"
        overlap = timedelta(0) if leaked else OVERLAP
        new = service_secrets.rotate_webhook(ctx(), me(), service_id, overlap=overlap)
        return _shown_once(shown, new, "Webhook secret", "The service checks with it who calls its webhook.")
    return render("rotate_webhook_secret.html", title="Replace the webhook secret", service=shown)


def _shown_once(
    shown: ServiceView, new: service_secrets.NewSecret, label: str, use: str
) -> ResponseReturnValue:
    """The page is the answer to the form itself and is stored nowhere: no redirect could carry it."""
    return render(
        "service_secret_once.html",
        title=f"{label} of {shown.title or shown.name}",
        label=label,
        use=use,
        # Its administrator asked for it, and puts it where the service finds it.
        secret=new.secret.reveal(),
        then=f"{HERE}/{shown.id}",
    )


@blueprint.route(f"{HERE}/<service_id>/secrets/<secret_id>/end", methods=["GET", "POST"])
@fresh
def end_service_secret(service_id: str, secret_id: str) -> ResponseReturnValue:
    """End a replaced secret now instead of when its overlap is over."""
    shown = _mine(service_id)
    secret = _one_of(shown.secrets, secret_id)
    if request.method == "POST":
        service_secrets.end_one(ctx(), me(), service_id, secret_id)
        say("The old secret was ended.")
        return go(f"{HERE}/{service_id}")
    return render("end_service_secret.html", title="End the old secret now", service=shown, secret=secret)


@blueprint.route(f"{HERE}/<service_id>/trusts/<trust_id>/end", methods=["GET", "POST"])
@fresh
def end_service_trust(service_id: str, trust_id: str) -> ResponseReturnValue:
    """Trust workloads no more."""
    shown = _mine(service_id)
    trust = _one_of(shown.trusts, trust_id)
    if request.method == "POST":
        federation.end_trust(ctx(), me(), service_id, trust_id)
        say("The trust was ended: these workloads are refused from now on.")
        return go(f"{HERE}/{service_id}")
    return render("end_service_trust.html", title="End a trust", service=shown, trust=trust)


@blueprint.route(f"{HERE}/<service_id>/disable", methods=["GET", "POST"])
@fresh
def disable_service(service_id: str) -> ResponseReturnValue:
    """Refuse the service, after a question."""
    shown = _mine(service_id)
    if request.method == "POST":
        registry.disable(ctx(), me(), service_id)
        say("The service is disabled: it is refused from now on.")
        return go(f"{HERE}/{service_id}")
    return render("disable_service.html", title="Disable service", service=shown)


@blueprint.post(f"{HERE}/<service_id>/enable")
def enable_service(service_id: str) -> ResponseReturnValue:
    """Let the service in again."""
    registry.enable(ctx(), me(), service_id)
    say("The service is enabled.")
    return go(f"{HERE}/{service_id}")


def _mine(service_id: str) -> ServiceView:
    view, is_mine = registry.get(ctx(), me(), service_id)
    if not is_mine:
        raise NotFoundError("There is no such service.", hint="You may not be the one who looks after it.")
    return view


def _one_of(items: Iterable[T], item_id: str) -> T:
    for item in items:
        if item.id == item_id:
            return item
    raise NotFoundError("It has ended already.", hint="Nothing is left to do.")
