"""The unmodified ibm-watsonx-ai client against the app: store, list, get_details, delete."""

from __future__ import annotations

from urllib.parse import parse_qs

import httpx
import pytest
from ibm_watsonx_ai import APIClient, Credentials
from ibm_watsonx_ai.wml_client_error import ApiRequestFailure, WMLClientError

from taskcred.domain.secret import Secret
from tests.support.site import Site


class House(httpx.BaseTransport):
    """IBM's hosts, played by our app; no request leaves the process."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._app = httpx.WSGITransport(app=site.app)
        self.asked: list[tuple[str, str]] = []

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        self.asked.append((request.method, request.url.path))
        if request.url.path == "/identity/token":
            form = parse_qs(request.read().decode())
            token = self._site.ctx.provider.exchange(Secret(form["apikey"][0]), for_run=False)
            # The client reads the token.
            return httpx.Response(200, json={"access_token": token.token.reveal(), "token_type": "Bearer"})
        request.url = request.url.copy_with(host="taskcred.test")
        request.headers["Host"] = "taskcred.test"
        return self._app.handle_request(request)


@pytest.fixture
def house(site: Site) -> House:
    return House(site)


@pytest.fixture
def client(site: Site, house: House) -> APIClient:
    credentials = Credentials(url="https://us-south.ml.cloud.ibm.com", api_key=site.key())
    return APIClient(credentials, httpx_client=httpx.Client(transport=house))


def test_the_sdk_leads_the_whole_life_of_a_task_credential(client: APIClient) -> None:
    assert client.task_credentials.list().empty
    stored = client.task_credentials.store()
    assert stored["name"] == "Python API generated task credentials"
    stored_id = client.task_credentials.get_id(stored)
    assert client.task_credentials.list()["ASSET_ID"].tolist() == [stored_id]
    assert client.task_credentials.get_details(stored_id)["state"] == "usable"
    assert [item["id"] for item in client.task_credentials.get_details()["resources"]] == [stored_id]
    with pytest.raises(WMLClientError, match="already been stored"):
        client.task_credentials.store()
    assert client.task_credentials.delete(stored_id) == "SUCCESS"
    assert client.task_credentials.list().empty


def test_the_sdk_shows_our_words_and_asks_once(client: APIClient, house: House, site: Site) -> None:
    unknown = site.no_id
    with pytest.raises(ApiRequestFailure, match="not_found"):
        client.task_credentials.get_details(unknown)
    assert [path for _, path in house.asked].count(f"/v1/task_credentials/{unknown}") == 1
