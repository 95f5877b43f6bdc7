"""Checks of services: tasks that left the catalogue, issuers whose keys cannot be read, webhooks given up."""

from __future__ import annotations

from collections.abc import Iterator

from taskcred.config import Settings
from taskcred.doctor.check import Check
from taskcred.domain.services import ServiceView, TrustView
from taskcred.errors import TaskcredError, UpstreamUnavailableError
from taskcred.identity.federation import WorkloadIssuers
from taskcred.services import registry
from taskcred.services.context import Context
from taskcred.store import audit
from taskcred.wiring.worker import build_worker_context


def services(settings: Settings) -> list[Check]:
    """One finding for each thing that is not right, or one that all is."""
    try:
        ctx = build_worker_context(settings)
    except TaskcredError as error:  # a catalogue that cannot be read
        return [Check("services", "failed", error.message, error.hint)]
    try:
        registered = registry.list_own(ctx, audit.OPERATOR)
        wrong = [*_tasks(ctx, registered), *_issuers(ctx, registered), *_webhooks(ctx, registered)]
    finally:
        ctx.store.engine.dispose()
    words = f"{len(registered)} registered." if registered else "None is registered."
    return wrong or [Check("services", "ok", words)]


def _tasks(ctx: Context, registered: list[ServiceView]) -> Iterator[Check]:
    for service in registered:
        gone = [task for task in service.tasks if task not in ctx.tasks]
        if gone:
            yield Check(
                "services",
                "warning",
                f"{service.name} may start {', '.join(gone)}, which the catalogue does not have.",
                f"Put it back into [tasks], or `taskcred admin service update {service.name} --tasks …`.",
            )


def _issuers(ctx: Context, registered: list[ServiceView]) -> Iterator[Check]:
    issuers = WorkloadIssuers(ctx.clock)
    asked: dict[tuple[str, str, str], TrustView] = {
        (trust.issuer, trust.jwks_url, trust.ca_file): trust
        for service in registered
        for trust in service.trusts
    }
    for trust in asked.values():
        try:
            issuers.check(trust)
        except UpstreamUnavailableError as error:
            yield Check("services", "warning", error.message, error.hint)


def _webhooks(ctx: Context, registered: list[ServiceView]) -> Iterator[Check]:
    for service in registered:
        failed = registry.deliveries(ctx, audit.OPERATOR, service.id)
        given_up = [event for event in failed if event.state == "given_up"]
        if given_up:
            yield Check(
                "services",
                "warning",
                f"Webhooks of {service.name} were given up, the last on {given_up[0].created_at:%Y-%m-%d}: "
                f"{given_up[0].error}",
                "Mend the service's webhook; it finds what it missed at `GET /v1/events`.",
            )
