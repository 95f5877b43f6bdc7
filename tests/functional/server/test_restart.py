"""A server that comes back under another address: its tokens must be of the new issuer."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any

from tests.support.server import Server, eventually

CONFIG = f"""
[tasks.call]
kind = "command"
argv = [{json.dumps(sys.executable)}, "-c", '''
from ibm_platform_services import IamIdentityV1
print(len(IamIdentityV1.new_instance().list_api_keys(scope="entity").get_result()["apikeys"]), "keys")
''']
sdk_services = ["iam_identity"]
"""


def outcome(me: Any) -> dict[str, Any]:
    """Start the task and wait for its end."""
    started = me.request("POST", "/v1/runs", json={"task": "call", "parameters": {}})
    assert started.json()["state"] == "queued", started.text
    run_id = started.json()["id"]

    def ended() -> dict[str, Any] | None:
        run = me.request("GET", f"/v1/runs/{run_id}").json()
        return run if run["state"] in {"succeeded", "failed"} else None

    return eventually(ended, "the run ends", within=60)


def test_a_run_gets_a_token_of_the_new_issuer_after_the_address_changed(
    start_server: Callable[..., Server],
) -> None:
    server = start_server(config=CONFIG)
    person = server.create_person("ada@example.com")
    me = server.sign_in(person)
    made = me.request(
        "POST", "/v1/task_credentials", json={"name": "mine", "type": "iam_api_key", "generate": True}
    )
    assert made.status_code == 201, made.text
    assert outcome(me)["state"] == "succeeded"
    before = server.url
    server.stop()
    server.start()
    assert server.url != before  # a free port, so another issuer
    assert outcome(server.sign_in(person))["state"] == "succeeded"
