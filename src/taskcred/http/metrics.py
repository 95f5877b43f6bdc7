"""What /metrics shows. Gauges are read from the records, so every process tells the same; counters count
what this process did, and what it holds in memory, and carry its id, so that Prometheus can add the processes up."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Final, get_args

from prometheus_client import CollectorRegistry, Counter
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from taskcred.domain.credentials import CredentialState
from taskcred.domain.grants import GrantState
from taskcred.domain.runs import PromptState, RunState
from taskcred.domain.services import ServiceState
from taskcred.errors import UnavailableError
from taskcred.ports import Vault
from taskcred.services.broker import TokenBroker
from taskcred.services.context import Context
from taskcred.store import events, figures, intents


class Metrics:
    """The registry of one app."""

    def __init__(self, ctx: Context, broker: TokenBroker) -> None:
        self.registry: Final = CollectorRegistry()
        self.registry.register(_Records(ctx))
        self.registry.register(_Process(broker))
        self.registry.register(_Vault(ctx.vault))
        self._requests: Final = Counter(
            "taskcred_http_requests",
            "Requests answered by this process, by route.",
            ("process", "method", "route", "status"),
            registry=self.registry,
        )

    def count(self, method: str, route: str, status: int) -> None:
        """One request was answered."""
        self._requests.labels(str(os.getpid()), method, route, str(status)).inc()


class _Records(Collector):
    """Figures of the records at the time of the scrape."""

    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx

    def collect(self) -> Iterator[GaugeMetricFamily]:
        up = GaugeMetricFamily("taskcred_records_up", "1 where the records could be read.")
        try:
            with self._ctx.store.read() as connection:
                found = figures.read(connection, self._ctx.clock.now())
        except UnavailableError:
            up.add_metric((), 0)
            yield up
            return
        up.add_metric((), 1)
        yield up
        yield _states(
            "taskcred_task_credentials",
            "Task credentials by state.",
            list(CredentialState),
            found.credentials,
        )
        yield _states("taskcred_runs", "Runs by state.", list(RunState), found.runs)
        yield _states("taskcred_prompts", "Prompts by state.", list(PromptState), found.prompts)
        yield _states("taskcred_intents", "Intents by state.", list(get_args(intents.State)), found.intents)
        yield _states("taskcred_notices", "Notices by state.", ["open", "sent", "given_up"], found.notices)
        yield _states(
            "taskcred_events", "Events to services by state.", list(get_args(events.State)), found.events
        )
        yield _states("taskcred_services", "Services by state.", list(ServiceState), found.services)
        yield _states("taskcred_grants", "Grants by state.", list(GrantState), found.grants)
        for name, words, value in (
            ("taskcred_live_attempts", "Attempts that are live.", found.live_attempts),
            (
                "taskcred_token_requests",
                "Token requests answered to attempts that are kept.",
                found.token_requests,
            ),
            (
                "taskcred_live_tokens",
                "Access tokens made for runs that have not expired.",
                found.live_tokens,
            ),
            (
                "taskcred_failing_exchanges",
                "Task credentials whose latest exchange failed.",
                found.failing_exchanges,
            ),
        ):
            yield GaugeMetricFamily(name, words, value)


class _Process(Collector):
    """What this process knows of tokens. Apart from the records, since it matters most without them."""

    def __init__(self, broker: TokenBroker) -> None:
        self._broker = broker

    def collect(self) -> Iterator[GaugeMetricFamily]:
        for name, words, value in (
            (
                "taskcred_in_touch",
                "1 where this process has heard lately what was taken away.",
                self._broker.is_in_touch,
            ),
            (
                "taskcred_known_stand_in_keys",
                "Stand-in keys this process answers from memory.",
                self._broker.known,
            ),
        ):
            family = GaugeMetricFamily(name, words, labels=("process",))
            family.add_metric((str(os.getpid()),), value)
            yield family


class _Vault(Collector):
    """What the vault refused this process."""

    def __init__(self, vault: Vault) -> None:
        self._vault = vault

    def collect(self) -> Iterator[CounterMetricFamily]:
        family = CounterMetricFamily(
            "taskcred_vault_failures",
            "Calls to the vault that failed, by reason.",
            labels=("process", "reason"),
        )
        for reason, count in self._vault.failures().items():
            family.add_metric((str(os.getpid()), reason), count)
        yield family


def _states(name: str, words: str, states: list[str], found: dict[str, int]) -> GaugeMetricFamily:
    family = GaugeMetricFamily(name, words, labels=("state",))
    for state in states:
        family.add_metric((str(state),), found.get(state, 0))
    return family
