"""The token endpoint as web serves it, over a provider that can be made to hang: `kill -USR1` and it accepts
calls and never answers. Run as `python -m bench.hung_server DIRECTORY`; prints a JSON line when it serves."""

from __future__ import annotations

import json
import signal
import sys
import threading
from datetime import timedelta
from pathlib import Path

from taskcred.clock import SystemClock
from taskcred.domain.credentials import Provided
from taskcred.domain.permissions import Authentication, Principal
from taskcred.domain.policy import Policy, TokenPolicy
from taskcred.domain.tasks import Task, TaskKind
from taskcred.http.token_endpoint import TokenEndpoint
from taskcred.roles.listener import Listener
from taskcred.roles.supervisor import listen
from taskcred.roles.web import keep_memory_together, pin_to_core
from taskcred.services import attempts, credentials, runs
from taskcred.services.broker import TokenBroker
from taskcred.services.context import Context
from taskcred.store import tables as t
from taskcred.testing import InMemoryIdentityProvider, RecordingQueue, interactive, make_context

WORKER = Principal("worker:bench", "", Authentication.WORKER)


def standin(ctx: Context, provider: InMemoryIdentityProvider, number: int) -> tuple[str, str]:
    """(stand-in key of a live attempt, its credential)."""
    account = provider.add_account(f"account {number}")
    person = provider.add_person(account)
    key = provider.add_key(person, account)
    me = interactive(person, account, auth_time=ctx.clock.now())
    made = credentials.create(ctx, me, name="bench", source=Provided(key))
    run = runs.start(ctx, me, task="any", parameters={})
    begun = attempts.begin(ctx, WORKER, run.id, 1)
    assert isinstance(begun, attempts.Begun)
    return begun.standin_key.reveal(), made.credential.id  # the load generator needs the text


def main() -> None:
    """Serve until killed."""
    keep_memory_together()
    pin_to_core(0, 1)
    clock = SystemClock()
    provider = InMemoryIdentityProvider(clock)
    policy = Policy(
        tokens=TokenPolicy(standin_rate=10**9, standin_burst=10**9, exchange_deadline=timedelta(seconds=60))
    )
    ctx = make_context(
        Path(sys.argv[1]),
        clock=clock,
        provider=provider,
        queue=RecordingQueue(),
        policy=policy,
        tasks={"any": Task("any", TaskKind.COMMAND, argv=("true",))},
    )
    cached, _ = standin(ctx, provider, 0)
    missing = []
    for number in range(1, 33):
        key, credential = standin(ctx, provider, number)
        with ctx.store.write() as connection:
            connection.execute(t.access_tokens.delete().where(t.access_tokens.c.credential_id == credential))
        missing.append(key)
    hang = threading.Event()

    def never_answer(*_: object) -> None:
        if hang.is_set():
            threading.Event().wait(3600)

    provider.hook = never_answer
    signal.signal(signal.SIGUSR1, lambda *_: hang.set())
    broker = TokenBroker(ctx)
    broker.start()
    listener = listen("127.0.0.1", 0)
    Listener(TokenEndpoint(broker, None), listener.fileno(), threads=64).start()
    print(json.dumps({"port": listener.getsockname()[1], "cached": cached, "missing": missing}), flush=True)
    threading.Event().wait()


if __name__ == "__main__":
    main()
