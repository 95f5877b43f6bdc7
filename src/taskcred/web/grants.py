"""Consent to a grant, which a service's link leads to; and the grants of a person, to look at and to end.

The link carries no authority: it says what a service asks for, and the person who is signed in decides.
Nothing on it leads away from here but an answer, and that only to an address the service is registered with.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlencode

import sqlalchemy as sa
from flask import request
from flask.typing import ResponseReturnValue

from taskcred.domain.credentials import CredentialState
from taskcred.domain.grants import DEFAULT_DAYS, LONGEST_DAYS
from taskcred.domain.services import answer_url, leads_back
from taskcred.errors import InvalidRequestError
from taskcred.http.authentication import context as ctx
from taskcred.http.authentication import current_principal
from taskcred.http.safe_return import sign_in_path
from taskcred.services import grants
from taskcred.store import notices
from taskcred.web.api_key import own_credential
from taskcred.web.frame import blueprint, fresh, go, me, render, say, signed_out_too
from taskcred.web.ways_back import host_of, let_forms_lead_to

HERE: Final = "/profile/grants"
DAYS: Final = (1, 7, 30, 90, 180, 365)
_LONGEST_LINK: Final = 1900  # what a sign-in in between can carry along
_LONGEST_STATE: Final = 1024
_PARAMETERS: Final = frozenset({"service", "tasks", "days", "return_to", "state"})
_NUMBER: Final = re.compile(r"[0-9]{1,3}")
_UUID: Final = re.compile(r"[0-9a-fA-F-]{36}")


@dataclass(frozen=True, slots=True)
class Link:
    """What a service asks for; `return_to` is one of its callback URLs, or empty."""

    service: sa.Row[Any]
    tasks: list[str]
    days: int
    return_to: str
    state: str

    @property
    def host(self) -> str:
        """Where the answer leads, as people read it; empty: nowhere."""
        return host_of(self.return_to)

    def answer(self, **said: str) -> str:
        """The address that carries an answer back to the service."""
        return answer_url(self.return_to, **said, **({"state": self.state} if self.state else {}))


@blueprint.get("/grants/new")
@signed_out_too
def consent_asked() -> ResponseReturnValue:
    """Consent: which service may start which tasks as you, for how long, and how you withdraw it."""
    if len(request.full_path) > _LONGEST_LINK or not request.full_path.isascii():
        raise _wrong("It is too long, or holds characters that links do not have.")
    if current_principal() is None:
        return go(sign_in_path(request.full_path.rstrip("?")))
    return _consent_page()


@fresh
def _consent_page() -> ResponseReturnValue:
    link = _read_link()
    let_forms_lead_to(link.return_to)
    before = [each for each in grants.list_own(ctx(), me())[0] if each.state == "active"]
    return render(
        "grant_new.html",
        title="Let a service start work as you?",
        link=link,
        registered_by=_registrar(link.service.created_by),
        days=sorted({*DAYS, link.days}),
        before=next((each for each in before if each.service_id == link.service.id), None),
        credential=own_credential(),
    )


@blueprint.post("/grants/new")
def consent_answered() -> ResponseReturnValue:
    """Allow or Refuse, and back to where the service asked to have the answer."""
    link = _read_link()
    if request.form.get("answer") != "allow":
        say("Nothing was granted.")
        return go(link.answer(error="access_denied") if link.return_to else HERE)
    days = request.form.get("days", type=int)
    if days is None:
        raise InvalidRequestError("The form says no duration.", hint="Go back and choose one.", field="days")
    given = grants.give(ctx(), me(), service_id=link.service.id, tasks=link.tasks, days=days)
    credential = own_credential()
    if credential is None or credential.state is not CredentialState.USABLE:
        back = {"return_to": link.return_to, "state": link.state} if link.return_to else {}
        return go(f"/grants/{given.id}/allowed?{urlencode(back)}".rstrip("?"))
    if link.return_to:
        return go(link.answer(grant_id=given.id))
    say(f"{given.service_title} may now start this work as you.")
    return go(HERE)


@blueprint.get("/grants/<grant_id>/allowed")
def consent_given(grant_id: str) -> ResponseReturnValue:
    """What is still missing before the service's work can run, and the way back to the service."""
    grant = grants.get(ctx(), me(), grant_id)
    return_to, state = request.args.get("return_to", ""), request.args.get("state", "")[:_LONGEST_STATE]
    with ctx().store.read() as connection:
        service = grants.verify_offer(ctx(), connection, grant.service_id, grant.tasks)
    if not leads_back(service.callback_urls, return_to):
        return_to = ""
    link = Link(service, list(grant.tasks), DEFAULT_DAYS, return_to, state)
    return render(
        "grant_allowed.html",
        title="Allowed",
        grant=grant,
        credential=own_credential(),
        back=link.answer(grant_id=grant.id) if return_to else "",
        this_page=request.full_path.rstrip("?"),
    )


@blueprint.get(HERE)
def own_grants() -> ResponseReturnValue:
    """Which services may start work as you."""
    found, more = grants.list_own(ctx(), me(), after=request.args.get("after"))
    return render("grants.html", title="Grants", grants=found, more=more)


@blueprint.route(f"{HERE}/<grant_id>/end", methods=["GET", "POST"])
@fresh
def end_grant(grant_id: str) -> ResponseReturnValue:
    """Withdraw a grant, after saying what that stops."""
    if request.method == "POST":
        ended = grants.end(ctx(), me(), grant_id)
        say(f"The grant was ended. {ended.service_title} can start nothing more as you.")
        return go(HERE)
    grant = grants.get(ctx(), me(), grant_id)
    if grant.state != "active":
        say("This grant has ended already.", "wait")
        return go(HERE)
    return render(
        "end_grant.html", title="End grant", grant=grant, under_way=grants.under_way(ctx(), me(), grant_id)
    )


def _read_link() -> Link:
    """What the link asks for. Raises an error, which is shown here and leads nowhere."""
    args = request.args
    if set(args) - _PARAMETERS or any(len(args.getlist(name)) > 1 for name in args):
        raise _wrong("It says something that is not understood, or something twice.")
    service_id = args.get("service", "")
    if not _UUID.fullmatch(service_id):
        raise _wrong("It names no service.")
    tasks = [name for name in args.get("tasks", "").split(",") if name]
    try:
        with ctx().store.read() as connection:
            service = grants.verify_offer(ctx(), connection, service_id, tasks)
    except InvalidRequestError as error:
        raise _wrong(error.message) from None
    days = args.get("days", str(DEFAULT_DAYS))
    if not _NUMBER.fullmatch(days) or not 1 <= int(days) <= LONGEST_DAYS:
        raise _wrong(f"A grant lasts 1 to {LONGEST_DAYS} days.")
    return_to, state = args.get("return_to", ""), args.get("state", "")
    if return_to and not leads_back(service.callback_urls, return_to):
        raise _wrong("The address it would return to is not one that the service is registered with.")
    if len(state) > _LONGEST_STATE:
        raise _wrong("Its state is too long.")
    return Link(service, sorted(set(tasks)), int(days), return_to, state)


def _wrong(why: str) -> InvalidRequestError:
    return InvalidRequestError(
        f"This link cannot be used. {why}",
        hint="Nothing was granted. Go back to where you came from, and tell whoever runs that service.",
    )


def _registrar(who: str) -> str:
    with ctx().store.read() as connection:
        return notices.mail_address(connection, who) or who
