"""Bad input to every route: a 4xx with a code and a hint, never a 5xx, and nothing stored.

The table below has a body that each route accepts; the bad ones are made from it: each member missing,
of a wrong type, too large, or hostile. Raw bytes that are no JSON, ids that are no ids, and odd query
strings and headers follow.
"""

from __future__ import annotations

import copy
import io
import json
from collections.abc import Callable, Iterator
from typing import Any, cast

import pytest
import sqlalchemy as sa
from flask.testing import FlaskClient

from taskcred.services import registry
from taskcred.store import audit
from taskcred.store import service_tables as st
from taskcred.store import tables as t
from taskcred.testing import InMemoryVault
from tests.support.site import Site, make_site

STORED = (
    t.task_credentials,
    t.keys,
    t.intents,
    t.access_tokens,
    t.runs,
    t.attempts,
    t.schedules,
    t.prompts,
    t.notices,
    t.idempotency,
    t.sessions,
    st.services,
    st.service_secrets,
    st.service_trusts,
    st.service_administrators,
    st.service_events,
    st.grants,
)
DEEP = json.loads("[" * 60 + "]" * 60)
HOSTILE: dict[str, Any] = {
    "null": None,
    "a number": 7,
    "a boolean": True,
    "a list": ["x"],
    "an object": {"$ne": ""},
    "an empty text": "",
    "NUL": "a\x00b",
    "half a surrogate pair": "\ud800",
    "a control character": "a\x1bb",
    "a megabyte": "x" * 900_000,
    "a number without end": 10**40,
    "nested without end": DEEP,
}
RAW: dict[str, bytes] = {
    "nothing": b"",
    "no JSON": b"{",
    "a text": b'"{}"',
    "a list": b"[]",
    "null": b"null",
    "NaN": b'{"name": NaN}',
    "Infinity": b'{"name": -Infinity}',
    "not UTF-8": b'{"name": "\xff\xfe"}',
    "a NUL byte": b'{"name": "\x00"}',
    "UTF-16": '{"name": "x"}'.encode("utf-16"),
    "an endless list": b"[" * 200_000,
    "an endless number": b'{"n": ' + b"9" * 10_000 + b"}",
    "two objects": b"{}{}",
}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    return make_site(tmp_path_factory.mktemp("bad_input"))


class House:
    """What is there to be asked for wrongly: one of each thing."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.me = site.bearer()
        made = self.me.post("/v1/runs", json={"task": "report"}).get_json()
        self.run, self.prompt = made["id"], made["prompt_id"]
        other = site.bearer(iam_id=site.provider.add_person(site.account_id))
        self.other = other
        self.schedule = self.me.post(
            "/v1/schedules", json={"name": "n", "task": "report", "cron": "0 1 * * *"}
        ).get_json()["id"]
        self.service = site.service().id
        registry.add_administrator(site.ctx, audit.OPERATOR, self.service, site.iam_id)
        person = site.provider.add_person(site.account_id)
        self.owner = site.bearer(iam_id=person)
        key = site.provider.add_key(person, site.account_id).reveal()
        self.credential = self.owner.post(
            "/v1/task_credentials", json={"name": "n", "secret": {"api_key": key}}
        ).get_json()["id"]
        self.engine = site.service().client
        started = [
            self.engine.post("/v1/runs", json={"task": "train", "subject_token": site.subject(person)})
            for _ in range(2)
        ]
        self.queued, running = (f"/v1/runs/{answer.get_json()['id']}/attempts" for answer in started)
        self.attempt = f"{running}/{self.engine.post(running, json={}).get_json()['attempt_id']}"

    def bodies(self) -> dict[str, tuple[FlaskClient, str, str, dict[str, Any]]]:
        """Route -> who, method, path, a body that would be accepted."""
        key = self.site.key()
        source = {"secret": {"api_key": key}}
        credential = f"/v1/task_credentials/{self.credential}"
        schedule = {"name": "n", "task": "copy", "parameters": {"source": "a"}, "cron": "0 1 * * *"}
        return {
            "create": (
                self.me,
                "POST",
                "/v1/task_credentials",
                {"name": "n", "description": "d", "scope": {}, "type": "iam_api_key", **source},
            ),
            "update": (self.owner, "PATCH", credential, {"name": "m", "description": "d"}),
            "rotate": (
                self.owner,
                "POST",
                f"{credential}/rotate",
                {"generate": True, "drain": "tokens", "leaked": False, "expires_at": "2030-01-01T00:00:00Z"},
            ),
            "run": (self.me, "POST", "/v1/runs", {"task": "copy", "parameters": {"source": "a"}}),
            "attempt": (
                self.site.executor(),
                "POST",
                f"/v1/runs/{self.run}/attempts",
                {"dispatch_no": 1},
            ),
            "schedule": (
                self.me,
                "POST",
                "/v1/schedules",
                {**schedule, "timezone": "UTC", "misfire": "skip"},
            ),
            "reschedule": (
                self.me,
                "PATCH",
                f"/v1/schedules/{self.schedule}",
                {"name": "m", "parameters": {}, "cron": "0 2 * * *", "timezone": "UTC", "misfire": "skip"},
            ),
            "service": (
                self.me,
                "PATCH",
                f"/v1/services/{self.service}",
                {
                    "title": "t",
                    "description": "d",
                    "callback_urls": ["https://a.example/back"],
                    "webhook_url": "https://a.example/hook",
                },
            ),
            "start": (
                self.engine,
                "POST",
                "/v1/runs",
                {"task": "train", "subject_token": self.site.subject(), "reference": "r", "parameters": {}},
            ),
            "begin": (self.engine, "POST", self.queued, {"addresses": ["10.0.0.0/8"]}),
            "beat": (
                self.engine,
                "POST",
                f"{self.attempt}/heartbeat",
                {"progress": {"done": 1, "total": 2, "text": "t"}, "output": "o"},
            ),
            "end": (
                self.engine,
                "POST",
                f"{self.attempt}/end",
                {"outcome": "failed", "reason": "r", "exit_code": 1, "again": False},
            ),
            "grant": (
                self.me,
                "POST",
                "/v1/grants",
                {"service_id": self.service, "tasks": ["report"], "days": 30},
            ),
            "webhook secret": (
                self.me,
                "POST",
                f"/v1/services/{self.service}/webhook_secret",
                {"overlap_seconds": 60},
            ),
            "secret": (self.me, "POST", f"/v1/services/{self.service}/secrets", {"overlap_seconds": 60}),
            "answer": (self.me, "POST", f"/v1/prompts/{self.prompt}/answer", {"name": "n", **source}),
        }


@pytest.fixture(scope="module")
def house(site: Site) -> House:
    return House(site)


def _stored(site: Site) -> dict[str, Any]:
    with site.ctx.store.read() as connection:
        counts: dict[str, Any] = {
            table.name: connection.execute(sa.select(sa.func.count()).select_from(table)).scalar_one()
            for table in STORED
        }
    counts["vault"] = cast("InMemoryVault", site.ctx.vault).records.keys() | set()
    counts["provider"] = site.provider.calls["create_key"]
    return counts


def _is_a_good_refusal(answer: Any) -> str | None:
    """What is wrong with this answer to bad input; None where nothing is."""
    if not 400 <= answer.status_code < 500:
        return f"status {answer.status_code}"
    if answer.mimetype not in {"application/json", "application/problem+json"}:
        return f"type {answer.mimetype}"
    body = answer.get_json()
    error = body["errors"][0] if "status_code" in body else body  # IBM's container or a problem
    if not (error.get("code") and error.get("hint")):
        return f"no code or hint: {body}"
    return None


ROUTES = (
    "create",
    "update",
    "rotate",
    "run",
    "attempt",
    "schedule",
    "reschedule",
    "answer",
    "service",
    "secret",
    "webhook secret",
    "grant",
    "start",
    "begin",
    "beat",
    "end",
)
# What is no mistake there: a scope may be null or hold what we do not know; a description may be empty; a
# job may print control characters.
FINE = {
    ("create", "scope", "null"),
    ("create", "scope", "an object"),
    ("create", "description", "an empty text"),
    ("update", "description", "an empty text"),
    ("service", "title", "an empty text"),
    ("service", "description", "an empty text"),
    ("service", "webhook_url", "an empty text"),
    ("secret", "overlap_seconds", "a number"),
    ("webhook secret", "overlap_seconds", "a number"),
    ("grant", "days", "a number"),
    ("beat", "output", "an empty text"),
    ("beat", "output", "a control character"),
    ("end", "reason", "an empty text"),
    ("end", "exit_code", "a number"),
}


def _mutants(route: str, body: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for member, value in body.items():
        for name, bad in HOSTILE.items():
            if (route, member, name) in FINE or bad is value or (bad == value and type(bad) is type(value)):
                continue
            if isinstance(value, bool) and isinstance(bad, bool):
                continue
            yield f"{member} is {name}", {**body, member: bad}
    if "progress" in body:
        for member in body["progress"]:
            for name, bad in HOSTILE.items():
                if (member, name) not in {
                    ("done", "a number"),
                    ("total", "a number"),
                    ("text", "an empty text"),
                }:
                    yield (
                        f"progress.{member} is {name}",
                        {**body, "progress": {**body["progress"], member: bad}},
                    )
    if "secret" in body:
        for name, bad in HOSTILE.items():
            yield f"secret.api_key is {name}", {**body, "secret": {"api_key": bad}}
        yield "secret is empty", {**body, "secret": {}}
        yield "two sources", {**body, "generate": True}
        yield "no source", {member: value for member, value in body.items() if member != "secret"}
    if "parameters" in body and "source" in body["parameters"]:
        for name, bad in HOSTILE.items():
            if not isinstance(bad, str) or name in {"NUL", "half a surrogate pair", "a megabyte"}:
                yield f"a parameter is {name}", {**body, "parameters": {"source": bad}}
    if route != "create":  # IBM's clients may send there what we do not know
        yield "an unknown member", {**body, "is_admin": True}


REQUIRED = {
    "create": ("name", "secret"),
    "rotate": ("generate",),
    "run": ("task", "parameters"),
    "attempt": ("dispatch_no",),
    "schedule": ("name", "task", "cron", "parameters"),
    "answer": ("secret",),
    "grant": ("service_id", "tasks"),
    "start": ("task", "subject_token"),
    "end": ("outcome",),
}


@pytest.mark.parametrize("route", ROUTES)
def test_every_member_is_checked(site: Site, house: House, route: str) -> None:
    client, method, path, body = house.bodies()[route]
    before = _stored(site)
    wrong = []
    for name, bad in _mutants(route, body):
        raw = json.dumps(bad)
        answer = client.open(path, method=method, data=raw, content_type="application/json")
        if problem := _is_a_good_refusal(answer):
            wrong.append((name, problem))
    for member in REQUIRED.get(route, ()):
        bad = copy.deepcopy(body)
        del bad[member]
        answer = client.open(path, method=method, json=bad)
        if problem := _is_a_good_refusal(answer):
            wrong.append((f"{member} is missing", problem))
    assert wrong == []
    assert _stored(site) == before


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("raw", RAW)
def test_what_is_no_json_object_is_refused(site: Site, house: House, route: str, raw: str) -> None:
    client, method, path, _ = house.bodies()[route]
    before = _stored(site)
    answer = client.open(path, method=method, data=RAW[raw], content_type="application/json")
    assert _is_a_good_refusal(answer) is None
    assert _stored(site) == before


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize(
    "content_type",
    [None, "text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "\xff"],
)
def test_what_is_not_called_json_is_refused(
    site: Site, house: House, route: str, content_type: str | None
) -> None:
    client, method, path, body = house.bodies()[route]
    before = _stored(site)
    answer = client.open(path, method=method, data=json.dumps(body), content_type=content_type)
    assert answer.status_code == 415
    assert _is_a_good_refusal(answer) is None
    assert _stored(site) == before


@pytest.mark.parametrize("route", ROUTES)
def test_too_large_is_413_before_it_is_read(site: Site, house: House, route: str) -> None:
    client, method, path, _ = house.bodies()[route]
    before = _stored(site)
    answer = client.open(path, method=method, data=b" " * (1024 * 1024 + 1), content_type="application/json")
    assert answer.status_code == 413
    assert _is_a_good_refusal(answer) is None
    assert _stored(site) == before


def test_a_body_that_does_not_say_how_large_it_is_is_cut_off(house: House) -> None:
    client, method, path, _ = house.bodies()["run"]
    endless = io.BytesIO(b'{"task": "' + b"x" * (2 * 1024 * 1024))
    answer = client.open(
        path,
        method=method,
        input_stream=endless,
        content_type="application/json",
        headers={"Transfer-Encoding": "chunked"},
        environ_overrides={"wsgi.input_terminated": True},
    )
    assert answer.status_code == 413
    assert endless.tell() < 2 * 1024 * 1024
    assert _is_a_good_refusal(answer) is None


ODD_IDS = ("1", "-1", "none", "%00", "..%2f..%2fetc", "%ff%fe", "' OR 1=1 --", "{credential_id}", "x" * 5000)
PATHS = (
    "/v1/task_credentials/{}",
    "/v1/task_credentials/{}/keys",
    "/v1/task_credentials/{}/impact",
    "/v1/runs/{}",
    "/v1/runs/{}/attempts",
    "/v1/runs/{}/access",
    "/v1/runs/{}/output",
    "/v1/runs/{}/attempts/{}/heartbeat",
    "/v1/runs/{}/attempts/{}/end",
    "/v1/schedules/{}",
    "/v1/prompts/{}",
    "/v1/access/{}",
    "/v1/grants/{}",
    "/v1/grants/{}/end",
    "/v1/services/{}",
    "/v1/services/{}/secrets",
    "/v1/services/{}/deliveries",
)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("odd", ODD_IDS, ids=lambda text: text[:20])
def test_what_is_no_id_is_not_found(site: Site, path: str, odd: str) -> None:
    me = site.bearer()
    for method in ("GET", "DELETE", "PATCH", "POST"):
        answer = me.open(path.replace("{}", odd), method=method, json={})
        assert answer.status_code in {400, 404, 405}
        assert _is_a_good_refusal(answer) is None


QUERIES: dict[str, tuple[str, ...]] = {
    "/v1/runs": (
        "limit=0",
        "limit=201",
        "limit=-1",
        "limit=x",
        "limit=1e3",
        "limit=99999999999999999999",
        "limit=%00",
        "state=running%00",
        "state=RUNNING",
        "schedule_id=1",
        "after=",
        "after=%ff",
        "after=bm9uc2Vuc2U",
        "after=WzEsMl0",
        "after=" + "x" * 5000,
        "unknown=1",
    ),
    "/v1/grants": ("limit=0", "after=!", "state=active"),
    "/v1/schedules": ("limit=0", "after=!", "unknown=1"),
    "/v1/prompts": ("limit=x", "state=closed", "after=%00"),
    "/v1/audit": ("limit=0", "after=0", "after=x", "after=99999999999999999999", "unknown=1"),
}


@pytest.mark.parametrize(
    ("path", "query"), [(path, query) for path, all_ in QUERIES.items() for query in all_]
)
def test_odd_queries_are_refused(site: Site, path: str, query: str) -> None:
    answer = site.bearer().get(f"{path}?{query}")
    assert answer.status_code == 400
    assert _is_a_good_refusal(answer) is None


@pytest.mark.parametrize(
    "query", ["limit=0", "limit=201", "after=-1", "after=x", "after=99999999999999999999", "unknown=1"]
)
def test_odd_event_cursors_are_refused(house: House, query: str) -> None:
    answer = house.engine.get(f"/v1/events?{query}")
    assert (answer.status_code, _is_a_good_refusal(answer)) == (400, None)


def test_odd_output_cursors_are_refused(house: House) -> None:
    for query in ("after=-1", "after=x", "attempt=0", "attempt=99999999999", "unknown=1"):
        answer = house.me.get(f"/v1/runs/{house.run}/output?{query}")
        assert (answer.status_code, _is_a_good_refusal(answer)) == (400, None)


HEADERS: tuple[Callable[[], dict[str, str]], ...] = tuple(
    (lambda text=text: {"Authorization": text})  # type: ignore[misc]  # mypy cannot name a default's type
    for text in (
        "Bearer",
        "Bearer ",
        "Bearer a b c",
        "Bearer " + "x" * 50_000,
        "Bearer eyJhbGciOiJub25lIn0.e30.",
        "Bearer \xff\xfe",
        "Basic",
        "Basic !!!!",
        "Basic " + "eA==" * 1000,
        "Basic /////w==",
        "Negotiate x",
        "\x7f",
    )
)


@pytest.mark.parametrize("headers", HEADERS, ids=range(len(HEADERS)))
def test_odd_authorizations_are_401(site: Site, headers: Callable[[], dict[str, str]]) -> None:
    for path in ("/v1/runs", "/v1/task_credentials"):
        answer = site.client(headers()).get(path)
        assert answer.status_code == 401
        assert _is_a_good_refusal(answer) is None


@pytest.mark.parametrize("tag", ["x", '"x"', 'W/"1-0123456789abcdef"', "\xff", "1" * 65, '"1-0", "2-0"'])
def test_odd_preconditions_change_nothing(house: House, tag: str) -> None:
    path = f"/v1/schedules/{house.schedule}"
    answer = house.me.patch(path, json={"name": "changed"}, headers={"If-Match": tag})
    assert answer.status_code in {400, 412}
    assert _is_a_good_refusal(answer) is None
    assert house.me.get(path).get_json()["name"] == "n"


@pytest.mark.parametrize("method", ["PUT", "OPTIONS", "TRACE", "PROPFIND"])
def test_unknown_methods_are_405(site: Site, method: str) -> None:
    for path in ("/v1/runs", "/v1/task_credentials", "/sign-in", "/healthz", "/openapi.json"):
        answer = site.bearer().open(path, method=method)
        assert answer.status_code == 405
        assert answer.headers["Allow"]
        assert _is_a_good_refusal(answer) is None
