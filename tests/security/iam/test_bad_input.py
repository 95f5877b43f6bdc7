"""Every route of the local IAM against missing, wrong-typed, oversized and hostile values: a refusal with
a code and a hint, never 5xx, and nothing stored."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from taskcred.domain.secret import Secret
from taskcred.iam.app import create_app
from taskcred.iam.operator import Made, Operator
from taskcred.iam.service import IamConfig, LocalIam
from taskcred.testing import FrozenClock, InMemoryVault, RecordingRevocations

TEXTS = ["\x00", "a\x00b", "\ud800", "\n", " ", "x" * 5000, "'; DROP TABLE api_keys; --", "\x7f"]
WRONG_TYPES = [7, 10**400, -1.5, True, ["x"], {"x": 1}]


# What is odd, and no bad value for the field.
SQL = TEXTS[6]
MAY_BE: dict[tuple[str, str], tuple[object, ...]] = {
    ("", "name"): (SQL,),
    ("", "description"): (SQL, " ", "\n"),
    ("", "group_id"): (SQL, " "),
    ("", "store_value"): (True,),
    ("", "support_sessions"): (True,),
    ("", "unique_instance_crns"): (["x"],),
    ("/v1/apikeys", "apikey"): (SQL,),
}


class Target:
    """An IAM with an administrator who bears a token, and one key and one service id to aim at."""

    def __init__(self, directory: Path) -> None:
        url = "http://taskcred.test"
        clock, vault = FrozenClock(), InMemoryVault()
        self.iam = LocalIam(
            IamConfig(directory / "iam.db", f"{url}/identity"), vault, clock, RecordingRevocations()
        )
        self.iam.prepare()
        with Operator(directory / "iam.db", clock) as operator:
            self.administrator: Made = operator.create_user(
                account="Acme",
                email="ada@example.com",
                password=Secret("correct horse battery"),
                with_api_key=True,
            )
        self.app = create_app(self.iam)
        self.http = httpx.Client(transport=httpx.WSGITransport(self.app), base_url=url)
        form = {
            "grant_type": "urn:ibm:params:oauth:grant-type:apikey",
            "apikey": self.administrator.api_key.reveal(),
        }
        token = self.http.post("/identity/token", data=form).json()["access_token"]
        self.http.headers["Authorization"] = f"Bearer {token}"
        self.key = self.http.get("/v1/apikeys").json()["apikeys"][0]["id"]
        body = {"account_id": self.administrator.account_id, "name": "s"}
        self.service_id = self.http.post("/v1/serviceids", json=body).json()["id"]

    def rows(self) -> dict[str, int]:
        with self.iam.database.read() as connection:
            return {
                table: connection.exec_driver_sql(f"SELECT count(*) FROM {table}").scalar_one()  # noqa: S608 - fixed names
                for table in ("api_keys", "service_ids", "history", "users", "sign_ins", "refresh_tokens")
            }

    def good(self, path: str) -> dict[str, object]:
        if path == "/v1/apikeys":
            return {"name": "n", "iam_id": self.administrator.iam_id}
        return {"name": "n", "account_id": self.administrator.account_id}


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    target = Target(tmp_path_factory.mktemp("iam"))
    yield target
    target.iam.close()


def refused(answer: httpx.Response, *, statuses: range = range(400, 500)) -> None:
    """The answer is a refusal in IBM's container, with a code."""
    assert answer.status_code in statuses, answer.text
    body = answer.json()
    assert body.get("errorCode") or body["errors"][0]["message_code"]
    assert body.get("errorMessage") or body["errors"][0]["message"]
    assert "Traceback" not in answer.text


BODY_FIELDS = [
    ("/v1/apikeys", name)
    for name in (
        "name", "iam_id", "description", "account_id", "apikey", "store_value", "support_sessions",
        "action_when_leaked", "expires_at",
    )
] + [
    ("/v1/serviceids", name)
    for name in ("name", "account_id", "description", "group_id", "unique_instance_crns", "apikey")
]  # fmt: skip


@pytest.mark.parametrize(("path", "field"), BODY_FIELDS)
def test_a_bad_field_in_a_body(target: Target, path: str, field: str) -> None:
    before = target.rows()
    for value in [*TEXTS, *WRONG_TYPES]:
        if value in MAY_BE.get((path, field), MAY_BE.get(("", field), ())):
            continue
        content = json.dumps({**target.good(path), field: value})
        refused(target.http.post(path, content=content, headers={"Content-Type": "application/json"}))
    assert target.rows() == before


@pytest.mark.parametrize("field", ["name", "description", "apikey", "store_value", "expires_at"])
def test_a_bad_field_inside_a_service_ids_key(target: Target, field: str) -> None:
    before = target.rows()
    for value in (10**400, ["x"], {"x": 1}, "\x00"):
        body = {**target.good("/v1/serviceids"), "apikey": {"name": "k", field: value}}
        answer = target.http.post("/v1/serviceids", content=json.dumps(body))
        refused(answer)
        assert f"apikey.{field}" in answer.text
    assert target.rows() == before


BODIES = [
    b"", b"null", b"[]", b'"x"', b"7", b"{", b"\xff\xfe", b'{"name": "\xff"}', b"[" * 50_000,
    b'{"a":' * 5000 + b"1" + b"}" * 5000, b"{" + b" " * 300_000 + b"}", b"NaN", b"\x00",
]  # fmt: skip


@pytest.mark.parametrize("method", ["POST", "PUT"])
@pytest.mark.parametrize("body", range(len(BODIES)))
def test_a_body_that_is_none(target: Target, method: str, body: int) -> None:
    before = target.rows()
    for path in ("/v1/apikeys", "/v1/serviceids") if method == "POST" else (
        f"/v1/apikeys/{target.key}", f"/v1/serviceids/{target.service_id}"
    ):  # fmt: skip
        refused(target.http.request(method, path, content=BODIES[body], headers={"If-Match": "*"}))
    assert target.rows() == before


def test_a_gzip_bomb_and_a_body_that_only_says_it_is_gzip(target: Target) -> None:
    for content in (gzip.compress(b" " * 50_000_000), b"{}", gzip.compress(b"{}")[:10]):
        refused(target.http.post("/v1/apikeys", content=content, headers={"Content-Encoding": "gzip"}))


QUERIES = [
    ("pagesize", ["0", "101", "-1", "x", "1.5", "９", "9" * 5000, "%00"]),
    ("pagetoken", ["x", "%00", "e30", "W10", "WzEsMiwzXQ", "WzEsIlx1ZDgwMCIsIngiXQ", "W" * 9000]),
    ("sort", ["digest", "id; DROP TABLE api_keys", "%00", "tag"]),
    ("order", ["up", "%00"]),
    ("filter", ["name", "name co text", 'digest co "x"', 'name like "x"', 'name co "\x00"', "x" * 9000]),
    ("include_history", ["2", "%00"]),
    ("account_id", ["%00", "x" * 5000, "nobody"]),
]


@pytest.mark.parametrize("path", ["/v1/apikeys", "/v1/serviceids"])
@pytest.mark.parametrize(("name", "values"), QUERIES)
def test_a_bad_query(target: Target, path: str, name: str, values: list[str]) -> None:
    for value in values:
        raw = value if value.startswith("%") else quote(value)
        refused(target.http.get(f"{path}?{name}={raw}"))


def test_a_bad_query_on_keys_alone(target: Target) -> None:
    for query in ("scope=all", "type=robot", "iam_id=%00", "iam_id=" + "x" * 5000, "scope=%00"):
        refused(target.http.get(f"/v1/apikeys?{query}"))


HOSTILE_IDS = ["%00", "x" * 3000, "..%2f..%2fetc", "%F0%9F%92%A9", "ApiKey-1' OR '1'='1", "%ff%fe", "-1"]


@pytest.mark.parametrize("hostile", HOSTILE_IDS)
def test_a_hostile_id(target: Target, hostile: str) -> None:
    before = target.rows()
    for room in ("apikeys", "serviceids"):
        for method, rest in (
            ("GET", ""), ("PUT", ""), ("DELETE", ""), ("POST", "/lock"), ("DELETE", "/lock"), ("POST", "/disable"),
        ):  # fmt: skip
            # Not through httpx: its transport cannot say what bytes beyond ASCII a path held.
            answer = target.app.test_client().open(
                f"/v1/{room}/{hostile}{rest}",
                method=method,
                headers={"If-Match": "*", "Authorization": target.http.headers["Authorization"]},
                data=b"{}",
            )
            assert 400 <= answer.status_code < 500
            assert answer.get_json()["errors"][0]["message_code"]
    assert target.rows() == before


@pytest.mark.parametrize(
    "header", ["", "Bearer", "Bearer ", "Bearer x", "Bearer a.b.c", "Bearer " + "x" * 9000, "Basic eDp5", "Bearer ..",
               "Bearer eyJhbGciOiJub25lIn0.e30.", "Bearer eyJhbGciOiJIUzI1NiJ9.e30.AA"],
)  # fmt: skip
def test_a_bad_authorization(target: Target, header: str) -> None:
    routes = [
        ("GET", "/v1/apikeys"), ("POST", "/v1/apikeys"), ("GET", "/v1/apikeys/details"),
        ("GET", f"/v1/apikeys/{target.key}"), ("PUT", f"/v1/apikeys/{target.key}"),
        ("DELETE", f"/v1/apikeys/{target.key}"), ("POST", f"/v1/apikeys/{target.key}/lock"),
        ("GET", "/v1/serviceids"), ("POST", "/v1/serviceids"), ("GET", "/v1/accounts"),
        ("DELETE", f"/v1/serviceids/{target.service_id}"),
    ]  # fmt: skip
    before = target.rows()
    for method, path in routes:
        answer = target.http.request(method, path, headers={"Authorization": header})
        refused(answer, statuses=range(400, 402))
    assert target.rows() == before


@pytest.mark.parametrize("header", ["Entity-Lock", "Entity-Disable"])
def test_a_flag_header_that_is_none(target: Target, header: str) -> None:
    before = target.rows()
    refused(target.http.post("/v1/apikeys", json=target.good("/v1/apikeys"), headers={header: "perhaps"}))
    assert target.rows() == before


def test_an_unknown_route_and_a_wrong_method(target: Target) -> None:
    for method, path, status in (
        ("GET", "/v1/apikeys/a/b/c", 404),
        ("PATCH", f"/v1/apikeys/{target.key}", 405),
        ("GET", "/identity/nothing", 404),
        ("DELETE", "/identity/keys", 405),
    ):
        answer = target.http.request(method, path)
        refused(answer, statuses=range(status, status + 1))


FORMS = ["/identity/authorize", "/identity/first-sign-in", "/identity/sign-out"]


@pytest.mark.parametrize("path", FORMS)
def test_hostile_forms(target: Target, path: str) -> None:
    before = target.rows()
    for content in (
        b"",
        b"email=%00&password=%00",
        b"\xff\xfe",
        b"form_token=" + b"x" * 5000,
        b"%ed%a0%80=1",
    ):
        for query in ("", "?link=%00", "?client_id=%ff&redirect_uri=%00", "?link=" + "x" * 5000):
            answer = target.http.post(
                path + query, content=content, headers={"Content-Type": "application/x-www-form-urlencoded"}
            )
            assert 400 <= answer.status_code < 500
    assert target.rows() == before


def test_hostile_sign_ins_with_a_good_form(target: Target) -> None:
    query = {
        "response_type": "code", "client_id": "taskcred", "redirect_uri": "http://taskcred.test/auth/callback",
        "code_challenge": "x" * 43, "code_challenge_method": "S256",
    }  # fmt: skip
    page = target.http.get("/identity/authorize", params=query)
    token = page.text.split('name="form_token" value="')[1].split('"')[0]
    for email, password in (
        ("\x00", "\x00"), ("x" * 5000, "x" * 9000), ("%", "_"), ("ada@example.com\x00", "y"), ("", ""),
    ):  # fmt: skip
        form = {"form_token": token, "email": email, "password": password}
        answer = target.http.post("/identity/authorize", params=query, data=form)
        assert answer.status_code in {422, 429}


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
names = st.sampled_from(
    ["name", "iam_id", "account_id", "apikey", "store_value", "expires_at", "description"]
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    body=st.dictionaries(names, json_values, max_size=7),
    path=st.sampled_from(["/v1/apikeys", "/v1/serviceids"]),
)
def test_no_body_is_a_bug(target: Target, body: dict[str, object], path: str) -> None:
    answer = target.http.post(path, content=json.dumps(body))
    assert answer.status_code < 500


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    query=st.dictionaries(
        st.sampled_from(["pagetoken", "filter", "sort", "order", "pagesize", "scope"]), st.text(), max_size=6
    )
)
def test_no_query_is_a_bug(target: Target, query: dict[str, str]) -> None:
    encoded = "&".join(f"{name}={quote(value, errors='surrogatepass')}" for name, value in query.items())
    assert target.http.get(f"/v1/apikeys?{encoded}").status_code < 500
