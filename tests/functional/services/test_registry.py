"""The life of a service: registered, changed, disabled, ended, by whom it is to be."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from taskcred.domain.permissions import Principal
from taskcred.domain.runs import Executor
from taskcred.domain.services import ServiceState
from taskcred.errors import (
    ConflictError,
    ForbiddenError,
    InvalidRequestError,
    NotFoundError,
    StalePreconditionError,
    VaultSealedError,
)
from taskcred.services import federation, registry, service_secrets
from taskcred.services.federation import NewTrust
from taskcred.services.registry import Change, NewService
from taskcred.store import audit, changes
from taskcred.store import service_tables as st
from taskcred.store import services as store
from taskcred.store import tables as t
from taskcred.testing import Failure, InMemoryVault, RecordingRevocations, interactive
from tests.support.site import Site

OPERATOR = audit.OPERATOR


def new(name: str = "notebook", **said: Any) -> NewService:
    return NewService(name, said.pop("tasks", ("report",)), **said)


def administrator(site: Site, service_id: str) -> Principal:
    """Someone who looks after the service, signed in just now."""
    person = site.provider.add_person(site.account_id)
    registry.add_administrator(site.ctx, OPERATOR, service_id, person, "ada@example.com")
    return interactive(person, site.account_id, auth_time=site.clock.now())


def actions(site: Site) -> list[str]:
    with site.ctx.store.read() as connection:
        rows = connection.execute(t.audit_events.select().order_by(t.audit_events.c.id))
        return [row.action for row in rows if row.action.startswith("service:")]


@pytest.mark.parametrize(
    ("tasks", "executors"),
    [
        ((), (Executor.SERVICE,)),
        (("report",), (Executor.WORKER,)),
        (("train",), (Executor.SERVICE,)),
        (("report", "train"), (Executor.SERVICE, Executor.WORKER)),
    ],
)
def test_unless_told_its_runs_are_carried_out_by_whom_its_tasks_need(
    site: Site, tasks: tuple[str, ...], executors: tuple[Executor, ...]
) -> None:
    made = registry.create(site.ctx, OPERATOR, new(tasks=tasks))
    assert made.service.executors == executors


def test_a_new_service_is_as_it_was_said(site: Site, vault: InMemoryVault) -> None:
    made = registry.create(
        site.ctx,
        OPERATOR,
        new(
            executors=(Executor.SERVICE, Executor.WORKER),
            starts_per_minute=7,
            callback_urls=("https://notebook.example/back?x=1",),
            webhook_url="http://127.0.0.1:9999/hook",
            title="The notebook",
            description="Runs cells.\nAt night.",
        ),
    )
    view, is_mine = registry.get(site.ctx, OPERATOR, made.service.id)
    assert view == made.service
    assert is_mine
    assert (view.state, view.tasks, view.starts_per_minute) == (ServiceState.ACTIVE, ("report",), 7)
    assert [secret.last_four for secret in view.secrets] == [made.secret.last_four]
    assert vault.paths("services/") == [f"services/{view.id}/webhook"]
    assert vault.records[f"services/{view.id}/webhook"] == made.webhook_secret
    assert actions(site) == ["service:create"]


@pytest.mark.parametrize(
    ("said", "field"),
    [
        ({"name": "No Spaces"}, "name"),
        ({"name": ""}, "name"),
        ({"name": "x" * 65}, "name"),
        ({"tasks": ("report", "none")}, "tasks"),
        ({"tasks": ("report", "report")}, "tasks"),
        ({"executors": (Executor.OWNER,)}, "executors"),
        ({"starts_per_minute": 0}, "starts_per_minute"),
        ({"starts_per_minute": 10**9}, "starts_per_minute"),
        ({"title": "x" * 129}, "title"),
        ({"title": "two\nlines"}, "title"),
        ({"description": "a\x1bb"}, "description"),
        ({"callback_urls": tuple(f"https://a.example/{n}" for n in range(21))}, "callback_urls"),
        ({"webhook_url": "https://user:word@a.example"}, "webhook_url"),
        ({"callback_urls": ("http://a.example/",)}, "callback_urls"),
    ],
)
def test_what_cannot_be_is_refused_by_its_field(
    site: Site, vault: InMemoryVault, said: dict[str, Any], field: str
) -> None:
    with pytest.raises(InvalidRequestError) as refused:
        registry.create(site.ctx, OPERATOR, new(**{"name": "notebook", **said}))
    assert refused.value.details["field"] == field
    assert refused.value.hint
    assert "word" not in refused.value.message
    assert registry.list_own(site.ctx, OPERATOR) == []
    assert vault.paths("services/") == []


def test_a_name_is_taken_once_and_free_after_the_end(site: Site) -> None:
    first = registry.create(site.ctx, OPERATOR, new())
    with pytest.raises(ConflictError) as taken:
        registry.create(site.ctx, OPERATOR, new())
    assert taken.value.error_code == "service_exists"
    registry.end(site.ctx, OPERATOR, first.service.id)
    second = registry.create(site.ctx, OPERATOR, new())
    assert registry.find_by_name(site.ctx, "notebook") == second.service.id
    with pytest.raises(NotFoundError):
        registry.find_by_name(site.ctx, first.service.id)


def test_a_vault_that_refuses_leaves_nothing(site: Site, vault: InMemoryVault) -> None:
    vault.script("store", Failure.REFUSE)
    with pytest.raises(VaultSealedError):
        registry.create(site.ctx, OPERATOR, new())
    assert registry.list_own(site.ctx, OPERATOR) == []
    assert registry.create(site.ctx, OPERATOR, new()).service.name == "notebook"  # the name is free


def test_a_change_changes_what_is_given(site: Site) -> None:
    made = registry.create(site.ctx, OPERATOR, new(title="Old")).service
    changed = registry.update(
        site.ctx,
        OPERATOR,
        made.id,
        Change(tasks=("copy",), executors=(Executor.WORKER,), webhook_url="https://a.example/hook"),
        if_match=made.revision,
    )
    assert (changed.tasks, changed.executors, changed.title) == (("copy",), (Executor.WORKER,), "Old")
    with pytest.raises(StalePreconditionError):
        registry.update(site.ctx, OPERATOR, made.id, Change(title="x"), if_match=made.revision)
    same = registry.update(site.ctx, OPERATOR, made.id, Change(tasks=("copy",)))
    assert same.revision == changed.revision
    assert actions(site) == ["service:create", "service:update"]


def test_a_task_that_left_the_catalogue_stands_in_the_way_of_no_other_change(site: Site) -> None:
    made = registry.create(site.ctx, OPERATOR, new()).service
    with site.ctx.store.write() as connection:
        store.change(connection, made.id, tasks=["gone"])
    assert registry.update(site.ctx, OPERATOR, made.id, Change(title="New")).title == "New"
    assert registry.update(site.ctx, OPERATOR, made.id, Change(tasks=("gone",))).tasks == ("gone",)
    with pytest.raises(InvalidRequestError):
        registry.update(site.ctx, OPERATOR, made.id, Change(tasks=("gone", "report")))


def test_administrators_look_after_theirs_only(site: Site) -> None:
    mine, other = (registry.create(site.ctx, OPERATOR, new(name)).service for name in ("mine", "other"))
    me = administrator(site, mine.id)
    assert [service.name for service in registry.list_own(site.ctx, me)] == ["mine"]
    assert registry.get(site.ctx, me, mine.id)[1]
    assert not registry.get(site.ctx, me, other.id)[1]
    assert registry.update(site.ctx, me, mine.id, Change(title="New")).title == "New"
    for work in (
        lambda: registry.update(site.ctx, me, other.id, Change(title="New")),
        lambda: registry.disable(site.ctx, me, other.id),
        lambda: registry.enable(site.ctx, me, other.id),
        lambda: service_secrets.rotate(site.ctx, me, other.id),
        lambda: service_secrets.rotate_webhook(site.ctx, me, other.id),
        lambda: service_secrets.end_one(site.ctx, me, other.id, other.secrets[0].id),
        lambda: federation.end_trust(site.ctx, me, other.id, site.no_id),
    ):
        with pytest.raises(NotFoundError):
            work()
    assert registry.get(site.ctx, OPERATOR, other.id)[0] == other


def test_what_a_service_may_is_the_operators(site: Site) -> None:
    made = registry.create(site.ctx, OPERATOR, new()).service
    me = administrator(site, made.id)
    for change in (
        Change(tasks=("copy",)),
        Change(executors=(Executor.WORKER,)),
        Change(starts_per_minute=1_000),
    ):
        with pytest.raises(ForbiddenError):
            registry.update(site.ctx, me, made.id, change)


def test_a_removed_administrator_looks_after_it_no_more(site: Site) -> None:
    made = registry.create(site.ctx, OPERATOR, new()).service
    me = administrator(site, made.id)
    registry.add_administrator(site.ctx, OPERATOR, made.id, me.iam_id)  # twice is fine, and keeps the address
    assert registry.get(site.ctx, me, made.id)[0].administrators[0].email == "ada@example.com"
    registry.remove_administrator(site.ctx, OPERATOR, made.id, me.iam_id)
    with pytest.raises(NotFoundError):
        service_secrets.rotate(site.ctx, me, made.id)
    with pytest.raises(NotFoundError):
        registry.remove_administrator(site.ctx, OPERATOR, made.id, me.iam_id)
    assert actions(site)[1:] == ["service:add_administrator", "service:remove_administrator"]


@pytest.mark.promise("at-once")
def test_disabling_and_ending_are_told_to_every_process(
    site: Site, revocations: RecordingRevocations
) -> None:
    made = registry.create(site.ctx, OPERATOR, new()).service
    registry.disable(site.ctx, OPERATOR, made.id)
    registry.disable(site.ctx, OPERATOR, made.id)
    registry.enable(site.ctx, OPERATOR, made.id)
    registry.enable(site.ctx, OPERATOR, made.id)
    registry.end(site.ctx, OPERATOR, made.id)
    with site.ctx.store.read() as connection:
        told = [(change.kind, change.ref) for change in changes.since(connection, 0)]
    assert told == [("service", made.id), ("service", made.id)]
    assert actions(site) == ["service:create", "service:disable", "service:enable", "service:end"]
    assert [(entry.kind, entry.ref) for entry in revocations.entries] == [("service", made.id)]


def test_the_end_takes_secrets_and_trusts_along(site: Site, vault: InMemoryVault) -> None:
    made = registry.create(site.ctx, OPERATOR, new()).service
    federation.add_trust(site.ctx, OPERATOR, made.id, NewTrust("https://i.example", "s", "https://a.example"))
    registry.end(site.ctx, OPERATOR, made.id)
    assert registry.list_own(site.ctx, OPERATOR) == []
    with site.ctx.store.read() as connection:
        assert store.valid_secrets(connection, made.id, site.clock.now()) == []
        assert connection.execute(st.service_trusts.select()).all() == []
    assert registry.tidy(site.ctx) == 1  # the keeper erases its webhook secret
    assert vault.paths("services/") == []


def test_rotation_says_what_it_did(site: Site, revocations: RecordingRevocations) -> None:
    made = registry.create(site.ctx, OPERATOR, new()).service
    with pytest.raises(InvalidRequestError):
        service_secrets.rotate(site.ctx, OPERATOR, made.id, overlap=timedelta(days=31))
    first = service_secrets.rotate(site.ctx, OPERATOR, made.id, overlap=timedelta(hours=2)).service
    ends = {secret.last_four: secret.ends_at for secret in first.secrets}
    assert ends[made.secrets[0].last_four] == site.clock.now() + timedelta(hours=2)
    # A second rotation does not lengthen the life of the first secret.
    site.clock.advance(timedelta(hours=1))
    second = service_secrets.rotate(site.ctx, OPERATOR, made.id).service
    assert sorted(secret.ends_at or site.clock.now() for secret in second.secrets) == [
        site.clock.now(),
        site.clock.now() + timedelta(hours=1),
        site.clock.now() + timedelta(hours=24),
    ]
    assert revocations.entries == []
    third = service_secrets.rotate(site.ctx, OPERATOR, made.id, overlap=timedelta(0)).service
    assert [secret.ends_at for secret in third.secrets] == [None]
    assert {entry.kind for entry in revocations.entries} == {"service_secret"}
    assert len(revocations.entries) == 3


def test_a_replaced_secret_can_be_ended_early_and_the_present_one_cannot(site: Site) -> None:
    made = registry.create(site.ctx, OPERATOR, new()).service
    (old,) = made.secrets
    with pytest.raises(ConflictError) as refused:
        service_secrets.end_one(site.ctx, OPERATOR, made.id, old.id)
    assert refused.value.error_code == "secret_current"
    service_secrets.rotate(site.ctx, OPERATOR, made.id)
    left = service_secrets.end_one(site.ctx, OPERATOR, made.id, old.id).secrets
    assert old.id not in {secret.id for secret in left}
    with pytest.raises(NotFoundError):
        service_secrets.end_one(site.ctx, OPERATOR, made.id, old.id)


@pytest.mark.promise("audited-or-refused")
def test_a_webhook_secret_is_replaced_with_its_event(site: Site, vault: InMemoryVault) -> None:
    made = registry.create(site.ctx, OPERATOR, new())
    fresh = service_secrets.rotate_webhook(site.ctx, OPERATOR, made.service.id)
    path = f"services/{made.service.id}/webhook"
    assert service_secrets.signing_secrets(site.ctx, made.service.id) == [fresh.secret, made.webhook_secret]
    site.clock.advance(timedelta(hours=24))
    assert service_secrets.signing_secrets(site.ctx, made.service.id) == [fresh.secret]
    kept = vault.records[path]
    vault.script("store", Failure.REFUSE)
    with pytest.raises(VaultSealedError):
        service_secrets.rotate_webhook(site.ctx, OPERATOR, made.service.id)
    assert vault.records[path] == kept
    alone = service_secrets.rotate_webhook(site.ctx, OPERATOR, made.service.id, overlap=timedelta(0))
    assert vault.records[path] == alone.secret
    with site.ctx.store.read() as connection:
        rows = connection.execute(t.audit_events.select().order_by(t.audit_events.c.id.desc()).limit(3))
        assert [(row.action, row.outcome) for row in rows] == [
            ("service:rotate_webhook_secret", "success"),
            ("service:rotate_webhook_secret", "given_up"),
            ("service:rotate_webhook_secret", "success"),
        ]


@pytest.mark.parametrize(
    ("said", "field"),
    [
        ({"issuer": "http://i.example"}, "issuer"),
        ({"issuer": "https://taskcred.test/identity"}, "issuer"),
        ({"issuer": ""}, "issuer"),
        ({"subject": ""}, "subject"),
        ({"subject": "x" * 513}, "subject"),
        ({"audience": "a\nb"}, "audience"),
        ({"jwks_url": "ftp://i.example"}, "jwks_url"),
        ({"ca_file": "relative.pem"}, "ca_file"),
        ({"ca_file": "/nonexistent/ca.pem"}, "ca_file"),
    ],
)
def test_a_trust_that_cannot_be_is_refused(site: Site, said: dict[str, str], field: str) -> None:
    made = registry.create(site.ctx, OPERATOR, new()).service
    fine = {"issuer": "https://i.example", "subject": "s", "audience": "https://a.example"}
    with pytest.raises(InvalidRequestError) as refused:
        federation.add_trust(site.ctx, OPERATOR, made.id, NewTrust(**{**fine, **said}))
    assert refused.value.details["field"] == field
    assert registry.get(site.ctx, OPERATOR, made.id)[0].trusts == ()


def test_workloads_are_one_services_only(site: Site) -> None:
    one, two = (registry.create(site.ctx, OPERATOR, new(name)).service for name in ("one", "two"))
    trust = NewTrust("https://i.example", "s", "https://a.example")
    federation.add_trust(site.ctx, OPERATOR, one.id, trust)
    with pytest.raises(ConflictError) as taken:
        federation.add_trust(site.ctx, OPERATOR, two.id, trust)
    assert taken.value.error_code == "trust_exists"
