"""Every page in its states: what the checks of accessibility and reflow walk through."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Final
from urllib.parse import urlencode

from playwright.sync_api import Page

from taskcred.domain.runs import AttemptOutcome, RunState
from taskcred.services import (
    attempts,
    credentials,
    federation,
    grants,
    notices,
    registry,
    reports,
    service_secrets,
    usability,
)
from taskcred.store import audit, events
from tests.browser.house import House, Resident


@dataclass(frozen=True, slots=True)
class Scene:
    """`arrange` prepares what there is and answers the path; `act` goes on from there in the browser."""

    arrange: Callable[[House, Resident], str]
    act: Callable[[Page], None] | None = None


def _at(path: str) -> Callable[[House, Resident], str]:
    return lambda _house, _who: path


def _press(name: str) -> Callable[[Page], None]:
    return lambda page: page.get_by_role("button", name=name, exact=True).click()


def _keyed(path: str) -> Callable[[House, Resident], str]:
    def arrange(house: House, who: Resident) -> str:
        house.give_key(who, purpose="Reports for the sales team")
        return path

    return arrange


def _parked(house: House, who: Resident) -> str:
    return f"/runs/{house.start(who).id}"


def _prompt(house: House, who: Resident) -> str:
    house.schedule(who)
    return f"/prompts/{house.start(who).prompt_id}?return_to=/runs"


def _prompt_of_a_service(house: House, who: Resident) -> str:
    back = "https://notebooks.example.test/answered"
    run_id = house.start_under(house.grant(who, service_id=house.service(back)), return_to=back)
    return f"/prompts/{house.start(who).prompt_id}?run={run_id}"


def _prompt_locked(house: House, who: Resident) -> str:
    _locked(house, who)
    return f"/prompts/{house.start(who).prompt_id}"


def _prompt_unusable(house: House, who: Resident) -> str:
    _unusable(house, who)
    return f"/prompts/{house.start(who).prompt_id}"


def _prompt_answered(house: House, who: Resident) -> str:
    prompt_id = house.start(who).prompt_id
    house.give_key(who)
    return f"/prompts/{prompt_id}"


def _running(house: House, who: Resident) -> str:
    house.give_key(who)
    run = house.start(who)
    attempt_id = house.work_on(run.id)
    reports.progress(house.ctx, attempt_id, 40, 100, "page 4")
    reports.append_output(house.ctx, attempt_id, "reading page 4\n" * 60)
    return f"/runs/{run.id}"


def _failed(house: House, who: Resident) -> str:
    path = _running(house, who)
    live = attempts.live_of_run(house.ctx, path.removeprefix("/runs/"))
    assert live is not None
    attempts.finish(house.ctx, live.attempt_id, AttemptOutcome.FAILED, "The job ended with exit status 3.", 3)
    return path


def _cancel(house: House, who: Resident) -> str:
    return f"{_running(house, who)}/cancel"


def _tokens(house: House, who: Resident) -> str:
    _running(house, who)
    return "/profile/tokens"


def _end_access(house: House, who: Resident) -> str:
    live = attempts.live_of_run(house.ctx, _running(house, who).removeprefix("/runs/"))
    assert live is not None
    return f"/profile/tokens/{live.attempt_id}/end"


def _rotated(house: House, who: Resident) -> str:
    _running(house, who)
    house.rotate(who)
    return "/profile/api-key"


def _end_key(house: House, who: Resident) -> str:
    _rotated(house, who)
    credential = credentials.list_own(house.ctx, who.principal)[0]
    old = credentials.keys(house.ctx, who.principal, credential.id)[-1]
    return f"/profile/api-key/keys/{old.id}/end"


def _locked(house: House, who: Resident) -> str:
    usability.lock(house.ctx, audit.OPERATOR, house.give_key(who), "Under investigation.")
    return "/profile/api-key"


def _unusable(house: House, who: Resident) -> str:
    house.give_key(who)
    house.refuse_key(who)
    return "/profile/api-key"


def _delete(house: House, who: Resident) -> str:
    _running(house, who)
    house.schedule(who)
    return "/profile/api-key/delete"


def _busy_home(house: House, who: Resident) -> str:
    house.schedule(who)
    house.start(who)
    return "/"


def _told_home(house: House, who: Resident) -> str:
    _locked(house, who)
    return "/"


def _schedule(house: House, who: Resident) -> str:
    house.give_key(who)
    return f"/schedules/{house.schedule(who).id}"


def _schedules(house: House, who: Resident) -> str:
    _schedule(house, who)
    return "/schedules"


def _runs(house: House, who: Resident) -> str:
    _failed(house, who)
    assert house.start(who).state is RunState.QUEUED
    return "/runs"


def _consent(house: House, who: Resident) -> str:
    house.give_key(who)
    service_id = house.service()
    house.grant(who, "train", service_id=service_id)
    query = {"tasks": "count-keys,train", "days": "45", "return_to": "https://notebooks.example.test/back"}
    return f"/grants/new?service={service_id}&{urlencode(query)}"


def _consent_without_key(house: House, _who: Resident) -> str:
    return f"/grants/new?service={house.service()}&tasks=count-keys"


def _allowed(house: House, who: Resident) -> str:
    return f"/grants/{house.grant(who).id}/allowed?return_to=https://notebooks.example.test/back&state=1"


def _allowed_with_key(house: House, who: Resident) -> str:
    house.give_key(who)
    return _allowed(house, who)


def _grants(house: House, who: Resident) -> str:
    ended = house.grant(who)
    grants.end(house.ctx, who.principal, ended.id)
    house.start_under(house.grant(who, "count-keys", "train"))
    return "/profile/grants"


def _end_grant(house: House, who: Resident) -> str:
    house.give_key(who)
    grant = house.grant(who)
    for _ in range(2):
        house.start_under(grant)
    return f"/profile/grants/{grant.id}/end"


def _told_of_expiry(house: House, who: Resident) -> str:
    grant = house.grant(who, "count-keys", "train")
    said = {"service": grant.service_title, "until": "2027-01-01 00:00 UTC", "grant_id": grant.id}
    with house.ctx.store.write() as connection:
        notices.add(house.ctx, connection, who.account_id, who.iam_id, "grant_expiring", said)
    return "/"


def _activity(house: House, who: Resident) -> str:
    _failed(house, who)
    return "/profile/activity"


def _acting_for(house: House, who: Resident) -> str:
    robot = house.provider.add_service_id(who.account_id, "nightly")
    house.provider.allow_act(who.iam_id, robot)
    return robot


def _may_act(house: House, who: Resident) -> str:
    _acting_for(house, who)
    return "/profile/api-key"


def _not_as_oneself(house: House, who: Resident) -> str:
    robot = _acting_for(house, who)
    owner = replace(who.principal, iam_id=robot, acting_iam_id=who.iam_id)
    return f"/runs/{house.start(replace(who, principal=owner)).id}"


def _other_waits(house: House, who: Resident) -> str:
    _not_as_oneself(house, who)
    return "/"


def _act(page: Page) -> None:
    page.get_by_label("Account").select_option(label="Acting for nightly")
    _press("Switch")(page)
    page.get_by_text("You are acting for the service id nightly").wait_for()


def _looked_after(house: House, who: Resident) -> str:
    """A service of theirs with two secrets, a trust, and a webhook that failed; the path of its page."""
    service_id = house.service()
    registry.add_administrator(house.ctx, audit.OPERATOR, service_id, who.iam_id, "ada@example.com")
    change = registry.Change(webhook_url="https://notebooks.example.test/hook")
    registry.update(house.ctx, audit.OPERATOR, service_id, change)
    service_secrets.rotate(house.ctx, audit.OPERATOR, service_id)
    trust = federation.NewTrust(
        "https://kubernetes.example.test", f"system:serviceaccount:notebooks:{service_id}", house.url
    )
    federation.add_trust(house.ctx, audit.OPERATOR, service_id, trust)
    now = house.ctx.clock.now()
    with house.ctx.store.write() as connection:
        events.insert(connection, service_id, "run.ended", {"run_id": service_id}, now)
        (event,) = events.after(connection, service_id, 0, 1)
        events.close(connection, event.id, "given_up", now, "The webhook answered with status 500.")
    return f"/administration/services/{service_id}"


def _services(house: House, who: Resident) -> str:
    _looked_after(house, who)
    return "/administration/services"


def _disabled_service(house: House, who: Resident) -> str:
    path = _looked_after(house, who)
    registry.disable(house.ctx, audit.OPERATOR, path.rpartition("/")[2])
    return path


def _of_service(rest: str) -> Callable[[House, Resident], str]:
    return lambda house, who: f"{_looked_after(house, who)}/{rest}"


def _end_old_secret(house: House, who: Resident) -> str:
    path = _looked_after(house, who)
    view, _ = registry.get(house.ctx, who.principal, path.rpartition("/")[2])
    return f"{path}/secrets/{next(secret.id for secret in view.secrets if secret.ends_at)}/end"


def _end_trust(house: House, who: Resident) -> str:
    path = _looked_after(house, who)
    view, _ = registry.get(house.ctx, who.principal, path.rpartition("/")[2])
    return f"{path}/trusts/{view.trusts[0].id}/end"


def _wrong_webhook(page: Page) -> None:
    page.get_by_label("Webhook URL").fill("http://notebooks.example.test/hook")
    _press("Save")(page)


def _fill_badly(page: Page) -> None:
    page.get_by_label("Epochs").fill("many")
    _press("Run")(page)


def _generate_and_show(page: Page) -> None:
    page.get_by_label("Name").fill("Mine")
    page.get_by_label("Show me the key, once").check()
    _press("Create key")(page)
    page.get_by_role("heading", name="Your new key is shown once").wait_for()


def _provide_nothing(page: Page) -> None:
    page.get_by_label("Provide an existing one").check()
    _press("Create key")(page)


def _rotate_at(page: Page) -> None:
    page.get_by_label("At a time").check()
    page.get_by_label("Expires").select_option("date")
    _press("Rotate key")(page)


def _open_all(page: Page) -> None:
    for summary in page.locator("summary").all():
        summary.click()


SCENES: Final[Mapping[str, Scene]] = {
    "home, nothing yet": Scene(_at("/")),
    "home, a prompt is open": Scene(_busy_home),
    "home, told of a lock": Scene(_told_home),
    "key list, none": Scene(_at("/profile/api-key")),
    "key list, one": Scene(_keyed("/profile/api-key"), _open_all),
    "key list, rotated": Scene(_rotated),
    "key list, locked": Scene(_locked),
    "key list, unusable": Scene(_unusable),
    "create key": Scene(_at("/profile/api-key/create")),
    "create key, errors": Scene(_at("/profile/api-key/create"), _provide_nothing),
    "create key, shown once": Scene(_at("/profile/api-key/create"), _generate_and_show),
    "edit key": Scene(_keyed("/profile/api-key/edit")),
    "rotate key": Scene(_keyed("/profile/api-key/rotate")),
    "rotate key, errors": Scene(_keyed("/profile/api-key/rotate"), _rotate_at),
    "leaked key": Scene(_keyed("/profile/api-key/rotate?leaked=1")),
    "delete key": Scene(_delete),
    "delete key, errors": Scene(_delete, _press("Delete key")),
    "end old key": Scene(_end_key),
    "consent": Scene(_consent, _open_all),
    "consent, without a key": Scene(_consent_without_key),
    "consent, a link that is wrong": Scene(_at("/grants/new?service=x")),
    "allowed, a key is missing": Scene(_allowed),
    "allowed": Scene(_allowed_with_key),
    "grants, none": Scene(_at("/profile/grants")),
    "grants": Scene(_grants),
    "end grant": Scene(_end_grant),
    "home, told of a grant": Scene(_told_of_expiry),
    "live tokens, none": Scene(_at("/profile/tokens")),
    "live tokens": Scene(_tokens),
    "end access": Scene(_end_access),
    "activity": Scene(_activity),
    "tasks": Scene(_at("/tasks")),
    "task": Scene(_at("/tasks/train")),
    "task, errors": Scene(_at("/tasks/train"), _fill_badly),
    "runs, none": Scene(_at("/runs")),
    "runs": Scene(_runs),
    "run, waiting": Scene(_parked),
    "run, running": Scene(_running),
    "run, failed": Scene(_failed),
    "cancel run": Scene(_cancel),
    "schedules, none": Scene(_at("/schedules")),
    "schedules": Scene(_schedules),
    "schedule": Scene(_schedule),
    "new schedule": Scene(_at("/schedules/new/train"), _open_all),
    "new schedule, errors": Scene(_at("/schedules/new/train"), _press("Create schedule")),
    "delete schedule": Scene(lambda house, who: f"{_schedule(house, who)}/delete"),
    "prompt": Scene(_prompt),
    "prompt, of a service's run": Scene(_prompt_of_a_service),
    "prompt, errors": Scene(_prompt, _press("Create key")),
    "prompt, locked": Scene(_prompt_locked),
    "prompt, unusable": Scene(_prompt_unusable),
    "prompt, answered": Scene(_prompt_answered),
    "may act for a service id": Scene(_may_act),
    "home, a service id waits": Scene(_other_waits),
    "acting for a service id": Scene(_may_act, _act),
    "a service id's page, as oneself": Scene(_not_as_oneself),
    "services, none": Scene(_at("/administration/services")),
    "services": Scene(_services),
    "service": Scene(_looked_after, _open_all),
    "service, disabled": Scene(_disabled_service),
    "edit service": Scene(_of_service("edit")),
    "edit service, errors": Scene(_of_service("edit"), _wrong_webhook),
    "rotate a service's secret": Scene(_of_service("rotate-secret")),
    "a service's secret, shown once": Scene(_of_service("rotate-secret"), _press("Rotate")),
    "replace a webhook secret": Scene(_of_service("rotate-webhook-secret")),
    "end a service's old secret": Scene(_end_old_secret),
    "end a trust": Scene(_end_trust),
    "disable service": Scene(_of_service("disable")),
    "no such page": Scene(_at("/nowhere")),
}
