"""A keeper that dies between a webhook's arrival and its record tells it again, under the same id."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from typing import Any

import pytest

from tests.support.receiver import receive
from tests.support.server import Server, eventually


@pytest.mark.promise("giving-up-is-visible")
def test_what_arrived_but_was_not_recorded_is_told_again(start_server: Callable[..., Server]) -> None:
    with receive() as receiver:
        server = start_server(config=f'[services]\nwebhook_allow = ["127.0.0.1:{receiver.port}"]\n')
        made = json.loads(
            server.command(
                *("admin", "service", "create", "books", "--data-dir", str(server.data_dir), "--json"),
                *("--tasks", "exec", "--webhook-url", receiver.url),
            )
        )
        receiver.secret = made["webhook_secret"]
        me = server.sign_in(server.create_person("ada@example.com"))
        killed: list[int] = []

        def kill_the_keeper(_body: dict[str, Any]) -> int | None:
            keeper = server.role("keeper")
            if not killed and keeper is not None:
                killed.append(keeper)
                os.kill(keeper, signal.SIGKILL)
            return None

        receiver.before_answer = kill_the_keeper
        given = me.request(
            "POST", "/v1/grants", json={"service_id": made["client_id"], "tasks": ["exec"]}
        ).json()
        eventually(lambda: len(receiver.told) >= 2, "it is told again", within=60)
        assert killed
        (first, body), (second, again) = receiver.told[:2]
        assert (first, body) == (second, again)
        assert body["data"]["grant_id"] == given["id"]
        # Once it is recorded, it is told no more: what follows is the next event.
        me.request("POST", f"/v1/grants/{given['id']}/end")
        eventually(lambda: "grant.ended" in receiver.types(), "the end is told")
        assert receiver.types() == ["grant.given", "grant.given", "grant.ended"]
