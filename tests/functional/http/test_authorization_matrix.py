"""Every route of the OpenAPI document by every kind of caller: deny by default, row by row.

The expectation comes from the document (`x-permission`) and from the table in `domain.permissions`; the
answer from the app. A route that is in neither cannot exist.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from flask.testing import FlaskClient

from taskcred.domain.permissions import ALLOWED, FRESH, Authentication, Permission
from taskcred.http.operations import PERMISSIONS
from tests.support.site import Site, make_site


def _acting(site: Site) -> FlaskClient:
    robot = site.provider.add_service_id(site.account_id)
    site.provider.allow_act(site.iam_id, robot)
    token = site.provider.token(site.iam_id, site.account_id).token
    # The server needs the token's text, as a program would send it.
    return site.client({"Authorization": f"Bearer {token.reveal()}", "Taskcred-Act-For": robot})


KINDS: dict[str, tuple[Authentication | None, Callable[[Site], FlaskClient]]] = {
    "nobody": (None, lambda site: site.client()),
    "wrong token": (None, lambda site: site.client({"Authorization": "Bearer nonsense"})),
    "page session": (Authentication.SESSION, lambda site: site.signed_in()),
    "interactive": (Authentication.INTERACTIVE, lambda site: site.bearer()),
    "for a service id": (Authentication.INTERACTIVE, _acting),
    "program": (Authentication.PROGRAMMATIC, lambda site: site.program()),
    "run token": (Authentication.RUN_TOKEN, lambda site: site.run_token()),
    "worker": (Authentication.WORKER, lambda site: site.executor()),
    "service": (Authentication.SERVICE, lambda site: site.service().client),
}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    return make_site(tmp_path_factory.mktemp("matrix"))


def _operations(site: Site) -> list[tuple[str, str, Permission]]:
    document = site.client().get("/openapi.json").get_json()
    return [
        (method, path, Permission(operation["x-permission"]))
        for path, item in document["paths"].items()
        for method, operation in item.items()
    ]


def _call(site: Site, client: FlaskClient, method: str, path: str) -> Any:
    while "{" in path:
        path = path[: path.index("{")] + site.no_id + path[path.index("}") + 1 :]
    return client.open(path, method=method.upper(), headers={"Content-Type": "application/json"})


def _expected(how: Authentication | None, method: str, permission: Permission) -> set[int]:
    if how is None:
        return {401}
    if how is Authentication.RUN_TOKEN or how not in ALLOWED[permission]:
        return {403}
    if how is Authentication.SESSION and method != "get":
        return {403}  # without the CSRF token
    return {200, 204, 400, 404}  # let in; there is no body and there are no such things


@pytest.mark.promise("empty-means-no")
@pytest.mark.parametrize("kind", KINDS)
def test_every_route_lets_in_whom_the_table_names(site: Site, kind: str) -> None:
    how, make = KINDS[kind]
    client = make(site)
    wrong = []
    for method, path, permission in _operations(site):
        status = _call(site, client, method, path).status_code
        if status not in _expected(how, method, permission):
            wrong.append((method, path, status))
    assert wrong == []


@pytest.mark.promise("dead-with-the-run")
def test_a_runs_token_is_refused_by_its_name_on_every_route(site: Site) -> None:
    client = site.run_token()
    for method, path, _ in _operations(site):
        answer = _call(site, client, method, path)
        assert answer.status_code == 403, path
        assert '"run_token"' in answer.text, path


def test_an_old_sign_in_reads_and_changes_no_keys(site: Site) -> None:
    client = site.bearer(auth_time=site.clock.now() - timedelta(minutes=16))
    for method, path, permission in _operations(site):
        answer = _call(site, client, method, path)
        if permission in FRESH:
            assert (answer.status_code, "fresh_sign_in_required" in answer.text) == (403, True), path
        elif Authentication.INTERACTIVE in ALLOWED[permission]:
            assert answer.status_code != 403, path


def test_the_document_and_the_door_know_the_same_routes(site: Site) -> None:
    documented = {
        (method.upper(), path.replace("{", "<uuid:").replace("}", ">"))
        for method, path, _ in _operations(site)
    }
    routed = {
        (method, rule.rule)
        for rule in site.app.url_map.iter_rules()
        if rule.rule.startswith("/v1/")
        for method in (rule.methods or set()) - {"HEAD"}
    }
    assert documented == routed
    assert len(documented) == len(PERMISSIONS)


def test_a_refusal_is_in_the_audit(site: Site) -> None:
    person = site.provider.add_person(site.account_id)
    refused = site.bearer(
        iam_id=person, grant_type="urn:ibm:params:oauth:grant-type:apikey", client_id="default"
    )
    assert refused.get("/v1/runs").status_code == 403
    (event,) = site.bearer(iam_id=person).get("/v1/audit").get_json()["items"]
    assert (event["action"], event["outcome"], event["details"]) == (
        "run:read",
        "refused",
        {"why": "programmatic_token"},
    )


def test_a_known_run_token_of_a_foreign_provider_is_told_by_its_digest(site: Site) -> None:
    from taskcred.store import tables as t

    token = site.provider.token(
        site.iam_id,
        site.account_id,
        grant_type="urn:ibm:params:oauth:grant-type:apikey",
        client_id="default",
    )
    client = site.client({"Authorization": f"Bearer {token.token.reveal()}"})
    assert client.get("/v1/task_credentials").status_code == 200
    with site.ctx.store.write() as connection:
        connection.execute(
            t.run_tokens.insert().values(
                digest=token.token.digest(),
                credential_id=site.no_id,
                expires_at=token.expires_at,
            )
        )
    assert client.get("/v1/task_credentials").status_code == 403
