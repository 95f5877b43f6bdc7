"""IBM's own clients, unmodified, over http and over https.

A new authenticator is built after each failure: the old one believes for a minute that its request is
still under way.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import httpx
import jwt as pyjwt
import pytest
from ibm_cloud_sdk_core import ApiException
from ibm_cloud_sdk_core.authenticators import IAMAuthenticator
from ibm_platform_services import IamIdentityV1
from ibm_platform_services.iam_identity_v1 import (
    ApiKey,
    ApiKeyInsideCreateServiceIdRequest,
    ApiKeyList,
    ServiceId,
    ServiceIdList,
)
from ibm_watsonx_ai import APIClient, Credentials

from tests.functional.iam.conftest import Served


@pytest.fixture(params=["http", "https"])
def served(
    request: pytest.FixtureRequest, serve: Callable[..., Served], monkeypatch: pytest.MonkeyPatch
) -> Served:
    served = serve(tls=request.param == "https")
    if served.certificate:
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(served.certificate))
    return served


@pytest.fixture
def sdk(served: Served) -> Iterator[Callable[[str], IamIdentityV1]]:
    """IBM's client for a key."""
    made: list[IamIdentityV1] = []

    def build(api_key: str) -> IamIdentityV1:
        service = IamIdentityV1(authenticator=IAMAuthenticator(api_key, url=served.url))
        service.set_service_url(served.url)
        made.append(service)
        return service

    yield build
    for service in made:
        service.get_http_client().close()


def code_of(error: ApiException) -> str:
    body = error.http_response.json()
    return body.get("errorCode") or body["errors"][0]["message_code"]


def test_a_bad_key_is_an_api_exception_with_ibms_code(sdk: Callable[[str], IamIdentityV1]) -> None:
    with pytest.raises(ApiException) as caught:
        sdk("not-a-key-of-anyone-at-all-0123456789").list_api_keys()
    assert caught.value.status_code == 400
    assert code_of(caught.value) == "BXNIM0415E"
    assert caught.value.message == "Provided API key could not be found."
    assert caught.value.global_transaction_id


def test_the_whole_life_of_an_api_key(served: Served, sdk: Callable[[str], IamIdentityV1]) -> None:
    service = sdk(served.member.api_key.reveal())
    created = service.create_api_key(
        name="nightly",
        iam_id=served.member.iam_id,
        description="for the nightly run",
        account_id=served.member.account_id,
        expires_at="2049-01-02T18:30:00+0000",
        action_when_leaked="disable",
    )
    assert created.get_status_code() == 201
    key = ApiKey.from_dict(created.get_result())
    assert key.apikey.startswith("tcu_")
    assert created.get_result()["expires_at"] == "2049-01-02T18:30+0000"

    found = service.get_api_keys_details(iam_api_key=key.apikey).get_result()
    assert (found["id"], found["apikey"]) == (key.id, "")

    read = service.get_api_key(key.id, include_history=True, include_activity=True)
    assert read.get_headers()["ETag"] == key.entity_tag == read.get_result()["entity_tag"]
    assert ApiKey.from_dict(read.get_result()).history[0].action == "apikey:create"

    listed = service.list_api_keys(account_id=served.member.account_id, iam_id=served.member.iam_id)
    names = {item.name for item in ApiKeyList.from_dict(listed.get_result()).apikeys}
    assert "nightly" in names

    changed = service.update_api_key(key.id, if_match=key.entity_tag, name="weekly", description="")
    assert changed.get_result()["name"] == "weekly"
    assert "description" not in changed.get_result()
    with pytest.raises(ApiException) as stale:
        service.update_api_key(key.id, if_match=key.entity_tag, name="monthly")
    assert stale.value.status_code == 409

    assert service.lock_api_key(key.id).get_status_code() == 204
    with pytest.raises(ApiException) as locked:
        service.delete_api_key(key.id)
    assert locked.value.status_code == 409
    assert service.unlock_api_key(key.id).get_status_code() == 204

    assert service.disable_api_key(key.id).get_status_code() == 204
    with pytest.raises(ApiException) as disabled:
        sdk(key.apikey).list_api_keys()
    assert code_of(disabled.value) == "BXNIM0415E"
    assert service.enable_api_key(key.id).get_status_code() == 204
    assert sdk(key.apikey).list_api_keys().get_status_code() == 200

    assert service.delete_api_key(key.id).get_status_code() == 204
    with pytest.raises(ApiException) as gone:
        service.get_api_key(key.id)
    assert (gone.value.status_code, code_of(gone.value)) == (404, "BXNIM0102E")
    with pytest.raises(ApiException):
        sdk(key.apikey).list_api_keys()


def test_a_key_of_the_callers_choice(served: Served, sdk: Callable[[str], IamIdentityV1]) -> None:
    service = sdk(served.member.api_key.reveal())
    chosen = "chosen by me and % & + ünsafe for URLs"
    made = service.create_api_key(name="mine", iam_id=served.member.iam_id, apikey=chosen).get_result()
    assert made["apikey"] == chosen
    assert sdk(chosen).get_api_key(made["id"]).get_status_code() == 200
    assert service.get_api_keys_details(iam_api_key=chosen).get_result()["id"] == made["id"]
    with pytest.raises(ApiException) as taken:
        service.create_api_key(name="again", iam_id=served.member.iam_id, apikey=chosen)
    assert taken.value.status_code == 409
    with pytest.raises(ApiException) as short:
        service.create_api_key(name="short", iam_id=served.member.iam_id, apikey="x" * 31)
    assert short.value.status_code == 400


def test_the_whole_life_of_a_service_id(served: Served, sdk: Callable[[str], IamIdentityV1]) -> None:
    service = sdk(served.administrator.api_key.reveal())
    created = service.create_service_id(
        account_id=served.administrator.account_id,
        name="pipeline",
        description="runs the pipeline",
        unique_instance_crns=["crn:v1:one"],
        apikey=ApiKeyInsideCreateServiceIdRequest(name="first", store_value=True),
    )
    assert created.get_status_code() == 201
    made = ServiceId.from_dict(created.get_result())
    value = made.apikey.apikey
    assert sdk(value).list_api_keys().get_status_code() == 200
    kept = service.get_api_key(made.apikey.id).get_result()
    assert kept["apikey"] == value  # store_value

    listed = service.list_service_ids(account_id=served.administrator.account_id, name="pipeline")
    assert [item.id for item in ServiceIdList.from_dict(listed.get_result()).serviceids] == [made.id]

    read = service.get_service_id(made.id, include_history=True, include_activity=True)
    assert read.get_headers()["ETag"] == made.entity_tag
    assert read.get_result()["activity"]["authn_count"] == 1

    changed = service.update_service_id(made.id, if_match=made.entity_tag, description="new words")
    assert changed.get_result()["description"] == "new words"
    with pytest.raises(ApiException) as stale:
        service.update_service_id(made.id, if_match=made.entity_tag, name="old")
    assert stale.value.status_code == 409

    assert service.lock_service_id(made.id).get_status_code() == 204
    with pytest.raises(ApiException) as locked:
        service.update_service_id(made.id, if_match="*", name="other")
    assert locked.value.status_code == 409
    assert service.unlock_service_id(made.id).get_status_code() == 204

    assert service.delete_service_id(made.id).get_status_code() == 204
    with pytest.raises(ApiException) as gone:
        service.get_service_id(made.id)
    assert gone.value.status_code == 404
    with pytest.raises(ApiException) as dead:
        sdk(value).list_api_keys()
    assert code_of(dead.value) == "BXNIM0415E"


def test_pages_of_a_list_follow_next(served: Served, sdk: Callable[[str], IamIdentityV1]) -> None:
    service = sdk(served.member.api_key.reveal())
    for number in range(4):
        service.create_api_key(name=f"key {number}", iam_id=served.member.iam_id)
    names: list[str] = []
    token = None
    for _ in range(3):
        page = service.list_api_keys(
            account_id=served.member.account_id, pagesize=2, pagetoken=token, sort="name", order="desc"
        ).get_result()
        names += [item["name"] for item in page["apikeys"]]
        token = httpx.URL(page["next"]).params["pagetoken"] if "next" in page else None
    assert token is None
    assert names == ["key 3", "key 2", "key 1", "key 0", "Created with the identity"]
    found = service.list_api_keys(account_id=served.member.account_id, filter='name co "ey 1"').get_result()
    assert [item["name"] for item in found["apikeys"]] == ["key 1"]


def test_gzip_bodies_are_read(served: Served, sdk: Callable[[str], IamIdentityV1]) -> None:
    service = sdk(served.member.api_key.reveal())
    service.set_enable_gzip_compression(True)
    made = service.create_api_key(name="packed", iam_id=served.member.iam_id).get_result()
    assert made["name"] == "packed"


class _ToLocal(httpx.HTTPTransport):
    """Leads the client from IBM's hosts, which it insists on, to the local server; refuses all others."""

    def __init__(self, url: str) -> None:
        super().__init__()
        self._url = httpx.URL(url)

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        assert request.url.host in {"iam.cloud.ibm.com", "us-south.ml.cloud.ibm.com"}
        request.url = request.url.copy_with(scheme=self._url.scheme, host=self._url.host, port=self._url.port)
        request.headers["Host"] = f"{self._url.host}:{self._url.port}"
        return super().handle_request(request)


def test_watsonx_builds_its_client_over_http(serve: Callable[..., Served]) -> None:
    served = serve()
    key = served.member.api_key.reveal()
    with httpx.Client(transport=_ToLocal(served.url)) as http:
        client = APIClient(
            Credentials(url="https://us-south.ml.cloud.ibm.com", api_key=key), httpx_client=http
        )
        claims = pyjwt.decode(client.token, options={"verify_signature": False})
    assert claims["iam_id"] == served.member.iam_id


@pytest.mark.filterwarnings(
    "ignore:`verify=<str>` is deprecated:DeprecationWarning"
)  # the SDK's own use of httpx
def test_watsonx_builds_its_client_over_https(
    serve: Callable[..., Served], monkeypatch: pytest.MonkeyPatch
) -> None:
    served = serve(tls=True)
    monkeypatch.setenv(
        "WX_CLIENT_VERIFY_REQUESTS", str(served.certificate)
    )  # it sets this itself: put it back
    credentials = Credentials(
        url=served.url,
        platform_url=served.url,
        auth_url=f"{served.url}/identity/token",
        api_key=served.member.api_key.reveal(),
        verify=str(served.certificate),
    )
    client = APIClient(credentials)
    claims = pyjwt.decode(client.token, options={"verify_signature": False})
    assert claims["iam_id"] == served.member.iam_id


def test_watsonx_names_a_bad_key(serve: Callable[..., Served]) -> None:
    served = serve()
    key = "not-a-key-of-anyone-at-all-0123456789"
    with (
        httpx.Client(transport=_ToLocal(served.url)) as http,
        pytest.raises(Exception, match="BXNIM0415E") as caught,
    ):
        APIClient(Credentials(url="https://us-south.ml.cloud.ibm.com", api_key=key), httpx_client=http)
    assert type(caught.value).__name__ == "InvalidCredentialsError"
    assert key not in str(caught.value)


def test_the_certificate_is_really_checked(serve: Callable[..., Served]) -> None:
    served = serve(tls=True)
    with httpx.Client() as http, pytest.raises(httpx.ConnectError):
        http.get(f"{served.url}/identity/keys")
