"""The main job against a real `taskcred serve`, driven by IBM's unmodified SDKs."""

from __future__ import annotations

import concurrent.futures
import gc
import json
import sqlite3
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from ibm_cloud_sdk_core import ApiException
from ibm_cloud_sdk_core.authenticators import IAMAuthenticator
from ibm_platform_services import IamIdentityV1
from ibm_watsonx_ai import APIClient, Credentials
from ibm_watsonx_ai.wml_client_error import WMLClientError

from tests.support.server import Server, eventually

# IBM's SDK leaves its sessions' sockets to the garbage collector, which must meet them here and not in
# some later test that has nothing to do with them.
pytestmark = pytest.mark.filterwarnings(
    "ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"
)


@pytest.fixture(autouse=True)
def _collect_sockets() -> Iterator[None]:
    yield
    gc.collect()


CONFIG = """
[tasks.greet]
kind = "command"
argv = ["sh", "-c", "echo hello $1", "greet", "{name}"]
parameters = { type = "object", properties = { name = { type = "string", maxLength = 40 } }, required = ["name"], additionalProperties = false }
"""


@pytest.fixture(params=["http", "https"])
def server(request: pytest.FixtureRequest, start_server: Callable[..., Server]) -> Server:
    return start_server(config=CONFIG, arguments=("--tls-self-signed",) if request.param == "https" else ())


def service_for(server: Server, key: str) -> IamIdentityV1:
    authenticator = IAMAuthenticator(key, url=server.url)
    service = IamIdentityV1(authenticator=authenticator)
    service.set_service_url(server.url)
    if server.ca_file:
        authenticator.token_manager.http_config = {"verify": str(server.ca_file)}
        service.set_http_config({"verify": str(server.ca_file)})
    return service


class ToServer(httpx.BaseTransport):
    """Sends what was meant for IBM's hosts to the server under test, and refuses every other host."""

    def __init__(self, server: Server) -> None:
        self._inner = httpx.HTTPTransport(verify=server.verify)
        self._url = httpx.URL(server.url)

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        assert request.url.host in {"iam.cloud.ibm.com", "api.dataplatform.cloud.ibm.com"}, request.url.host
        request.url = request.url.copy_with(scheme=self._url.scheme, host=self._url.host, port=self._url.port)
        request.headers["host"] = self._url.netloc.decode()
        return self._inner.handle_request(request)


def watsonx(server: Server, key: str) -> APIClient:
    credentials = Credentials(url="https://us-south.ml.cloud.ibm.com", api_key=key)
    return APIClient(credentials, httpx_client=httpx.Client(transport=ToServer(server)))


def test_a_bad_key_is_refused_as_ibm_refuses_it(server: Server) -> None:
    with pytest.raises(ApiException) as refused:
        service_for(server, "no-such-key-" + "x" * 32).list_api_keys()
    assert refused.value.status_code == 400
    assert refused.value.http_response.json()["errorCode"] == "BXNIM0415E"


def test_the_sdk_stores_lists_reads_and_deletes_a_task_credential(server: Server) -> None:
    person = server.create_person("ada@example.com", api_key=True)
    assert person.api_key
    client = watsonx(server, person.api_key)

    stored = client.task_credentials.store(name="nightly", description="for the nightly job")
    credential_id = client.task_credentials.get_id(stored)
    with pytest.raises(WMLClientError, match="already been stored"):
        client.task_credentials.store()

    assert client.task_credentials.get_details(credential_id)["name"] == "nightly"
    assert [item["id"] for item in client.task_credentials.get_details()["resources"]] == [credential_id]
    assert person.api_key not in json.dumps(client.task_credentials.get_details(credential_id))
    assert client.task_credentials.delete(credential_id) == "SUCCESS"
    assert client.task_credentials.get_details()["resources"] == []


def test_an_owner_runs_a_task_with_a_generated_key(server: Server) -> None:
    person = server.create_person("grace@example.com")
    me = server.sign_in(person)
    run = me.request("POST", "/v1/runs", json={"task": "greet", "parameters": {"name": "world"}})
    assert run.status_code == 201, run.text
    assert run.json()["state"] == "waiting_for_credential"

    prompt = run.json()["prompt_id"]
    answer = me.request("POST", f"/v1/prompts/{prompt}/answer", json={"generate": True})
    assert answer.status_code == 200, answer.text

    def ended() -> dict[str, Any] | None:
        now = me.request("GET", f"/v1/runs/{run.json()['id']}").json()
        return now if now["state"] in {"succeeded", "failed"} else None

    assert eventually(ended, "the run ends")["state"] == "succeeded"
    assert "hello world" in me.request("GET", f"/v1/runs/{run.json()['id']}/output").json()["text"]


@pytest.mark.promise("one-per-owner")
@pytest.mark.parametrize("generated", [True, False], ids=["generated", "provided"])
def test_of_64_concurrent_creates_one_wins_and_nothing_else_is_left(
    start_server: Callable[..., Server], generated: bool
) -> None:
    server = start_server(config=CONFIG)
    person = server.create_person("race@example.com", api_key=True)
    me = server.sign_in(person)
    source: dict[str, Any] = {"generate": True} if generated else {"secret": {"api_key": person.api_key}}
    token = me.token

    def create(number: int) -> httpx.Response:
        with server.client(token) as client:
            return client.post(
                "/v1/task_credentials", json={"name": f"racer {number}", "type": "iam_api_key", **source}
            )

    with concurrent.futures.ThreadPoolExecutor(64) as pool:
        answers = list(pool.map(create, range(64)))
    statuses = [answer.status_code for answer in answers]
    assert sorted(statuses) == [201] + [409] * 63, statuses
    winner = next(answer.json()["id"] for answer in answers if answer.status_code == 201)
    listed = me.request("GET", "/v1/task_credentials").json()["credentials"]
    assert [item["id"] for item in listed] == [winner]
    with sqlite3.connect(server.data_dir / "vault.db") as vault:
        records = [
            path for (path,) in vault.execute("select path from records where path like 'credentials/%'")
        ]
    assert len(records) == 1
    with sqlite3.connect(server.data_dir / "iam.db") as iam:
        (keys,) = iam.execute("select count(*) from api_keys where iam_id = ?", (person.iam_id,)).fetchone()
    assert keys == (2 if generated else 1)  # the key create-user made, and the generated one
