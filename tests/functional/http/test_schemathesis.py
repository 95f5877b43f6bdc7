"""The OpenAPI document tells the truth: schemathesis asks for everything it names, well and badly."""

from __future__ import annotations

import threading
import tomllib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import schemathesis
from schemathesis.config import SchemathesisConfig
from schemathesis.engine import events, from_schema
from werkzeug.serving import WSGIRequestHandler, make_server

from tests.support.site import Site

ROOT = Path(__file__).parents[3]


class Quiet(WSGIRequestHandler):
    """A request handler that does not write a line for each request."""

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        pass


@pytest.fixture
def url(site: Site) -> Iterator[str]:
    """The app on a free port of the loopback interface."""
    server = make_server("127.0.0.1", 0, site.app, threaded=True, request_handler=Quiet)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.slow
def test_schemathesis_finds_nothing(site: Site, url: str) -> None:
    token = site.provider.token(site.iam_id, site.account_id).token
    settings = tomllib.loads((ROOT / "schemathesis.toml").read_text())
    # Schemathesis sends it with each request.
    settings["headers"] = {"Authorization": f"Bearer {token.reveal()}"}
    config = SchemathesisConfig.from_dict(settings)
    schema = schemathesis.openapi.from_url(f"{url}/openapi.json", config=config)
    failures: list[str] = []
    answered: Counter[int] = Counter()
    for event in from_schema(schema).execute():
        assert not isinstance(event, events.FatalError | events.NonFatalError), event
        if isinstance(event, events.ScenarioFinished):
            answered.update(
                i.response.status_code for i in event.recorder.interactions.values() if i.response
            )
            failures += [
                f"{check.failure_info.failure}\n{check.failure_info.code_sample}"
                for checks in event.recorder.checks.values()
                for check in checks
                if check.failure_info is not None
            ]
    assert failures == [], "\n\n".join(failures[:10])
    assert answered[200] > 20, answered
    assert answered[201] > 0, answered


def test_every_answer_a_route_gives_is_documented(site: Site) -> None:
    document = site.client().get("/openapi.json").get_json()
    assert document["openapi"].startswith("3.1")
    for path, item in document["paths"].items():
        for method, operation in item.items():
            statuses = set(operation["responses"])
            assert {"401", "403", "400", "503"} <= statuses, (method, path)
            assert any(status.startswith("2") for status in statuses), (method, path)
            assert operation["summary"], (method, path)
            if "requestBody" in operation:
                assert {"413", "415"} <= statuses, (method, path)
            for status, response in operation["responses"].items():
                if status >= "400":
                    (schema,) = [media["schema"] for media in response["content"].values()]
                    assert schema["$ref"].endswith(("/Problem", "/IbmErrors"))


def test_request_bodies_of_ours_name_all_their_members(site: Site) -> None:
    document = site.client().get("/openapi.json").get_json()
    schemas = document["components"]["schemas"]
    bodies = {
        operation["requestBody"]["content"]["application/json"]["schema"]["$ref"].rpartition("/")[2]
        for item in document["paths"].values()
        for operation in item.values()
        if "requestBody" in operation
    }
    open_ = {name for name in bodies if schemas[name].get("additionalProperties") is not False}
    assert open_ == {"CreateCredentialBody"}  # IBM's clients may send there what we do not know
